"""Subscriptions over streams on real servers: nothing is missed, whatever happens to connections."""

import asyncio
from datetime import datetime, timezone
from typing import Any

import pytest

from fanout_client import Gap, GapReason, Limits, Start
from fanout_client.aio.client import Client
from fanout_client.events import AtLeastOnce, Late, Moved, Refused
from support.forwarder import asset_that_moves, until
from support.rig import Rig, Seen, nothing_comes, rig, take, values


async def publish(made: Rig, cluster: str, asset: str, numbers: range) -> None:
    """Publish records whose offsets are their values."""
    for number in numbers:
        await made.forwarder.publish(cluster, asset, number, offset=number)


def reading(client: Client, cluster: str) -> bool:
    """Whether a consumer gives records of a cluster."""
    reader: Any = client._mode
    return cluster in reader._readers and reader._readers[cluster]._session is not None


def gaps(seen: Seen) -> list[tuple[GapReason, str | None, str | None]]:
    return [(gap.reason, gap.asset, gap.cluster) for gap in seen.of(Gap)]


def test_a_subscription_begins_where_it_says() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            await publish(made, "C1", "PLC-1", range(1, 4))
            await asyncio.sleep(1.1)
            middle = datetime.now(timezone.utc)
            await asyncio.sleep(0.1)
            await publish(made, "C1", "PLC-1", range(4, 6))
            client = await made.connect()
            new = await client.subscribe("PLC-1")
            everything = await client.subscribe_many(["PLC-1", "PLC-2"], start=Start.ALL)
            later = await client.subscribe("PLC-1", start=middle)
            item = await client.subscribe("PLC-1", id="speed", start=Start.ALL)
            await made.forwarder.publish("C1", "PLC-1", 6, offset=6)
            await made.forwarder.publish("C1", "PLC-2", 7, offset=7)
            await made.forwarder.publish("C1", "PLC-1", 8, offset=8, item="speed")
            assert values(await take(everything, 8)) == list(range(1, 9))
            assert values(await take(later, 4)) == [4, 5, 6, 8]
            assert values(await take(new, 2)) == [6, 8]
            got = await take(item, 1)
            assert (got[0].subject, got[0].cluster, got[0].json()["VALUE"]) == ("assets.PLC-1.speed", "C1", 8)
            new.close()
            await made.forwarder.publish("C1", "PLC-1", 9, offset=9)
            assert [message async for message in new] == []
            assert values(await take(later, 1)) == [9], "the others go on"

    asyncio.run(scenario())


def test_a_move_misses_nothing_in_order_and_once() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2", stream=True) as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe(asset)
            await publish(made, old, asset, range(50))
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            await until(lambda: reading(client, "C2"), "the new side is read")
            assert values(await take(stream, 50)) == list(range(50))
            # What the old side has is on its way for long, and the new side is quick.
            made.proxies[old].pause()
            await publish(made, old, asset, range(50, 100))
            await forwarder.declare([made.ring(7, "leaving", "C1"), made.ring(8, "inUse", "C1", "C2")], 7)
            await publish(made, new, asset, range(100, 150))
            # A pod has died: its successor stores some again.
            await publish(made, new, asset, range(130, 150))
            assert await nothing_comes(stream), "the new side is held"
            made.proxies[old].resume()
            assert values(await take(stream, 100)) == list(range(50, 150))
            await forwarder.declare([made.ring(8, "inUse", "C1", "C2")], 8)
            await publish(made, new, asset, range(150, 151))
            assert values(await take(stream, 1)) == [150]
            await until(lambda: not reading(client, "C1"), "nothing of it is read on the old side any more")
            assert (gaps(seen), seen.of(Late), seen.of(Moved)) == ([], [], [Moved(asset, old, new)])

    asyncio.run(scenario())


