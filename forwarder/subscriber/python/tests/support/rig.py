"""Clusters, a forwarder and a client together."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.errors import NoRespondersError, TimeoutError

import fanout_client
from fanout_client import Client, Event, Limits, Message, Subscription
from support.forwarder import Forwarder
from support.server import Proxy, Server, stop_all

PROBE = b"{}"
"""What asks a server for interest. It is no record."""

LIMITS = Limits(connect=5, answer=1, ready=3, drain=5, dial=2, reconnect=0.2)


class Rig:
    def __init__(self, servers: dict[str, Server], proxies: dict[str, Proxy], forwarder: Forwarder) -> None:
        self.servers = servers
        self.proxies = proxies
        self.forwarder = forwarder
        self._clients: list[Client] = []

    def urls(self, *names: str) -> dict[str, list[str]]:
        return {name: [self.proxies[name].url] for name in names}

    def ring(self, epoch: int, phase: str, *names: str) -> dict[str, Any]:
        return self.forwarder.view(epoch, phase, self.urls(*names))

    async def connect(self, first: str = "C1", **options: Any) -> Client:
        options = {"pin": self.forwarder.pin, "limits": LIMITS, **options}
        client = await fanout_client.connect(self.proxies[first].url, **options)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def rig(*names: str, stream: bool = False) -> AsyncIterator[Rig]:
    """Start clusters of one server each behind proxies, and a forwarder with the ring 7 of the first one.

    With ``stream`` it publishes into a stream, which all clusters have.
    """
    with tempfile.TemporaryDirectory() as stores:
        options = {name: ("-js", "-sd", f"{stores}/{name}") if stream else () for name in names}
        servers = {name: await Server(*options[name]).start() for name in names}
        proxies = {name: await Proxy(server).start() for name, server in servers.items()}
        forwarder = await Forwarder(servers).start()
        made = Rig(servers, proxies, forwarder)
        forwarder.rings = [made.ring(7, "inUse", names[0])]
        forwarder.left = 7
        try:
            if stream:
                forwarder.publishing = {"subject": "assets.{key}.{id}", "stream": "ASSETS", "origin": True}
                for name in names:
                    await forwarder.add_stream(name)
            yield made
        finally:
            await made.stop()
            await forwarder.stop()
            await stop_all([*proxies.values(), *servers.values()])


async def take(stream: Subscription, count: int, within: float = 5.0) -> list[Message]:
    got: list[Message] = []

    async def read() -> None:
        while len(got) < count:
            batch = await stream.next_batch(count - len(got))
            assert batch, "the subscription has ended"
            got.extend(message for message in batch if message.data != PROBE)

    try:
        await asyncio.wait_for(read(), within)
    except asyncio.TimeoutError:
        raise AssertionError(f"{len(got)} of {count} records within {within} s: {values(got)}") from None
    return got


async def nothing_comes(stream: Subscription, within: float = 0.2) -> bool:
    try:
        await asyncio.wait_for(stream.next_batch(1), within)
    except asyncio.TimeoutError:
        return True
    return False


def values(messages: list[Message]) -> list[int]:
    return [message.json()["VALUE"] for message in messages]


class Seen:
    """All events of a client, as they come."""

    def __init__(self, client: Client) -> None:
        self.events: list[Event] = []
        self._task = asyncio.get_running_loop().create_task(self._read(client))

    async def _read(self, client: Client) -> None:
        async for event in client.events():
            self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def until_interest(client: NatsClient, subject: str, wanted: bool = True) -> None:
    """Wait until a server knows of a subscriber: it says at once where there is none."""
    for _ in range(100):
        try:
            await client.request(subject, PROBE, timeout=0.05)
        except NoRespondersError:
            if not wanted:
                return
            await asyncio.sleep(0.02)
        except TimeoutError:
            if wanted:
                return
    raise AssertionError(f"interest in {subject} has not come to {wanted}")


async def until_no_interest(client: NatsClient, subject: str) -> None:
    await until_interest(client, subject, wanted=False)
