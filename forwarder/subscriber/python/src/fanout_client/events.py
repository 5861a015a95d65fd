"""What a client tells beside the records. Whatever may have been missed is a ``Gap``."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

_log = logging.getLogger("fanout_client")


class GapReason(Enum):
    """Why records may have been missed."""

    DISCONNECTED = "disconnected"
    """The connection to the cluster was lost. Core NATS keeps nothing for who is away; streams do."""
    SLOW_CONSUMER = "slow consumer"
    """The program reads too slowly: its queue, or the server's, was full."""
    NOT_READY = "not ready"
    """A ring is in use, and not all pods have proved that they see the interest on the new side."""
    LEFT = "left"
    """The cluster has left the ring while it could not be read to the end."""
    NOT_DRAINED = "not drained"
    """The old side did not answer in time, or is gone. What it still had may come late or never."""
    HELD_TOO_MUCH = "held too much"
    """More was held on the new side than the limit allows. What the old side still has comes late."""
    RING_SKIPPED = "ring skipped"
    """A ring came and went while the client heard nothing."""
    SUBJECT_CHANGED = "subject changed"
    """The forwarder publishes under another subject, so all subscriptions were made anew."""
    HOST_REFUSED = "host refused"
    """The cluster's servers are not among the hosts that the client allows."""
    MODE_CHANGED = "mode changed"
    """The forwarder publishes into a stream now, or no longer. Connect anew."""
    EXPIRED = "expired"
    """The stream has dropped records that were not read yet, by its limits of age and size."""
    STREAM_ANEW = "stream anew"
    """The stream was deleted and made again."""


@dataclass(frozen=True)
class Gap:
    """Records may have been missed: of ``asset`` (``None``: of any) on ``cluster`` (``None``: on any)."""

    reason: GapReason
    asset: str | None = None
    cluster: str | None = None
    count: int = 1
    """How often the same has happened in a row. With a slow consumer: how many records were dropped."""
    detail: str = ""


@dataclass(frozen=True)
class Resumed:
    """All pods have proved that they see the interest on a cluster. A gap of that cluster ends here."""

    cluster: str


@dataclass(frozen=True)
class RingChanged:
    """A ring is announced, in use, or left (``announced``, ``in use``, ``left``)."""

    epoch: int
    state: str


@dataclass(frozen=True)
class Moved:
    """An asset's records come from another cluster now."""

    asset: str
    old: str
    new: str


@dataclass(frozen=True)
class Late:
    """A record came after a younger one of its asset, and was delivered nevertheless."""

    asset: str
    cluster: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class TopicAnew:
    """Offsets have begun anew with newer timestamps: the topic was deleted and made again."""

    asset: str
    topic: str
    partition: int


@dataclass(frozen=True)
class AtLeastOnce:
    """Messages carry no origin, so repeats cannot be told: see ``headers.origin`` of the forwarder."""


@dataclass(frozen=True)
class Unbelieved:
    """Somebody has sent what was not believed: another key, an old answer, another ring."""

    subject: str
    reason: str
    count: int = 1


@dataclass(frozen=True)
class Refused:
    """A server of the ring is not used, or refuses what is needed. The reason names what to allow."""

    cluster: str
    server: str
    reason: str


@dataclass(frozen=True)
class EventsDropped:
    """The program did not read its events. The oldest were dropped."""

    count: int


Event: TypeAlias = (
    Gap | Resumed | RingChanged | Moved | Late | TopicAnew | AtLeastOnce | Unbelieved | Refused | EventsDropped
)


class Events:
    """A bounded queue of events. What comes again in a row is counted in one event."""

    def __init__(self, limit: int) -> None:
        self._queue: deque[Event] = deque()
        self._limit = limit
        self._dropped = 0
        self._closed = False
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event, and log it."""
        last = self._queue[-1] if self._queue else None
        if (
            isinstance(event, Gap | Unbelieved)
            and isinstance(last, Gap | Unbelieved)
            and replace(last, count=event.count) == event
        ):
            self._queue[-1] = replace(last, count=last.count + event.count)
            return
        _log.log(_level(event), "%s", event)
        self._queue.append(event)
        if len(self._queue) > self._limit:
            self._queue.popleft()
            self._dropped += 1
        self._wake.set()

    def close(self) -> None:
        """End all iterations, once what is there has been read."""
        self._closed = True
        self._wake.set()

    async def take(self) -> Event | None:
        """Wait for the next event. ``None``: there will be none."""
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return EventsDropped(dropped)
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()


def _level(event: Event) -> int:
    if isinstance(event, Gap | Refused | EventsDropped):
        return logging.WARNING
    # A neighbour can make as many of them as it likes, and late records are told one by one.
    if isinstance(event, Unbelieved | Late):
        return logging.DEBUG
    return logging.INFO
