"""Connections that are lost, and clusters that are gone."""

import asyncio
from pathlib import Path

import pytest
from nats.aio.msg import Msg

import fanout_client
from fanout_client import ConnectError, Credentials, Gap, GapReason
from fanout_client.events import Refused, Resumed
from support.forwarder import BASE, Forwarder, asset_that_moves, until
from support.rig import LIMITS, Seen, rig, take, until_interest, values
from support.server import Server


def test_a_reconnect_is_a_gap_and_goes_on() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe("PLC-1")
            await made.forwarder.publish("C1", "PLC-1", 1)
            assert values(await take(stream, 1)) == [1]
            await made.servers["C1"].stop()
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert [(gap.reason, gap.cluster, gap.asset) for gap in seen.of(Gap)] == [
                (GapReason.DISCONNECTED, "C1", None)
            ]
            await made.servers["C1"].start()
            await until(lambda: Resumed("C1") in seen.events, "the cluster is proved again", within=10)
            await made.forwarder.publish("C1", "PLC-1", 2)
            assert values(await take(stream, 1)) == [2]
            assert len(seen.of(Gap)) == 1

    asyncio.run(scenario())


def test_a_cluster_that_dies_and_leaves_is_a_gap_and_the_others_tell_of_the_ring() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1", "C2"], ["C2"])
            made.forwarder.rings = [made.ring(7, "inUse", "C1", "C2")]
            client = await made.connect()
            seen = Seen(client)
            stream = await client.subscribe(asset)
            await made.servers[old].stop()
            await made.proxies[old].stop()
            await until(lambda: seen.of(Gap) != [], "the gap of the connection")
            # All its links are down: it asks the other member.
            await forwarder.declare([made.ring(8, "inUse", "C2")], 8)
            await until(lambda: [ring.view.epoch for ring in client.known.rings] == [8], "the new ring", within=10)
            await until_interest(forwarder.client(new), f"{asset}.temp")
            await forwarder.publish(new, asset, 1)
            assert values(await take(stream, 1)) == [1]
            reasons = [(gap.reason, gap.cluster) for gap in seen.of(Gap)]
            assert (GapReason.LEFT, old) in reasons
            assert (GapReason.NOT_READY, new) in reasons

    asyncio.run(scenario())


def test_missed_digests_make_a_client_ask() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            await client.subscribe("PLC-1")
            await made.forwarder.digest(next_ms=100)
            asked = made.forwarder.asked
            made.forwarder.rings.append(made.ring(8, "announced", "C1"))
            await until(lambda: made.forwarder.asked > asked, "the question")
            await until(lambda: [ring.view.epoch for ring in client.known.rings] == [7, 8], "the ring")

    asyncio.run(scenario())


def test_a_digest_that_is_younger_than_the_answer_makes_a_client_ask_again() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            forwarder = made.forwarder
            client = await made.connect()
            gate = asyncio.Event()

            async def slowly(cluster: str, message: Msg) -> None:
                signed = forwarder.recorded[-1]
                await gate.wait()
                await message.respond(signed)

            forwarder.on_get = slowly
            asked = forwarder.asked
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1")], 7)
            await until(lambda: forwarder.asked == asked + 1, "the question")
            await forwarder.declare([*forwarder.rings, made.ring(9, "announced", "C1")], 7)
            await forwarder.client("C1").flush()
            # The client has the digest once it has what came after it on the same connection.
            await client._network.link("C1")._echoes.round()
            gate.set()
            await until(lambda: [ring.view.epoch for ring in client.known.rings] == [7, 8, 9], "the newest ring")

    asyncio.run(scenario())


def test_who_misses_digests_on_one_cluster_asks_there_while_others_are_well() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            forwarder.rings = [made.ring(7, "inUse", "C1", "C2")]
            client = await made.connect()
            assets = [f"PLC-{number}" for number in range(20)]
            await client.subscribe_many(assets)
            assert {client.owner(asset) for asset in assets} == {"C1", "C2"}
            await until(lambda: forwarder.asked_on.count("C1") == 1, "the first question")
            await forwarder.digest(next_ms=100, only="C1")
            await until(lambda: forwarder.asked_on.count("C1") > 1, "the question on C1")

    asyncio.run(scenario())


def test_where_no_pod_answers_on_a_cluster_another_member_is_asked() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            asset, old, new = asset_that_moves(["C1", "C2"], ["C2"])
            forwarder.rings = [made.ring(7, "inUse", "C1", "C2")]
            client = await made.connect()
            await client.subscribe(asset)
            await forwarder.digest(next_ms=100, only=old)
            await until(lambda: forwarder.asked_on.count(old) > 0, "the first question")
            await forwarder.client(old).close()
            await forwarder.declare([made.ring(7, "leaving", "C1", "C2"), made.ring(8, "inUse", "C2")], 7)
            await until(lambda: len(client.known.rings) == 2, "the new ring", within=10)
            assert forwarder.asked_on[-1] == new

    asyncio.run(scenario())


def test_where_nobody_answers_connecting_fails_in_words() -> None:
    async def scenario() -> None:
        server = await Server().start()
        try:
            async with rig("C1") as made:
                limits = fanout_client.Limits(connect=0.6, answer=0.2)
                with pytest.raises(ConnectError, match=rf"no forwarder has answered on {BASE}\.get"):
                    await fanout_client.connect(server.url, pin=made.forwarder.pin, limits=limits)
                await server.stop()
                with pytest.raises(ConnectError, match=f"127.0.0.1:{server.port}"):
                    await fanout_client.connect(server.url, pin=made.forwarder.pin, limits=limits)
        finally:
            await server.stop()

    asyncio.run(scenario())


def test_what_the_server_does_not_permit_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = tmp_path / "permissions.conf"
        config.write_text(PERMISSIONS)
        server = await Server("-c", str(config)).start()
        try:
            forwarder = await Forwarder({"C1": server}).start()
            forwarder.rings = [forwarder.view(7, "inUse", {"C1": [server.url]})]
            login = Credentials(user="reader", password="p")
            client = await fanout_client.connect(server.url, pin=forwarder.pin, credentials=login, limits=LIMITS)
            seen = Seen(client)
            await client.subscribe("PLC-1")
            assert seen.of(Refused) == []
            await client.subscribe("PLC-2")
            await until(lambda: seen.of(Refused) != [], "the event")
            assert "plc-2.*" in seen.of(Refused)[0].reason
            await client.close()
            await forwarder.stop()
        finally:
            await server.stop()

    asyncio.run(scenario())


PERMISSIONS = """
no_auth_user: forwarder
authorization {
  users: [
    {user: forwarder, password: p}
    {
      user: reader
      password: p
      permissions: {
        publish: ["_FANOUT.plant.assets.get", "_FANOUT.plant.assets.ready", "_INBOX.>"]
        subscribe: ["PLC-1.>", "_FANOUT.plant.assets.digest", "_INBOX.>"]
      }
    }
  ]
}
"""
