"""What is said: the bodies as JSON. Readers pass over fields that they do not know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from fanout_client.ring import MAX_NODES

MAX_RINGS = 64
"""Most rings of one announcement."""

_MAX_U32 = (1 << 32) - 1
_MAX_U64 = (1 << 64) - 1


class UnreadableError(ValueError):
    """The body is signed and cannot be read. A later version may say what this one does not know."""


class UnsoundError(ValueError):
    """The body is signed, and what it says can never be."""


class Phase(IntEnum):
    """Where a ring is in its life. It never goes back."""

    ANNOUNCED = 0
    IN_USE = 1
    LEAVING = 2


_PHASES = {"announced": Phase.ANNOUNCED, "inUse": Phase.IN_USE, "leaving": Phase.LEAVING}


@dataclass(frozen=True)
class ClusterView:
    """A member of a ring: its name in the ring, its weight, and where subscribers reach it."""

    name: str
    weight: int
    servers: tuple[str, ...]


@dataclass(frozen=True)
class RingView:
    """A ring: its epoch, where it is in its life, virtual nodes of a member of weight 1, and its members."""

    epoch: int
    phase: Phase
    replicas: int
    clusters: tuple[ClusterView, ...]


@dataclass(frozen=True)
class Publishing:
    """How records are published."""

    subject: str
    """The subject's template, with ``{key}`` and ``{id}``."""
    stream: str | None = None
    """The stream, in JetStream mode. ``None``: core NATS."""
    origin: bool = False
    """Whether messages carry the record's topic, partition, offset and timestamp in headers."""


@dataclass(frozen=True)
class Announcement:
    """The ring, as one pod knows it, in answer to a request on ``BASE.get``."""

    ring: str
    rings: tuple[RingView, ...]
    publishing: Publishing
    nonce: str = ""
    hash: str = ""
    left: int = 0
    """All rings of lower epochs are left: nothing is on its way under them."""
    pods: tuple[str, ...] = ()
    """The pods that answer on ``BASE.ready``."""


@dataclass(frozen=True)
class Digest:
    """Which announcement is the newest. The next digest comes within ``next_ms`` milliseconds."""

    ring: str
    epoch: int
    hash: str
    pod: str
    sequence: int
    next_ms: int


@dataclass(frozen=True)
class Ready:
    """A pod's proof that it sees a subscriber's interest on one cluster."""

    ring: str
    nonce: str
    pod: str
    cluster: str


@dataclass(frozen=True)
class Statement:
    """How far a pod is, for other pods. Subscribers pass over it."""

    ring: str
    pod: str
    process: str
    sequence: int
    using: int
    announced: int | None = None
    stopping: bool = False
    partitions: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)


Body: TypeAlias = Announcement | Digest | Ready | Statement


def request(nonce: str) -> bytes:
    """Give the body of a request on ``BASE.get`` or ``BASE.ready``."""
    return json.dumps({"nonce": nonce}).encode()


def body_of(document: object) -> Body:
    """Read a body from parsed JSON.

    Raises ``UnreadableError`` or ``UnsoundError``.
    """
    body = _Fields(document)
    kind = body.text("kind")
    if kind == "announcement":
        return _announcement(body)
    if kind == "digest":
        return Digest(
            ring=body.text("ring"),
            epoch=body.number("epoch"),
            hash=body.text("hash"),
            pod=body.text("pod"),
            sequence=body.number("sequence"),
            next_ms=body.number("nextMs"),
        )
    if kind == "ready":
        return Ready(
            ring=body.text("ring"),
            nonce=body.text("nonce"),
            pod=body.text("pod"),
            cluster=body.text("cluster"),
        )
    if kind == "statement":
        return _statement(body)
    raise UnreadableError(f"the signed body cannot be read: its kind is {kind!r}")


