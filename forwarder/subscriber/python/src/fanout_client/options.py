"""What a program declares: whom it believes, and the limits of what is kept and awaited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeAlias


@dataclass(frozen=True)
class Pin:
    """Whom a client believes. All three stand in ``status.beacon`` of the AssetForwarder."""

    public_key: str
    """The public nkey (``U...``) that signs what forwarders tell."""
    ring: str
    """The ring's identity: the UID of its AssetForwarder."""
    subject: str
    """The subject below which the ring is announced, such as ``_FANOUT.plant.assets``."""


class Repeats(Enum):
    """What happens to a record that was there before, as after the crash of a forwarder."""

    DROP = "drop"
    DELIVER = "deliver"


class Start(Enum):
    """Where a subscription begins in a stream."""

    NEW = "new"
    """With what is stored from now on."""
    ALL = "all"
    """With the oldest record that the stream still has."""


StartAt: TypeAlias = Start | datetime
"""``Start``, or a time by the clocks of the servers."""


@dataclass(frozen=True)
class Limits:
    """Bounds of memory and time. All times are in seconds."""

    queue: int = 65_536
    """Records of a subscription that wait to be read. More are dropped, with a ``Gap``. A stream waits instead."""
    queue_bytes: int = 64 << 20
    """The same in bytes."""
    held: int = 10_000
    """Records of one asset that are held on the new side while it moves."""
    held_bytes: int = 16 << 20
    """The same in bytes."""
    events: int = 4_096
    """Events that wait to be read."""
    connect: float = 10.0
    """How long ``connect`` waits for the first answer of a forwarder."""
    dial: float = 3.0
    """How long one attempt to connect to a server may take."""
    reconnect: float = 5.0
    """The longest wait between two attempts to connect to a cluster."""
    answer: float = 2.0
    """How long an answer of a forwarder, or an echo of a server, is awaited."""
    ready: float = 5.0
    """How long ``subscribe`` waits for the proof that all pods see the interest."""
    drain: float = 5.0
    """How long the new side is held for the old one at most."""
    drain_stream: float = 60.0
    """The same in JetStream mode, while the old side's cluster does not answer. Nothing is lost meanwhile."""
    settle: float = 0.25
    """How much longer it is held where the old side has several servers."""
    digest: float = 10.0
    """In which rhythm digests are expected, as long as none has said. Three missed ones make a client ask."""
