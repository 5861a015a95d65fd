"""One asset of one subscription: its taps on clusters, put into one order, each record once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from nats.aio.msg import Msg

from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tap import Tap
from fanout_client.events import Event, Gap, GapReason, Late, Moved, TopicAnew
from fanout_client.merge import Deliver, Effect, Fence, Forget, Merge, Outcome, Role, Unfenced
from fanout_client.message import Message
from fanout_client.options import Limits, Repeats
from fanout_client.origin import Judgement, Once, Origin

_GAP_SECONDS = 1.0

_OUTCOMES = {
    Outcome.TIMED_OUT: GapReason.NOT_DRAINED,
    Outcome.DOWN: GapReason.NOT_DRAINED,
    Outcome.OVERFLOW: GapReason.HELD_TOO_MUCH,
}


class Hub(Protocol):
    """What a feed needs of its client. No method may wait."""

    def event(self, event: Event) -> None:
        """Tell an event."""

    def fence(self, feed: Feed, cluster: str, number: int) -> None:
        """Fence a cluster, and tell ``Feed.fenced``."""

    def forget(self, feed: Feed, cluster: str, tap: Tap) -> None:
        """Remove a tap."""

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        ...


class Feed:
    """See the module."""

    def __init__(
        self,
        asset: str,
        item: str,
        roles: Iterable[Role],
        stream: Subscription,
        repeats: Repeats,
        limits: Limits,
        hub: Hub,
    ) -> None:
        """Read ``asset`` for ``stream``, from its owners under ``roles`` to begin with."""
        self.asset = asset
        self.item = item
        self.stream = stream
        self.taps: dict[str, Tap] = {}
        self.is_begun = False
        """Whether all owners have been asked to prove that they see the interest, so that a miss is a gap."""
        self._merge: Merge[Message] = Merge(roles, limit=limits.held, limit_bytes=limits.held_bytes)
        self._once = Once()
        self._repeats = repeats
        self._hub = hub
        self._last_cluster = ""
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

    def gap(self, reason: GapReason, cluster: str | None, detail: str = "") -> None:
        """Say that records of the asset may have been missed."""
        self._hub.event(Gap(reason, self.asset, cluster, detail=detail))

    def overflow(self, cluster: str) -> None:
        """Say that a record was dropped, at once and then once a second with a count: there may be very many."""
        self._dropped += 1
        if self._next_gap is None:
            self._tell_dropped(cluster)

    def close(self) -> None:
        """Tell what was not told."""
        if self._next_gap is not None:
            self._next_gap.cancel()
            self._next_gap = None
        if self._dropped:
            self._hub.event(Gap(GapReason.SLOW_CONSUMER, self.asset, count=self._dropped))

    def _tell_dropped(self, cluster: str) -> None:
        self._next_gap = None
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._hub.event(Gap(GapReason.SLOW_CONSUMER, self.asset, cluster, count, "a queue is full"))
            loop = asyncio.get_running_loop()
            self._next_gap = loop.call_later(_GAP_SECONDS, self._tell_dropped, cluster)

    def _on_message(self, cluster: str, message: Msg) -> None:
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
                tap = self.taps.pop(effect.cluster, None)
                if tap is not None:
                    self._hub.forget(self, effect.cluster, tap)

    def _unfenced(self, effect: Unfenced) -> None:
        reason = _OUTCOMES[effect.outcome]
        if effect.outcome is Outcome.DOWN and not self._hub.is_member(effect.cluster):
            reason = GapReason.LEFT
        self.gap(reason, effect.cluster)

    def _deliver(self, record: Message) -> None:
        origin = record.origin
        if origin is not None:
            judgement = self._once.judge(origin)
            if judgement is Judgement.REPEAT and self._repeats is Repeats.DROP:
                return
            if judgement is Judgement.LATE:
                late = Late(self.asset, record.cluster, origin.topic, origin.partition, origin.offset)
                self._hub.event(late)
            elif judgement is Judgement.ANEW:
                self._hub.event(TopicAnew(self.asset, origin.topic, origin.partition))
        if record.cluster != self._last_cluster:
            if self._last_cluster:
                self._hub.event(Moved(self.asset, self._last_cluster, record.cluster))
            self._last_cluster = record.cluster
        if not self.stream.closed and not self.stream.offer(record):
            self.overflow(record.cluster)
