"""A small forwarder: it announces its ring, answers, proves, and publishes records in the order of forwarders."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from fanout_client import Pin
from fanout_client.ring import Ring
from support.server import Server
from support.signer import Signer, golden_signer

RING = "2f6c1e0a-0000-4000-8000-000000000001"
BASE = "_FANOUT.plant.assets"
REPLICAS = 64


class Forwarder:
    def __init__(self, servers: dict[str, Server], pods: int = 2) -> None:
        self.signer: Signer = golden_signer()
        self.pin = Pin(self.signer.public_key, RING, BASE)
        self.pods = [f"assets-{number}" for number in range(pods)]
        self.silent: set[str] = set()
        """Pods that do not prove anything."""
        self.left = 0
        self.rings: list[dict[str, Any]] = []
        self.publishing: dict[str, Any] = {"subject": "{key}.{id}", "origin": True}
        self.asked = 0
        self.asked_on: list[str] = []
        self.proofs: list[str] = []
        """The clusters on which a proof was asked for."""
        self.recorded: list[bytes] = []
        """All announcements that were answered."""
        self.on_get: Callable[[str, Msg], Any] | None = None
        self._servers = servers
        self._clients: dict[str, NatsClient] = {}
        self._offset = 0
        self._sequence = 0

    async def start(self) -> "Forwarder":
        for name, server in self._servers.items():
            await self.connect(name, server)
        return self

    async def connect(self, name: str, server: Server) -> None:
        client = self._clients[name] = await server.client()

        async def get(message: Msg) -> None:
            await self._answer(name, message)

        async def ready(message: Msg) -> None:
            self.proofs.append(name)
            for pod in self.pods:
                if pod not in self.silent:
                    body = {"kind": "ready", "ring": RING, "nonce": nonce_of(message), "pod": pod, "cluster": name}
                    await message.respond(self.signer.sign(body))

        await client.subscribe(f"{BASE}.get", queue="fanout", cb=get)
        await client.subscribe(f"{BASE}.ready", cb=ready)
        await client.flush()

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.close()

    def client(self, cluster: str) -> NatsClient:
        return self._clients[cluster]

    # The ring.

    def view(self, epoch: int, phase: str, urls: dict[str, list[str]]) -> dict[str, Any]:
        clusters = [{"name": name, "weight": 1, "servers": servers} for name, servers in urls.items()]
        return {"epoch": epoch, "phase": phase, "replicas": REPLICAS, "clusters": clusters}

    def announcement(self, nonce: str = "") -> dict[str, Any]:
        body = {
            "kind": "announcement",
            "ring": RING,
            "nonce": nonce,
            "hash": self.hash(),
            "left": self.left,
            "rings": self.rings,
            "pods": self.pods,
            "publishing": self.publishing,
        }
        return body

    def hash(self) -> str:
        return json.dumps([self.left, self.rings, self.pods, self.publishing])

    async def declare(self, rings: list[dict[str, Any]], left: int = 0) -> None:
        """Tell other rings, on all clusters."""
        self.rings, self.left = rings, left
        await self.digest()

    async def digest(self, next_ms: int = 10_000, only: str | None = None) -> None:
        self._sequence += 1
        body = {
            "kind": "digest",
            "ring": RING,
            "epoch": self.rings[-1]["epoch"],
            "hash": self.hash(),
            "pod": self.pods[0],
            "sequence": self._sequence,
            "nextMs": next_ms,
        }
        for name, client in self._clients.items():
            if client.is_connected and only in (None, name):
                await client.publish(f"{BASE}.digest", self.signer.sign(body))

    async def _answer(self, cluster: str, message: Msg) -> None:
        self.asked += 1
        self.asked_on.append(cluster)
        signed = self.signer.sign(self.announcement(nonce_of(message)))
        self.recorded.append(signed)
        if self.on_get is not None:
            await self.on_get(cluster, message)
        else:
            await message.respond(signed)

    # Records.

    async def publish(
        self,
        cluster: str,
        asset: str,
        value: int,
        offset: int | None = None,
        item: str = "temp",
        *,
        copy: bool = False,
    ) -> int:
        """Publish a record, or a copy for who stays behind, and give its offset.

        The next one goes elsewhere only once the server has this one.
        """
        subject = self.publishing["subject"].replace("{key}", asset).replace("{id}", item)
        if offset is None:
            self._offset += 1
            offset = self._offset
        headers = {
            "Kafka-Topic": "assets",
            "Kafka-Partition": "3",
            "Kafka-Offset": str(offset),
            "Kafka-Timestamp": str(1_700_000_000_000 + offset),
            "Kafka-Timestamp-Type": "producer",
        }
        body = json.dumps({"ID": item, "VALUE": value}).encode()
        if not self.publishing["origin"]:
            headers = {}
        if copy:
            headers["Fanout-Mirrored"] = "1"
        client = self._clients[cluster]
        if "stream" in self.publishing:
            answer = json.loads((await client.request(subject, body, headers=headers, timeout=5)).data)
            assert "seq" in answer, answer
        else:
            await client.publish(subject, body, headers=headers)
            await client.flush()
        return offset

    async def add_stream(self, cluster: str, **limits: Any) -> None:
        """Make the stream on a cluster, as forwarders do."""
        jetstream = self._clients[cluster].jetstream()
        await jetstream.add_stream(name=self.publishing["stream"], subjects=["assets.>"], **limits)


def nonce_of(message: Msg) -> str:
    return str(json.loads(message.data)["nonce"]) if message.data else ""


def asset_that_moves(old: list[str], new: list[str]) -> tuple[str, str, str]:
    """Find an asset with another owner under the new ring, and both owners."""
    before, after = (Ring(((name, 1) for name in names), REPLICAS) for names in (old, new))
    assets = (f"PLC-{number}" for number in range(10_000))
    return next(
        (asset, before.owner(asset), after.owner(asset))
        for asset in assets
        if before.owner(asset) != after.owner(asset)
    )


async def until(condition: Callable[[], bool], what: str, within: float = 5.0) -> None:
    end = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"{what}: not within {within} s"
        await asyncio.sleep(0.005)
