"""What others in the same account send changes nothing, and credentials go nowhere else."""

import asyncio
import json
from dataclasses import replace

import nats
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

import fanout_client
from fanout_client import ConnectError, Credentials, Gap, GapReason, HostRefusedError, Limits
from fanout_client.beacon import KeyInvalidError
from fanout_client.events import Refused, Unbelieved
from support.forwarder import BASE, RING, nonce_of, until
from support.rig import Seen, rig, take, values
from support.server import Server, free_port, stop_all
from support.signer import other_signer


def test_a_forged_announcement_changes_nothing_and_the_sound_one_counts() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            forwarder = made.forwarder

            async def forge_first(cluster: str, message: Msg) -> None:
                forged = {**forwarder.announcement(nonce_of(message)), "rings": [made.ring(9, "inUse", "C9", "C1")]}
                forged["rings"][0]["clusters"][0]["servers"] = ["nats://evil:4222"]
                await message.respond(other_signer().sign(forged))
                await message.respond(forwarder.signer.sign(forwarder.announcement(nonce_of(message))))

            made.proxies["C9"] = made.proxies["C1"]
            forwarder.on_get = forge_first
            client = await made.connect()
            seen = Seen(client)
            assert [ring.view.epoch for ring in client.known.rings] == [7]
            await until(lambda: seen.of(Unbelieved) != [], "the event")
            assert "not of the expected key" in seen.of(Unbelieved)[0].reason

    asyncio.run(scenario())


def test_forged_digests_are_passed_over_without_a_question() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            client = await made.connect()
            seen = Seen(client)
            await client.subscribe("PLC-1")
            asked = made.forwarder.asked
            body = {"kind": "digest", "ring": RING, "epoch": 99, "hash": "x", "pod": "p", "sequence": 1, "nextMs": 100}
            publisher = made.forwarder.client("C1")
            await publisher.publish(f"{BASE}.digest", other_signer().sign(body))
            await publisher.publish(f"{BASE}.digest", json.dumps(body).encode())
            other_ring = made.forwarder.signer.sign({**body, "ring": "another"})
            await publisher.publish(f"{BASE}.digest", other_ring)
            await until(lambda: sum(event.count for event in seen.of(Unbelieved)) == 3, "three events")
            assert made.forwarder.asked == asked
            # And a sound one makes it ask.
            await publisher.publish(f"{BASE}.digest", made.forwarder.signer.sign(body))
            await until(lambda: made.forwarder.asked == asked + 1, "the question")

    asyncio.run(scenario())


def test_an_old_answer_that_is_sent_again_is_passed_over() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            forwarder = made.forwarder
            client = await made.connect()
            seen = Seen(client)
            old = forwarder.recorded[-1]
            answered = 0

            async def replay(cluster: str, message: Msg) -> None:
                nonlocal answered
                answered += 1
                await message.respond(old)

            forwarder.on_get = replay
            await forwarder.declare([made.ring(7, "inUse", "C1"), made.ring(8, "announced", "C1", "C2")], 7)
            await until(lambda: seen.of(Unbelieved) != [], "the event")
            assert "nonce" in seen.of(Unbelieved)[0].reason
            assert answered == 1
            assert [ring.view.epoch for ring in client.known.rings] == [7]
            forwarder.on_get = None

            # The first question is still open: it waits for a sound answer.
            async def ask_again() -> bool:
                await forwarder.digest()
                return [ring.view.epoch for ring in client.known.rings] == [7, 8]

            for _ in range(100):
                if await ask_again():
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("the sound answer was not learned")

    asyncio.run(scenario())


def test_a_forged_proof_is_none() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            forwarder = made.forwarder
            forwarder.silent = {forwarder.pods[1]}

            async def forge(message: Msg) -> None:
                body = {"kind": "ready", "ring": RING, "nonce": nonce_of(message), "cluster": "C1"}
                await message.respond(other_signer().sign({**body, "pod": forwarder.pods[1]}))
                # Signed, and of an old request, or of another cluster.
                await message.respond(forwarder.signer.sign({**body, "pod": forwarder.pods[1], "nonce": "old"}))
                await message.respond(forwarder.signer.sign({**body, "pod": forwarder.pods[1], "cluster": "C2"}))

            await forwarder.client("C1").subscribe(f"{BASE}.ready", cb=forge)
            client = await made.connect(limits=Limits(ready=0.5, answer=0.2))
            seen = Seen(client)
            await client.subscribe("PLC-1")
            await until(lambda: seen.of(Gap) != [], "the gap")
            assert seen.of(Gap)[0].reason is GapReason.NOT_READY
            reasons = {event.reason for event in seen.of(Unbelieved)}
            assert any("expected key" in reason for reason in reasons)
            assert any("nonce" in reason for reason in reasons)

    asyncio.run(scenario())


