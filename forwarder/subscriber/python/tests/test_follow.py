"""Subscriptions against real servers: they follow, in order, each record once."""

import asyncio

import pytest
from nats.aio.msg import Msg

from fanout_client import Gap, GapReason, JetStreamError, Limits, Origin, Repeats, Start
from fanout_client.aio.tap import Tap
from fanout_client.events import AtLeastOnce, Late, Moved, RingChanged, TopicAnew
from support.forwarder import asset_that_moves, until
from support.rig import Seen, nothing_comes, rig, take, until_interest, until_no_interest, values


def test_records_of_one_asset_and_of_many_come_in_order() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            one = await client.subscribe("PLC-1")
            item = await client.subscribe("PLC-1", id="speed")
            many = await client.subscribe_many(["PLC-1", "PLC-2"])
            for value in range(3):
                await made.forwarder.publish("C1", "PLC-1", value)
            await made.forwarder.publish("C1", "PLC-2", 3)
            await made.forwarder.publish("C1", "PLC-1", 4, item="speed")
            got = await take(one, 4)
            assert values(got) == [0, 1, 2, 4]
            assert (got[0].asset, got[0].subject, got[0].cluster) == ("PLC-1", "PLC-1.temp", "C1")
            assert got[0].origin == Origin("assets", 3, 1, 1_700_000_000_001)
            assert sorted(values(await take(many, 5))) == [0, 1, 2, 3, 4]
            assert values(await take(item, 1)) == [4]
            assert client.owner("PLC-1") == "C1"
            one.close()
            await made.forwarder.publish("C1", "PLC-1", 5)
            assert [message async for message in one] == []
            assert values(await take(many, 1)) == [5], "the others go on"

    asyncio.run(scenario())


def test_copies_for_who_stays_at_the_former_cluster_are_passed_over() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            # Copies may have holes: the second record would come late behind the third.
            await made.forwarder.publish("C1", "PLC-1", 0, 1)
            await made.forwarder.publish("C1", "PLC-1", 2, 3, copy=True)
            await made.forwarder.publish("C1", "PLC-1", 1, 2)
            await made.forwarder.publish("C1", "PLC-1", 2, 3)
            assert values(await take(stream, 3)) == [0, 1, 2]
            assert seen.of(Late) == []

    asyncio.run(scenario())


def test_a_move_from_one_cluster_to_two_misses_nothing_in_order_and_once() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe(asset)
            sent = 0
            for _ in range(50):
                await forwarder.publish(old, asset, sent)
                sent += 1
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            await until(lambda: "C2" in forwarder.proofs, "the client asks for a proof on the new side")
            for _ in range(50):
                await forwarder.publish(old, asset, sent)
                sent += 1
            assert values(await take(stream, 100)) == list(range(100))
            # What the old side has taken is on its way for long, and the new side is quick.
            made.proxies[old].pause()
            for _ in range(50):
                await forwarder.publish(old, asset, sent)
                sent += 1
            await forwarder.declare([made.ring(7, "leaving", "C1"), made.ring(8, "inUse", "C1", "C2")], 7)
            for _ in range(50):
                await forwarder.publish(new, asset, sent)
                sent += 1
            # A pod has died: its successor sends some again.
            for value in range(sent - 20, sent):
                await forwarder.publish(new, asset, value, offset=value + 1)
            assert await nothing_comes(stream), "the new side is held"
            made.proxies[old].resume()
            assert values(await take(stream, 100)) == list(range(100, 200))
            await forwarder.declare([made.ring(8, "inUse", "C1", "C2")], 8)
            await forwarder.publish(new, asset, sent)
            assert values(await take(stream, 1)) == [sent]
            await until(lambda: RingChanged(7, "left") in seen.events, "the old ring has left")
            assert seen.of(Gap) == []
            assert seen.of(Late) == []
            assert seen.of(Moved) == [Moved(asset, old, new)]
            # Nothing of the asset is read on the old side any more.
            await until_no_interest(forwarder.client(old), f"{asset}.temp")

    asyncio.run(scenario())


def test_the_old_channel_is_read_to_the_end_where_it_is_slower_than_the_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    take_now = Tap.on_message

    async def take_slowly(tap: Tap, message: Msg) -> None:
        await asyncio.sleep(0.01)
        await take_now(tap, message)

    monkeypatch.setattr(Tap, "on_message", take_slowly)

    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            client = await made.connect()
            stream = await client.subscribe(asset)
            for value in range(30):
                await forwarder.publish(old, asset, value)
            await forwarder.publish(new, asset, 30)
            assert values(await take(stream, 31)) == list(range(31))

    asyncio.run(scenario())


def test_an_asset_that_stays_is_not_disturbed_and_a_new_subscription_knows_all_rings() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe(asset)
            await forwarder.publish(old, asset, 1)
            await forwarder.publish(new, asset, 2)
            await forwarder.publish(new, asset, 3)
            assert values(await take(stream, 3)) == [1, 2, 3]
            assert seen.of(Gap) == []

    asyncio.run(scenario())


def test_repeats_are_delivered_where_they_are_wanted() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect(repeats=Repeats.DELIVER)
            stream = await client.subscribe("PLC-1")
            for offset in (5, 6, 5, 6, 7):
                await made.forwarder.publish("C1", "PLC-1", offset, offset=offset)
            assert values(await take(stream, 5)) == [5, 6, 5, 6, 7]

    asyncio.run(scenario())