def test_who_is_cut_off_while_an_asset_goes_there_and_back_gets_all_in_order() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2", "C3", stream=True) as made:
            forwarder = made.forwarder
            forwarder.rings = [made.ring(7, "inUse", "C1", "C3")]
            asset, old, new = asset_that_moves(["C1", "C3"], ["C1", "C2", "C3"])
            other = next(name for name in ("C1", "C3") if name != old)
            client = await made.connect(old)
            seen = Seen(client)
            stream = await client.subscribe(asset)
            await publish(made, old, asset, range(10))
            assert values(await take(stream, 10)) == list(range(10))
            await made.proxies[old].cut()
            rings = [made.ring(7, "inUse", "C1", "C3"), made.ring(8, "announced", "C1", "C2", "C3")]
            await forwarder.declare(rings, 7)
            await until(lambda: reading(client, new), "it has heard of it elsewhere, and reads there")
            await publish(made, old, asset, range(10, 20))
            await forwarder.declare([made.ring(8, "inUse", "C1", "C2", "C3")], 8)
            await publish(made, new, asset, range(20, 30))
            await forwarder.declare([made.ring(8, "inUse", "C1", "C2", "C3"), made.ring(9, "inUse", "C1", "C3")], 8)
            await publish(made, old, asset, range(30, 40))
            await forwarder.declare([made.ring(9, "inUse", "C1", "C3")], 9)
            assert await nothing_comes(stream)
            made.proxies[old].heal()
            assert values(await take(stream, 30, within=10)) == list(range(10, 40))
            await until(lambda: not reading(client, new), "where it has been is forgotten")
            assert gaps(seen) == []
            assert other != old

    asyncio.run(scenario())


def test_lost_connections_servers_and_consumers_cost_nothing() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe_many(["PLC-1", "PLC-2"])
            await publish(made, "C1", "PLC-1", range(5))
            assert values(await take(stream, 5)) == list(range(5))
            await made.proxies["C1"].cut()
            await publish(made, "C1", "PLC-2", range(5, 10))
            made.proxies["C1"].heal()
            assert values(await take(stream, 5)) == list(range(5, 10))
            await made.servers["C1"].stop()
            await made.servers["C1"].start()
            await until(lambda: made.forwarder.client("C1").is_connected, "the forwarder is back")
            await publish(made, "C1", "PLC-1", range(10, 15))
            assert values(await take(stream, 5, within=10)) == list(range(10, 15))
            jetstream = made.forwarder.client("C1").jetstream()
            for consumer in await jetstream.consumers_info("ASSETS"):
                await jetstream.delete_consumer("ASSETS", consumer.name)
            await publish(made, "C1", "PLC-1", range(15, 20))
            assert values(await take(stream, 5)) == list(range(15, 20))
            assert gaps(seen) == []

    asyncio.run(scenario())


def test_a_slow_program_loses_nothing() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            client = await made.connect(limits=Limits(queue=10))
            seen = Seen(client)
            stream = await client.subscribe("PLC-1", start=Start.ALL)
            await publish(made, "C1", "PLC-1", range(1_000))
            await until(lambda: stream.is_full, "its queue is full")
            # Others of this client can begin meanwhile.
            await client.subscribe("PLC-2")
            assert values(await take(stream, 1_000, within=10)) == list(range(1_000))
            assert gaps(seen) == []

    asyncio.run(scenario())


def test_what_is_held_has_a_bound_and_is_read_again() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2", stream=True) as made:
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            rings = [made.ring(7, "inUse", "C1"), made.ring(8, "inUse", "C1", "C2")]
            await made.forwarder.declare(rings, 7)
            client = await made.connect(new, limits=Limits(held=5))
            seen = Seen(client)
            stream = await client.subscribe(asset, start=Start.ALL)
            await made.proxies[old].cut()
            await publish(made, old, asset, range(30))
            await publish(made, new, asset, range(30, 60))
            assert await nothing_comes(stream)
            made.proxies[old].heal()
            assert values(await take(stream, 60, within=10)) == list(range(60))
            assert gaps(seen) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("is_member", [True, False])
