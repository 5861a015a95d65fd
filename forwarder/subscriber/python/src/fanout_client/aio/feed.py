"""One asset of one subscription: its taps on clusters, put into one order, each record once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Generic, Protocol, TypeVar

from nats.aio.msg import Msg

from fanout_client.aio.delivery import Delivery
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tap import Tap
from fanout_client.events import Event, Gap, GapReason
from fanout_client.merge import Deliver, Effect, Fence, Forget, Merge, Outcome, Role, Unfenced
from fanout_client.message import Message
from fanout_client.options import Limits, Repeats
from fanout_client.origin import Origin, is_copy

_GAP_SECONDS = 1.0

_OUTCOMES = {
    Outcome.TIMED_OUT: GapReason.NOT_DRAINED,
    Outcome.DOWN: GapReason.NOT_DRAINED,
    Outcome.OVERFLOW: GapReason.HELD_TOO_MUCH,
}


class AnyTap(Protocol):
    """One subject on one cluster."""

    proven: asyncio.Event
    """It misses nothing from here on."""

    @property
    def subject(self) -> str:
        """What is read."""
        ...


T = TypeVar("T", bound=AnyTap)


class Hub(Protocol[T]):
    """What any feed needs of its client. No method may wait."""

    def event(self, event: Event) -> None:
        """Tell an event."""

    def fence(self, feed: Feed[T], cluster: str, number: int) -> None:
        """Find out whether a cluster is read to its end, and tell the feed."""

    def forget(self, feed: Feed[T], cluster: str, tap: T) -> None:
        """Remove a tap."""

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        ...


class Feed(ABC, Generic[T]):
    """What both kinds have."""

    def __init__(self, asset: str, item: str, stream: Subscription, repeats: Repeats, hub: Hub[T]) -> None:
        """Read ``asset`` for ``stream``."""
        self.asset = asset
        self.item = item
        self.stream = stream
        self.taps: dict[str, T] = {}
        self.is_begun = False
        """Whether all owners have been asked to prove that they see the interest, so that a miss is a gap."""
        self._hub = hub
        self._delivery = Delivery(asset, stream, repeats, hub.event)

    @abstractmethod
    def owners(self, roles: Iterable[Role]) -> None:
        """Take note of the owners of the asset."""

    def gap(self, reason: GapReason, cluster: str | None, detail: str = "") -> None:
        """Say that records of the asset may have been missed."""
        self._hub.event(Gap(reason, self.asset, cluster, detail=detail))

    def close(self) -> None:
        """Drop all taps, and tell what was not told."""
        taps, self.taps = self.taps, {}
        for cluster, tap in taps.items():
            self._hub.forget(self, cluster, tap)

    def _forget(self, cluster: str) -> None:
        tap = self.taps.pop(cluster, None)
        if tap is not None:
            self._hub.forget(self, cluster, tap)


class CoreFeed(Feed[Tap]):
    """Over core NATS."""

    def __init__(
        self,
        asset: str,
        item: str,
        roles: Iterable[Role],
        stream: Subscription,
        repeats: Repeats,
        limits: Limits,
        hub: Hub[Tap],
    ) -> None:
        """Read ``asset`` for ``stream``, from its owners under ``roles`` to begin with."""
        super().__init__(asset, item, stream, repeats, hub)
        self._merge: Merge[Message] = Merge(roles, limit=limits.held, limit_bytes=limits.held_bytes)
        self._dropped = 0
        """Records that were dropped and not told."""
        self._next_gap: asyncio.TimerHandle | None = None

    def tap(self, cluster: str, subject: str) -> Tap:
        """Make a tap on a cluster."""
        tap = self.taps[cluster] = Tap(subject, partial(self._on_message, cluster))
        return tap

    def owners(self, roles: Iterable[Role]) -> None:
        """Take note of the owners of the asset."""
        self._perform(self._merge.owners(roles))

    def fenced(self, number: int, outcome: Outcome) -> None:
        """Take note of how a fence has ended."""
        self._perform(self._merge.fenced(number, outcome))

    def overflow(self, cluster: str) -> None:
        """Say that a record was dropped, at once and then once a second with a count: there may be very many."""
        self._dropped += 1
        if self._next_gap is None:
            self._tell_dropped(cluster)

    def close(self) -> None:
        """Drop all taps, and tell what was not told."""
        if self._next_gap is not None:
            self._next_gap.cancel()
            self._next_gap = None
        if self._dropped:
            self._hub.event(Gap(GapReason.SLOW_CONSUMER, self.asset, count=self._dropped))
        super().close()

    def _tell_dropped(self, cluster: str) -> None:
        self._next_gap = None
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._hub.event(Gap(GapReason.SLOW_CONSUMER, self.asset, cluster, count, "a queue is full"))
            loop = asyncio.get_running_loop()
            self._next_gap = loop.call_later(_GAP_SECONDS, self._tell_dropped, cluster)

    def _on_message(self, cluster: str, message: Msg) -> None:
        if is_copy(message.headers):
            return
        record = Message(
            self.asset, message.subject, message.data, message.headers, cluster, Origin.of(message.headers)
        )
        if self._merge.passes(cluster):
            self._deliver(record)
            return
        self._perform(self._merge.message(cluster, record, len(message.data)))

    def _perform(self, effects: Iterable[Effect[Message]]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                for record in effect.items:
                    self._deliver(record)
            elif isinstance(effect, Fence):
                self._hub.fence(self, effect.cluster, effect.number)
            elif isinstance(effect, Unfenced):
                self._unfenced(effect)
            elif isinstance(effect, Forget):
                self._forget(effect.cluster)

    def _unfenced(self, effect: Unfenced) -> None:
        reason = _OUTCOMES[effect.outcome]
        if effect.outcome is Outcome.DOWN and not self._hub.is_member(effect.cluster):
            reason = GapReason.LEFT
        self.gap(reason, effect.cluster)

    def _deliver(self, record: Message) -> None:
        if self._delivery.is_wanted(record) and not self.stream.offer(record):
            self.overflow(record.cluster)