def test_late_records_and_a_topic_that_was_made_anew_are_told() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            for offset in (5, 8, 6, 9):
                await made.forwarder.publish("C1", "PLC-1", offset, offset=offset)
            assert values(await take(stream, 4)) == [5, 8, 6, 9]
            await until(lambda: len(seen.of(Late)) == 1, "the late record is told")
            assert seen.of(Late)[0].offset == 6
            headers = {"Kafka-Topic": "assets", "Kafka-Partition": "3", "Kafka-Offset": "0"}
            headers["Kafka-Timestamp"] = "1800000000000"
            await made.forwarder.client("C1").publish("PLC-1.temp", b'{"VALUE":0}', headers=headers)
            assert values(await take(stream, 1)) == [0]
            await until(lambda: len(seen.of(TopicAnew)) == 1, "the new topic is told")

    asyncio.run(scenario())


def test_without_origins_it_is_said_that_repeats_cannot_be_told() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            made.forwarder.publishing["origin"] = False
            seen = Seen(await made.connect())
            await until(lambda: seen.of(AtLeastOnce) != [], "the event")

    asyncio.run(scenario())


def test_a_slow_program_gets_a_gap_with_a_count() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect(limits=Limits(queue=10))
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            for value in range(25):
                await made.forwarder.publish("C1", "PLC-1", value)
            dropped = 15
            await until(lambda: sum(gap.count for gap in seen.of(Gap)) == dropped, "the gap")
            assert {(gap.reason, gap.asset) for gap in seen.of(Gap)} == {(GapReason.SLOW_CONSUMER, "PLC-1")}
            assert values(await take(stream, 10)) == list(range(10))
            await made.forwarder.publish("C1", "PLC-1", 25)
            assert values(await take(stream, 1)) == [25]

    asyncio.run(scenario())


@pytest.mark.parametrize("proved", [True, False])
def test_a_ring_in_use_that_was_not_announced_in_time_is_a_gap(proved: bool) -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe(asset)
            if not proved:
                # One pod does not see the interest on the new side yet.
                forwarder.silent = {forwarder.pods[1]}
                await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
                await until(lambda: "C2" in forwarder.proofs, "the client asks for a proof")
            await forwarder.declare([made.ring(8, "inUse", "C1", "C2")], 8)
            await until(lambda: seen.of(Gap) != [], "the gap")
            gap = seen.of(Gap)[0]
            assert (gap.reason, gap.asset, gap.cluster) == (GapReason.NOT_READY, asset, new)
            forwarder.silent = set()
            await until_interest(forwarder.client(new), f"{asset}.temp")
            await forwarder.publish(new, asset, 1)
            assert values(await take(stream, 1)) == [1], "it goes on"
            assert old != new

    asyncio.run(scenario())


def test_rings_that_came_and_went_unheard_are_a_gap() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            client = await made.connect()
            seen = Seen(client)
            await client.subscribe("PLC-1")
            await made.forwarder.declare([made.ring(9, "inUse", "C1")], 9)
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert seen.of(Gap)[0].reason is GapReason.RING_SKIPPED

    asyncio.run(scenario())


def test_what_is_held_for_a_cluster_that_does_not_answer_is_let_go_with_a_gap() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1"], ["C1", "C2"])
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            client = await made.connect(limits=Limits(drain=0.3))
            seen = Seen(client)
            stream = await client.subscribe(asset)
            made.proxies[old].pause()
            await forwarder.publish(new, asset, 1)
            assert values(await take(stream, 1)) == [1]
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert [(gap.reason, gap.cluster) for gap in seen.of(Gap)] == [(GapReason.NOT_DRAINED, old)]

    asyncio.run(scenario())


def test_the_old_side_settles_where_it_has_several_servers() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, _, new = asset_that_moves(["C1"], ["C1", "C2"])
            two = {"C1": [made.proxies["C1"].url, made.servers["C1"].url]}
            both = {**two, **made.urls("C2")}
            rings = [forwarder.view(7, "inUse", two), forwarder.view(8, "announced", both)]
            await forwarder.declare(rings, 7)
            settle = 0.4
            client = await made.connect(limits=Limits(settle=settle))
            stream = await client.subscribe(asset)
            begun = asyncio.get_running_loop().time()
            await forwarder.publish(new, asset, 1)
            assert values(await take(stream, 1)) == [1]
            assert asyncio.get_running_loop().time() - begun >= settle

    asyncio.run(scenario())


def test_a_forwarder_that_begins_to_use_a_stream_is_told() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            made.forwarder.publishing["stream"] = "ASSETS"
            await made.forwarder.digest()
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert seen.of(Gap)[0].reason is GapReason.MODE_CHANGED
            with pytest.raises(JetStreamError, match="'ASSETS': connect anew"):
                await client.subscribe("PLC-1")

    asyncio.run(scenario())


def test_core_nats_has_nothing_older_to_begin_with() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            with pytest.raises(ValueError, match="keeps no records"):
                await client.subscribe("PLC-1", start=Start.ALL)

    asyncio.run(scenario())


def test_another_subject_is_followed_with_a_gap() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            made.forwarder.publishing = {"subject": "plant.{key}.{id}", "origin": True}
            await made.forwarder.digest()
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert seen.of(Gap)[0].reason is GapReason.SUBJECT_CHANGED
            await until_interest(made.forwarder.client("C1"), "plant.PLC-1.temp")
            await made.forwarder.publish("C1", "PLC-1", 1)
            assert values(await take(stream, 1)) == [1]

    asyncio.run(scenario())