class _Fields:
    """The fields of a JSON object, each of a type that is checked."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise UnreadableError("the signed body cannot be read: there is no object where one must be")
        self._fields: dict[str, object] = document

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def raw(self, name: str) -> object:
        return self._fields.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise _wrong(name)
        return value

    def number(self, name: str, default: int | None = None, most: int = _MAX_U64) -> int:
        return _number(name, self._fields.get(name, default), most)

    def flag(self, name: str) -> bool:
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise _wrong(name)
        return value

    def array(self, name: str, default: list[object] | None = None) -> list[object]:
        value = self._fields.get(name, default)
        if not isinstance(value, list):
            raise _wrong(name)
        return value

    def texts(self, name: str, default: list[object] | None = None) -> tuple[str, ...]:
        values = tuple(value for value in self.array(name, default) if isinstance(value, str))
        if len(values) != len(self.array(name, default)):
            raise _wrong(name)
        return values

    def items(self, name: str) -> list[tuple[str, object]]:
        value = self._fields.get(name)
        if not isinstance(value, dict):
            raise _wrong(name)
        return list(value.items())


def _wrong(name: str) -> UnreadableError:
    return UnreadableError(f"the signed body cannot be read: {name!r} is missing or of another type")


def _number(name: str, value: object, most: int = _MAX_U64) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _wrong(name)
    return value


def _announcement(body: _Fields) -> Announcement:
    publishing = _Fields(body.raw("publishing"))
    announcement = Announcement(
        ring=body.text("ring"),
        nonce=body.text("nonce", ""),
        hash=body.text("hash", ""),
        left=body.number("left", 0),
        rings=tuple(_ring(_Fields(ring)) for ring in body.array("rings")),
        pods=body.texts("pods", []),
        publishing=Publishing(
            subject=publishing.text("subject"),
            stream=publishing.text("stream") if publishing.has("stream") else None,
            origin=publishing.flag("origin"),
        ),
    )
    _check(announcement)
    return announcement


def _ring(ring: _Fields) -> RingView:
    phase = _PHASES.get(ring.text("phase"))
    if phase is None:
        raise _wrong("phase")
    return RingView(
        epoch=ring.number("epoch"),
        phase=phase,
        replicas=ring.number("replicas", most=_MAX_U32),
        clusters=tuple(_cluster(_Fields(cluster)) for cluster in ring.array("clusters")),
    )


def _cluster(cluster: _Fields) -> ClusterView:
    return ClusterView(
        name=cluster.text("name"),
        weight=cluster.number("weight", most=_MAX_U32),
        servers=cluster.texts("servers"),
    )


def _statement(body: _Fields) -> Statement:
    return Statement(
        ring=body.text("ring"),
        pod=body.text("pod"),
        process=body.text("process"),
        sequence=body.number("sequence"),
        using=body.number("using"),
        announced=body.number("announced") if body.has("announced") else None,
        stopping=body.flag("stopping"),
        partitions={topic: _number("partitions", count) for topic, count in body.items("partitions")},
        oldest={topic: _pairs(pairs) for topic, pairs in body.items("oldest")},
    )


def _pairs(pairs: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(pairs, list):
        raise _wrong("oldest")
    read = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _wrong("oldest")
        read.append((_number("oldest", pair[0]), _number("oldest", pair[1])))
    return tuple(read)


def _check(announcement: Announcement) -> None:
    rings = announcement.rings
    if not rings or len(rings) > MAX_RINGS:
        raise UnsoundError("the signed body is unsound: it has no ring, or too many")
    if any(older.epoch >= newer.epoch for older, newer in itertools.pairwise(rings)):
        raise UnsoundError("the signed body is unsound: its rings do not ascend by epoch")
    for ring in rings:
        nodes = sum(cluster.weight * ring.replicas for cluster in ring.clusters)
        if nodes == 0 or nodes > MAX_NODES:
            raise UnsoundError("the signed body is unsound: a ring has no virtual nodes, or too many")
        if any(not cluster.servers for cluster in ring.clusters):
            raise UnsoundError("the signed body is unsound: a cluster has no server")
