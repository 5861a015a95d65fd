"""The client for programs without asyncio."""

import queue
import threading

import pytest

from fanout_client import ClosedError, ConnectError, Gap, GapReason, Limits, Message, sync
from fanout_client.errors import AssetInvalidError
from support.background import background_rig
from support.forwarder import asset_that_moves, until
from support.rig import LIMITS


def test_it_iterates_and_follows() -> None:
    with background_rig("C1", "C2") as (loop, made):
        forwarder = made.forwarder
        asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
        with sync.connect(made.proxies["C1"].url, pin=forwarder.pin, limits=LIMITS) as client:
            assert client.owner(asset) == old
            assert client.servers("C1") == (made.proxies["C1"].url,)
            with client.subscribe(asset) as stream:
                loop.run(forwarder.publish(old, asset, 1))
                records = iter(stream)
                assert next(records).json()["VALUE"] == 1
                rings = [made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")]
                loop.run(forwarder.declare(rings, 7))
                loop.run(until(lambda: "C2" in forwarder.proofs, "the proof"))
                loop.run(forwarder.publish(old, asset, 2))
                loop.run(forwarder.publish(new, asset, 3))
                assert [next(records).json()["VALUE"] for _ in range(2)] == [2, 3]
                with pytest.raises(TimeoutError, match="no record has come"):
                    stream.next(timeout=0.05)
                loop.run(forwarder.publish(new, asset, 4))
                got = stream.next(timeout=5)
                assert got is not None
                assert got.json()["VALUE"] == 4
            assert stream.next() is None, "it is closed"


def test_it_calls_back_and_goes_on_after_a_fault() -> None:
    with background_rig("C1") as (loop, made):
        got: queue.Queue[Message] = queue.Queue()

        def take(message: Message) -> None:
            if message.json()["VALUE"] == 1:
                raise RuntimeError("a fault of the program")
            got.put(message)

        with sync.connect(made.proxies["C1"].url, pin=made.forwarder.pin, limits=LIMITS) as client:
            client.subscribe_many(["PLC-1", "PLC-2"], callback=take)
            loop.run(made.forwarder.publish("C1", "PLC-1", 1))
            loop.run(made.forwarder.publish("C1", "PLC-2", 2))
            assert got.get(timeout=5).asset == "PLC-2"


def test_events_are_told() -> None:
    with background_rig("C1") as (loop, made):
        client = sync.connect(made.proxies["C1"].url, pin=made.forwarder.pin, limits=Limits(queue=1))
        client.subscribe("PLC-1")
        for value in range(3):
            loop.run(made.forwarder.publish("C1", "PLC-1", value))
        gap = next(event for event in client.events() if isinstance(event, Gap))
        assert gap.reason is GapReason.SLOW_CONSUMER
        client.close()
        assert list(client.events()) == []


def test_closing_ends_who_waits_and_the_thread() -> None:
    with background_rig("C1") as (_, made):
        client = sync.connect(made.proxies["C1"].url, pin=made.forwarder.pin, limits=LIMITS)
        stream = client.subscribe("PLC-1")
        ended = threading.Event()

        def read() -> None:
            assert list(stream) == []
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        client.close()
        client.close()
        assert ended.wait(5)
        assert "fanout-client" not in [thread.name for thread in threading.enumerate()]
        with pytest.raises(ClosedError):
            client.subscribe("PLC-1")


def test_faults_of_the_caller_are_raised() -> None:
    with background_rig("C1") as (_, made):
        with pytest.raises(ConnectError):
            sync.connect("nats://127.0.0.1:1", pin=made.forwarder.pin, limits=Limits(connect=0.2))
        client = sync.connect(made.proxies["C1"].url, pin=made.forwarder.pin, limits=LIMITS)
        with client, pytest.raises(AssetInvalidError):
            client.subscribe("a.*")
