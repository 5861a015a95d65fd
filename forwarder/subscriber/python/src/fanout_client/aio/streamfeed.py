"""One asset of one subscription, from the streams of its clusters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from nats.aio.msg import Msg

from fanout_client.aio.feed import Feed, Hub
from fanout_client.aio.jetstream import Place
from fanout_client.aio.streamtap import StreamTap
from fanout_client.aio.subscription import Subscription
from fanout_client.events import GapReason
from fanout_client.merge import Deliver, Forget, Role
from fanout_client.message import Message
from fanout_client.options import Limits, Repeats, StartAt
from fanout_client.origin import Origin
from fanout_client.weave import Ask, Effect, Line, Rewind, Unordered, Weave


class StreamHub(Hub[StreamTap], Protocol):
    """What a feed of streams needs of its client. No method may wait."""

    def rewind(self, cluster: str, tap: StreamTap) -> None:
        """Read again what was not taken."""


class StreamFeed(Feed[StreamTap]):
    """See the module."""

    def __init__(
        self,
        asset: str,
        item: str,
        roles: Iterable[Role],
        stream: Subscription,
        start: StartAt,
        repeats: Repeats,
        limits: Limits,
        hub: StreamHub,
    ) -> None:
        """Read ``asset`` for ``stream``, from its owners under ``roles`` to begin with."""
        super().__init__(asset, item, stream, repeats, hub)
        owners = list(dict.fromkeys(cluster for _, cluster in roles))
        # Where there are two owners both begin at one time, which is a second ago: so there is no hole between them.
        self._is_exact = len(owners) == 1
        self._weave: Weave[Message] = Weave(owners, limit=limits.held, limit_bytes=limits.held_bytes)
        self._start = start
        self._streams = hub
        self._read: dict[str, tuple[str, int]] = {}
        """How far streams were read that are read no longer."""
        self._late: dict[str, bool] = {}
        """Clusters that others did not wait for, each with whether it still is not read to its end."""
        self._began: tuple[float, float] | None = None

    def tap(self, cluster: str, subject: str) -> StreamTap:
        """Make a tap on a cluster."""
        tap = self.taps[cluster] = StreamTap(subject, self.stream, partial(self._on_message, cluster), self._start)
        self._began = tap.begun = self._began or tap.begun
        tap.is_exact = self._is_exact and not self.is_begun
        tap.resumes = self._read.get(cluster)
        return tap

    def was_read(self, cluster: str, until: tuple[str, int] | None) -> None:
        """Take note of how far a stream was read that is read no longer."""
        if until is not None:
            self._read[cluster] = until

    def forget_places(self, cluster: str) -> None:
        """Take note that a stream was made anew."""
        self._read.pop(cluster, None)

    def owners(self, roles: Iterable[Role]) -> None:
        """Take note of the owners of the asset."""
        self._perform(self._weave.owners(cluster for _, cluster in roles))

    def drained(self, cluster: str, number: int) -> None:
        """Take note that a cluster was read to its end."""
        if cluster in self._late:
            self._late[cluster] = False
        self._perform(self._weave.drained(number))

    def overdue(self, cluster: str, number: int) -> None:
        """Take note that a cluster takes too long, so that others go on."""
        self.gap(GapReason.NOT_DRAINED, cluster, "what its stream still has comes late")
        self._delivery.left_behind(cluster)
        self._late[cluster] = True
        self._perform(self._weave.overdue(number))

    def lost(self, cluster: str, number: int) -> None:
        """Take note that a cluster has left and cannot be read any more."""
        self.gap(GapReason.LEFT, cluster)
        self._perform(self._weave.lost(number))

    def _on_message(self, cluster: str, message: Msg, place: Place) -> bool:
        if not self._weave.accepts(cluster):
            return False
        headers, data = message.headers, message.data
        record = Message(self.asset, message.subject, data, headers, cluster, Origin.of(headers))
        origin = record.origin
        if origin is None:
            self._delivery.without_origin()
            # All that is left is the time at which it was stored, by the clock of its cluster.
            line, order = Line(None, 0), place.stored
        else:
            line, order = Line(origin.topic, origin.partition), origin.offset
        self._perform(self._weave.message(cluster, record, len(data), line, order))
        return True

    def _perform(self, effects: Iterable[Effect[Message]]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                for record in effect.items:
                    if self._delivery.is_wanted(record):
                        # There is always room: nothing more is asked for before the program has made some.
                        self.stream.put(record)
            elif isinstance(effect, Ask):
                self._hub.fence(self, effect.cluster, effect.number)
            elif isinstance(effect, Rewind):
                tap = self.taps.get(effect.cluster)
                if tap is not None:
                    self._streams.rewind(effect.cluster, tap)
            elif isinstance(effect, Unordered):
                self.gap(GapReason.HELD_TOO_MUCH, effect.cluster)
            elif isinstance(effect, Forget):
                self._forget(effect.cluster)
        if self._late:
            self._end_late()

    def _end_late(self) -> None:
        for cluster, is_behind in list(self._late.items()):
            if not is_behind and not self._weave.holds(cluster):
                del self._late[cluster]
                self._delivery.caught_up(cluster)
