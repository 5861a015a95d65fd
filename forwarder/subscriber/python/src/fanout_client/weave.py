"""Puts the records of one asset from several streams into one order. Pure: no socket, no clock.

A forwarder stores a record in the stream of the new owner once the stream of the old one has all that came before. So
of two records of one partition the one with the lower offset is first, whatever the rings were. What is to be known is
whether a stream of which nothing waits here still has an older one. Its leader says up to where it has to be read for
that: an ``Ask``. One answer is for all records that had come before the question.

Nothing depends on when a record is read. An asset may have gone there and back while the client was away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from fanout_client.merge import Deliver, Forget

T = TypeVar("T")


class Line(NamedTuple):
    """What has one order: a partition of a topic. ``None``: the record does not say."""

    topic: str | None
    partition: int


@dataclass(frozen=True)
class Ask:
    """Ask the cluster's leader how far the asset's records go, read until there, and tell ``drained``.

    Where that takes too long tell ``overdue``, and where it can never be told tell ``lost``.
    """

    cluster: str
    number: int


@dataclass(frozen=True)
class Rewind:
    """There is room again for records of this cluster that were not taken."""

    cluster: str


@dataclass(frozen=True)
class Unordered:
    """More was held than the limit allows, so what this cluster still has may come late."""

    cluster: str


Effect: TypeAlias = Deliver[T] | Ask | Rewind | Forget | Unordered


class _Held(NamedTuple, Generic[T]):
    order: int
    at: int
    """How many records had come before it, of all clusters."""
    item: T
    size: int


class _Lane:
    """One cluster."""

    __slots__ = ("asked", "asked_at", "drained_at", "is_leaving", "is_overdue", "is_read", "is_short", "left", "size")

    def __init__(self) -> None:
        self.asked: int | None = None
        """The number of the question that is out."""
        self.asked_at = 0
        self.drained_at = 0
        """Of records with a lower ``at`` nothing older is unread here."""
        self.is_overdue = False
        """Others do not wait for it."""
        self.is_leaving = False
        self.left = 0
        """When it leaves: a question with a higher number is the last one."""
        self.is_read = False
        """When it leaves: it has nothing more to say."""
        self.is_short = False
        """A record was not taken."""
        self.size = 0


class Weave(Generic[T]):
    """See the module."""

    def __init__(self, owners: Iterable[str], *, limit: int, limit_bytes: int) -> None:
        """Begin with the asset's owners under all rings that are not left.

        At most ``limit`` records of ``limit_bytes`` bytes of each cluster are held.
        """
        self._lanes = {cluster: _Lane() for cluster in owners}
        self._lines: dict[Line, dict[str, deque[_Held[T]]]] = {}
        self._counts: dict[str, int] = {}
        """How many records of each cluster are held."""
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._at = 0
        self._number = 0

    @property
    def held(self) -> int:
        """How many records are held."""
        return sum(self._counts.values())

    def holds(self, cluster: str) -> bool:
        """Whether a record of a cluster is held."""
        return cluster in self._counts

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that are read."""
        return tuple(self._lanes)

    def owners(self, owners: Iterable[str]) -> list[Effect[T]]:
        """Take note of the asset's owners under all rings that are not left."""
        told = set(owners)
        effects: list[Effect[T]] = []
        for cluster in sorted(told - self._lanes.keys()):
            self._lanes[cluster] = _Lane()
        for cluster, lane in self._lanes.items():
            if cluster in told:
                lane.is_leaving = lane.is_read = False
            elif not lane.is_leaving:
                lane.is_leaving, lane.left = True, self._number
                self._ask(cluster, effects)
        return effects

    def accepts(self, cluster: str) -> bool:
        """Whether a record of a cluster may be given to ``message``. If not, ``Rewind`` says when."""
        lane = self._lanes.get(cluster)
        if lane is None or not self._is_full(cluster, lane):
            return True
        lane.is_short = True
        return False

    def message(self, cluster: str, item: T, size: int, line: Line, order: int) -> list[Effect[T]]:
        """Take a record of a line. ``order``: its offset, or when it was stored."""
        lane = self._lanes.get(cluster)
        if lane is None or (len(self._lanes) == 1 and not self._counts):
            # Forgotten, and something was still on its way within this process; or there is no other stream.
            return [Deliver(cluster, (item,))]
        queue = self._lines.setdefault(line, {}).setdefault(cluster, deque())
        queue.append(_Held(order, self._at, item, size))
        self._at += 1
        self._counts[cluster] = self._counts.get(cluster, 0) + 1
        lane.size += size
        return self._settle([line])

    def drained(self, number: int) -> list[Effect[T]]:
        """Take note that a cluster is read up to where its leader said."""
        cluster, lane = self._asked(number)
        if lane is None:
            return []
        lane.asked = None
        lane.is_overdue = False
        lane.drained_at = lane.asked_at
        effects: list[Effect[T]] = []
        if lane.is_leaving:
            lane.is_read = number > lane.left
            if not lane.is_read:
                self._ask(cluster, effects)
        return effects + self._settle(list(self._lines))

    def overdue(self, number: int) -> list[Effect[T]]:
        """Take note that a cluster takes too long. The others go on, and the question is still out."""
        _, lane = self._asked(number)
        if lane is None:
            return []
        lane.is_overdue = True
        return self._settle(list(self._lines))

    def lost(self, number: int) -> list[Effect[T]]:
        """Take note that a cluster will never say any more."""
        _, lane = self._asked(number)
        if lane is None:
            return []
        lane.asked = None
        lane.is_overdue = lane.is_leaving = lane.is_read = True
        return self._settle(list(self._lines))

    def _asked(self, number: int) -> tuple[str, _Lane | None]:
        return next(((name, lane) for name, lane in self._lanes.items() if lane.asked == number), ("", None))

    def _ask(self, cluster: str, effects: list[Effect[T]]) -> None:
        lane = self._lanes[cluster]
        if lane.asked is None:
            self._number += 1
            lane.asked, lane.asked_at = self._number, self._at
            effects.append(Ask(cluster, self._number))

    def _is_full(self, cluster: str, lane: _Lane) -> bool:
        return self._counts.get(cluster, 0) >= self._limit or lane.size >= self._limit_bytes

    def _settle(self, lines: Iterable[Line]) -> list[Effect[T]]:
        """Deliver what is known to be next."""
        effects: list[Effect[T]] = []
        for line in lines:
            queues = self._lines[line]
            while queues:
                cluster = min(queues, key=lambda name: queues[name][0].order)
                behind = self._behind(cluster, queues)
                if behind and not self._is_stuck(cluster, behind, effects):
                    for name in behind:
                        self._ask(name, effects)
                    break
                self._deliver(cluster, queues, effects)
            if not queues:
                del self._lines[line]
        self._tidy(effects)
        return effects

    def _behind(self, cluster: str, queues: dict[str, deque[_Held[T]]]) -> list[str]:
        """Say of which clusters it is not known whether they have something older than a cluster's next record."""
        at = queues[cluster][0].at
        # Where something waits it is younger, and so is all behind it.
        return [
            name
            for name, lane in self._lanes.items()
            if name != cluster
            and name not in queues
            and not (lane.is_overdue or lane.is_read)
            and lane.drained_at <= at
        ]

    def _is_stuck(self, cluster: str, behind: list[str], effects: list[Effect[T]]) -> bool:
        """Tell whether two clusters wait for each other with records of different lines."""
        full = [name for name in behind if self._is_full(name, self._lanes[name])]
        if not full or not self._is_full(cluster, self._lanes[cluster]):
            return False
        effects += [Unordered(name) for name in full]
        return True

    def _deliver(self, cluster: str, queues: dict[str, deque[_Held[T]]], effects: list[Effect[T]]) -> None:
        queue = queues[cluster]
        held = queue.popleft()
        if not queue:
            del queues[cluster]
        self._counts[cluster] -= 1
        if not self._counts[cluster]:
            del self._counts[cluster]
        lane = self._lanes[cluster]
        lane.size -= held.size
        effects.append(Deliver(cluster, (held.item,)))

    def _tidy(self, effects: list[Effect[T]]) -> None:
        for cluster, lane in list(self._lanes.items()):
            held = self._counts.get(cluster, 0)
            if lane.is_short and held <= self._limit // 2 and lane.size <= self._limit_bytes // 2:
                lane.is_short = False
                effects.append(Rewind(cluster))
            if lane.is_read and not held and len(self._lanes) > 1:
                del self._lanes[cluster]
                effects.append(Forget(cluster))
