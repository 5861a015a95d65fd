"""The two names of OpenFactory, with the arguments that its Asset classes give."""

import http.server
import json
import queue
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fanout_client import ConnectError, openfactory, sync
from fanout_client.openfactory import NATSSubscriber, NotFollowingWarning, get_nats_cluster_url
from support.background import LoopThread, background_rig
from support.forwarder import Forwarder, asset_that_moves, until

Calls = queue.Queue[tuple[str, Any]]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVERS", "BEACON_KEY", "BEACON_SUBJECT", "RING", "CREDENTIALS", "ALLOW_HOSTS"):
        monkeypatch.delenv(f"FANOUT_{name}", raising=False)
    monkeypatch.delenv("ASSET_ROUTER_URL", raising=False)


@pytest.fixture
def program() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


def declare(monkeypatch: pytest.MonkeyPatch, forwarder: Forwarder) -> None:
    monkeypatch.setenv("FANOUT_BEACON_KEY", forwarder.pin.public_key)
    monkeypatch.setenv("FANOUT_BEACON_SUBJECT", forwarder.pin.subject)
    monkeypatch.setenv("FANOUT_RING", forwarder.pin.ring)


@contextmanager
def router(answers: dict[str, Any]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests are quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_router_is_asked_as_the_original_does(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "/asset/plc-1": {"asset_id": "plc-1", "nats_url": "nats://c1:4222"},
        "/asset/a%2Fb": {"nats_url": "nats://c2:4222"},
        "/asset/none": {"asset_id": "none"},
    }
    with router(answers) as url:
        assert get_nats_cluster_url("plc-1", url) == "nats://c1:4222"
        assert get_nats_cluster_url("a/b", f"{url}/") == "nats://c2:4222"
        with pytest.raises(ValueError, match="'nats_url' not found"):
            get_nats_cluster_url("none", url)
        with pytest.raises(OSError, match="404"):
            get_nats_cluster_url("other", url)
        monkeypatch.setenv("ASSET_ROUTER_URL", url)
        assert get_nats_cluster_url("plc-1") == "nats://c1:4222"
    with pytest.raises(ValueError, match="ASSET_ROUTER_URL"):
        get_nats_cluster_url("plc-1", "file:///etc")


def test_with_a_pin_the_subscriber_follows_its_asset(monkeypatch: pytest.MonkeyPatch, program: LoopThread) -> None:
    with background_rig("C1", "C2") as (loop, made):
        forwarder = made.forwarder
        declare(monkeypatch, forwarder)
        asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
        calls: Calls = queue.Queue()
        callers = set()

        def on_message(msg_subject: str, msg_value: dict[str, Any]) -> None:
            callers.add(threading.current_thread())
            if msg_value["VALUE"] == 1:
                raise RuntimeError("a fault of the program")
            calls.put((msg_subject, msg_value))

        url = made.proxies["C1"].url
        subscribers = [NATSSubscriber(program, url, f"{asset.upper()}.*", on_message) for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for subscriber in subscribers:
                subscriber.start()
        assert len(openfactory._CLIENTS._clients) == 1, "one client for both"
        loop.run(forwarder.publish(old, asset, 1))
        loop.run(forwarder.publish(old, asset, 2))
        rings = [made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")]
        loop.run(forwarder.declare(rings, 7))
        loop.run(until(lambda: "C2" in forwarder.proofs, "the proof"))
        loop.run(forwarder.client(new).publish(f"{asset}.temp", b"no JSON"))
        loop.run(forwarder.publish(new, asset, 3))
        got = [calls.get(timeout=5) for _ in range(4)]
        assert sorted(value["VALUE"] for _, value in got) == [2, 2, 3, 3]
        assert {subject for subject, _ in got} == {f"{asset}.temp"}
        assert callers == {program.thread}
        for subscriber in subscribers:
            subscriber.stop()
        loop.run(until(lambda: openfactory._CLIENTS._clients == {}, "the client is closed"))


def test_with_servers_in_the_environment_no_router_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with background_rig("C1", "C2") as (_, made):
        declare(monkeypatch, made.forwarder)
        monkeypatch.setenv("FANOUT_SERVERS", f"{made.proxies['C1'].url}, {made.servers['C1'].url}")
        made.forwarder.rings = [made.ring(7, "inUse", "C1", "C2")]
        asset, _, new = asset_that_moves(["C1"], ["C1", "C2"])
        assert get_nats_cluster_url(asset.lower(), "unused") == made.proxies[new].url
        assert openfactory._CLIENTS._clients == {}


def test_a_pin_with_a_part_missing_is_refused(monkeypatch: pytest.MonkeyPatch, program: LoopThread) -> None:
    monkeypatch.setenv("FANOUT_BEACON_KEY", "U")
    monkeypatch.setenv("FANOUT_RING", "r")
    with pytest.raises(ValueError, match="set FANOUT_BEACON_SUBJECT"):
        NATSSubscriber(program, "nats://c1", "PLC-1.*", lambda msg_subject, msg_value: None)


def test_a_forwarder_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch, program: LoopThread) -> None:
    monkeypatch.setattr(openfactory, "_RETRY_SECONDS", 0.05)
    with background_rig("C1") as (loop, made):
        declare(monkeypatch, made.forwarder)
        connect, failures = sync.connect, [ConnectError("nobody has answered")]

        def connect_later(*urls: Any, **options: Any) -> sync.Client:
            if failures:
                raise failures.pop()
            return connect(*urls, **options)

        monkeypatch.setattr(sync, "connect", connect_later)
        calls: Calls = queue.Queue()
        subscriber = NATSSubscriber(
            program,
            [made.proxies["C1"].url],
            "PLC-1.*",
            lambda msg_subject, msg_value: calls.put((msg_subject, msg_value)),
        )
        subscriber.start()
        loop.run(until(lambda: "C1" in made.forwarder.proofs, "the subscription"))
        loop.run(made.forwarder.publish("C1", "PLC-1", 1))
        assert calls.get(timeout=5)[1]["VALUE"] == 1
        subscriber.stop()
        loop.run(until(lambda: openfactory._CLIENTS._clients == {}, "the client is closed"))


def test_without_a_pin_it_works_and_warns_that_it_does_not_follow(program: LoopThread) -> None:
    with background_rig("C1") as (loop, made):
        calls: Calls = queue.Queue()
        subscriber = NATSSubscriber(
            program,
            made.servers["C1"].url,
            "PLC-1.*",
            lambda msg_subject, msg_value: calls.put((msg_subject, msg_value)),
        )
        with pytest.warns(NotFollowingWarning, match="does not follow"):
            subscriber.start()
        assert subscriber._plain is not None
        program.run(subscriber._plain.flush())
        loop.run(made.forwarder.publish("C1", "PLC-1", 1))
        assert calls.get(timeout=5) == ("PLC-1.temp", {"ID": "temp", "VALUE": 1})
        subscriber.stop()
        assert subscriber._plain.is_closed