def test_another_ring_under_the_same_subject_is_not_followed() -> None:
    async def scenario() -> None:
        async with rig("C1") as made:
            pin = replace(made.forwarder.pin, ring="another")
            with pytest.raises(ConnectError, match="failed to learn the ring"):
                await made.connect(pin=pin, limits=Limits(connect=0.5, answer=0.2))
            with pytest.raises(KeyInvalidError):
                await made.connect(pin=replace(pin, public_key="UAB"))

    asyncio.run(scenario())


def test_credentials_are_chosen_by_the_cluster_and_sent_to_allowed_hosts_only() -> None:
    async def scenario() -> None:
        async with rig("C1", "C2") as made:
            await made.forwarder.stop()
            closed = await Server("--user", "u2", "--pass", "p2").start()
            made.proxies["C2"].url = closed.url
            made.forwarder.rings = [made.ring(7, "inUse", "C1", "C2")]
            await made.forwarder.connect("C1", made.servers["C1"])
            client = await made.connect(credentials={"C2": Credentials(user="u2", password="p2")})
            asset = next(f"PLC-{n}" for n in range(1_000) if client.owner(f"PLC-{n}") == "C2")
            seen = Seen(client)
            # The server speaks no TLS, and the program has not named it.
            with pytest.raises(HostRefusedError, match="tls://"):
                await client.subscribe(asset)
            await until(lambda: seen.of(Refused) != [], "the event")
            assert seen.of(Refused)[0].cluster == "C2"
            # Where the program names the server itself, it logs in there.
            both = [made.proxies["C1"].url, closed.url]
            credentials = {"C2": Credentials(user="u2", password="p2")}
            named = await fanout_client.connect(
                both, pin=made.forwarder.pin, credentials=credentials, limits=Limits(ready=0.3, answer=0.1)
            )
            stream = await named.subscribe(asset)
            publisher = await _login(closed, "u2", "p2")
            await publisher.publish(f"{asset}.temp", b'{"VALUE":1}')
            assert values(await take(stream, 1)) == [1]
            await publisher.close()
            await named.close()
            await stop_all([closed])

    asyncio.run(scenario())


async def _login(server: Server, user: str, password: str) -> NatsClient:
    return await nats.connect(server.url, user=user, password=password)


def test_a_server_that_gives_up_tls_gets_no_credentials() -> None:
    """Somebody in between says that the server speaks no TLS. Nothing of the login may be sent then."""

    async def scenario() -> None:
        received: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n')
            received.append(await reader.read(4096))
            writer.close()

        port = free_port()
        listener = await asyncio.start_server(serve, "127.0.0.1", port)
        pin = fanout_client.Pin(other_signer().public_key, RING, BASE)
        with pytest.raises(ConnectError, match="does not speak TLS"):
            await fanout_client.connect(
                f"tls://127.0.0.1:{port}",
                pin=pin,
                credentials=Credentials(user="u", password="secret"),
                limits=Limits(connect=0.5),
            )
        assert received
        assert b"".join(received) == b""
        listener.close()

    asyncio.run(scenario())


def test_a_server_that_fails_in_the_middle_of_tls_is_named_with_the_reason() -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"tls_required":true}\r\n')
            await reader.read(1)
            writer.write(b"this is no TLS\r\n")
            await reader.read()
            writer.close()

        port = free_port()
        listener = await asyncio.start_server(serve, "127.0.0.1", port)
        pin = fanout_client.Pin(other_signer().public_key, RING, BASE)
        with pytest.raises(ConnectError, match=rf"127.0.0.1:{port}: .*SSL"):
            await fanout_client.connect(f"tls://127.0.0.1:{port}", pin=pin, limits=Limits(connect=2))
        listener.close()

    asyncio.run(scenario())