def test_a_cluster_that_cannot_be_read_for_long_is_a_gap_and_its_records_come_late(is_member: bool) -> None:
    async def scenario() -> None:
        async with rig("C1", "C2", stream=True) as made:
            forwarder = made.forwarder
            names = ("C1", "C2") if is_member else ("C2",)
            asset, old, new = asset_that_moves(["C1"], list(names))
            rings = [made.ring(7, "inUse", "C1"), made.ring(8, "inUse", *names)]
            await forwarder.declare(rings, 7)
            client = await made.connect(new, limits=Limits(drain_stream=0.5, reconnect=0.2))
            seen = Seen(client)
            stream = await client.subscribe(asset)
            await made.proxies[old].cut()
            await forwarder.declare([made.ring(8, "inUse", *names)], 8)
            # More than a client remembers, so that it cannot know by that whether they were there before.
            await publish(made, old, asset, range(10))
            await publish(made, new, asset, range(10, 310))
            assert values(await take(stream, 300)) == list(range(10, 310))
            await until(lambda: seen.of(Gap) != [], "the gap")
            reasons = [GapReason.NOT_DRAINED] if is_member else [GapReason.NOT_DRAINED, GapReason.LEFT]
            await until(lambda: len(seen.of(Gap)) == len(reasons), "the gaps")
            assert gaps(seen) == [(reason, asset, old) for reason in reasons]
            made.proxies[old].heal()
            if is_member:
                assert values(await take(stream, 10, within=10)) == list(range(10))
                await until(lambda: len(seen.of(Late)) == 10, "they are told")
            await publish(made, new, asset, range(310, 311))
            assert values(await take(stream, 1)) == [310]

    asyncio.run(scenario())


def test_what_the_stream_has_dropped_is_a_gap() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            await publish(made, "C1", "PLC-1", range(3))
            assert values(await take(stream, 3)) == [0, 1, 2]
            await made.proxies["C1"].cut()
            await publish(made, "C1", "PLC-1", range(3, 10))
            # The stream's limits say so.
            await made.forwarder.client("C1").jetstream().purge_stream("ASSETS", keep=2)
            made.proxies["C1"].heal()
            assert values(await take(stream, 2)) == [8, 9]
            assert gaps(seen) == [(GapReason.EXPIRED, "PLC-1", "C1")]
            assert seen.of(Gap)[0].detail == "sequences 4 to 8 of the stream"
            jetstream = made.forwarder.client("C1").jetstream()
            await jetstream.delete_stream("ASSETS")
            await made.forwarder.add_stream("C1")
            await publish(made, "C1", "PLC-1", range(10, 12))
            assert values(await take(stream, 2, within=10)) == [10, 11]
            assert gaps(seen)[1:] == [(GapReason.STREAM_ANEW, None, "C1")]

    asyncio.run(scenario())


def test_a_stream_that_is_made_later_is_read_from_its_beginning() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            await made.forwarder.client("C1").jetstream().delete_stream("ASSETS")
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            await until(lambda: seen.of(Refused) != [], "the event")
            assert "stream not found" in seen.of(Refused)[0].reason
            await made.forwarder.add_stream("C1")
            await publish(made, "C1", "PLC-1", range(3))
            assert values(await take(stream, 3)) == [0, 1, 2]
            assert gaps(seen) == []

    asyncio.run(scenario())


def test_without_any_origin_it_is_said_that_repeats_cannot_be_told() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            made.forwarder.publishing["origin"] = False
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            for value in (1, 1):
                await made.forwarder.publish("C1", "PLC-1", value)
            assert values(await take(stream, 2)) == [1, 1]
            assert len(seen.of(AtLeastOnce)) == 1

    asyncio.run(scenario())


def test_a_missing_permission_is_named() -> None:
    async def scenario() -> None:
        async with rig("C1", stream=True) as made:
            client = await made.connect(
                jetstream_api={"C1": "$JS.other.API"}, limits=Limits(ready=0.5, answer=0.3, reconnect=0.1)
            )
            seen = Seen(client)
            await client.subscribe("PLC-1")
            assert gaps(seen) == []
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert gaps(seen) == [(GapReason.NOT_READY, "PLC-1", "C1")]
            assert "nobody answers on $JS.other.API.STREAM.INFO.ASSETS" in seen.of(Gap)[0].detail
            link = client._network.link("C1")
            await link._on_error(Exception('nats: permissions violation for publish to "$js.other.api.stream.info.x"'))
            assert link.is_denied("$JS.other.API.STREAM.INFO.x")

    asyncio.run(scenario())
