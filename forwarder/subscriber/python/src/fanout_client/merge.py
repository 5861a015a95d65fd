"""Puts the records of one asset from several clusters into one order. Pure: no socket, no clock.

One cluster leads: its records are delivered at once. The others' are held. The first one that is held asks for a
fence on the leader: an echo of the client to itself over the leader's connection. A forwarder publishes on the new
side once the old side has accepted all that came before. So what the leader accepted comes before the echo, and
when the leader's channel is drained up to it, the next cluster leads.

Nothing depends on which ring is in use. An asset may go back and forth, and each of several topics may move at a
moment of its own: each change of the leader takes one fence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")


class Outcome(Enum):
    """How a fence ended."""

    DRAINED = "drained"
    """The echo has returned, and all that came before it was taken."""
    TIMED_OUT = "timed out"
    """The echo did not return in time."""
    DOWN = "down"
    """There is no connection to the cluster."""
    OVERFLOW = "overflow"
    """More was held than the limit allows, so the fence was not awaited."""


@dataclass(frozen=True)
class Deliver(Generic[T]):
    """Hand these out, in this order."""

    cluster: str
    items: tuple[T, ...]


@dataclass(frozen=True)
class Fence:
    """Send an echo over this cluster's connection, and tell ``Merge.fenced`` of its end with the number."""

    cluster: str
    number: int


@dataclass(frozen=True)
class Forget:
    """The cluster has nothing more to say: its subscription can go."""

    cluster: str


@dataclass(frozen=True)
class Led:
    """Another cluster leads."""

    old: str
    new: str


@dataclass(frozen=True)
class Unfenced:
    """The leader has changed without a fence. What the old one still has may come late or never."""

    cluster: str
    outcome: Outcome


Effect: TypeAlias = Deliver[T] | Fence | Forget | Led | Unfenced


Role: TypeAlias = tuple[int, str]
"""An epoch, and the cluster that owns the asset under its ring."""


class Merge(Generic[T]):
    """See the module."""

    def __init__(self, roles: Iterable[Role], *, limit: int, limit_bytes: int) -> None:
        """Begin with the asset's owners under all rings that are not left, ascending by epoch.

        At most ``limit`` records of ``limit_bytes`` bytes are held.
        """
        self._roles = list(roles)
        self._owners = {cluster for _, cluster in self._roles}
        self._epoch, self._leader = self._roles[0]
        self._held: dict[str, deque[tuple[T, int]]] = {}
        self._count = 0
        self._bytes = 0
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._fence: int | None = None
        """The number of the fence on the leader."""
        self._retiring: dict[int, str] = {}
        """Clusters that have left and do not lead, by the fence after which they are forgotten."""
        self._number = 0

    @property
    def leader(self) -> str:
        """The cluster whose records are delivered at once."""
        return self._leader

    @property
    def held(self) -> int:
        """How many records are held."""
        return self._count

    def owners(self, roles: Iterable[Role]) -> list[Effect[T]]:
        """Take note of the asset's owners under all rings that are not left, ascending by epoch."""
        told = dict(roles)
        before, self._owners = self._owners, set(told.values())
        # A ring may have left before the leader has come to it. It keeps its place.
        ahead = {epoch: cluster for epoch, cluster in self._roles if epoch > self._epoch}
        self._roles = sorted({**ahead, **told}.items())
        # Who comes back is not forgotten, whatever becomes of its fence.
        self._retiring = {number: name for number, name in self._retiring.items() if name not in self._owners}
        effects: list[Effect[T]] = []
        for cluster in sorted(before - self._owners):
            if cluster != self._leader and cluster not in self._retiring.values():
                fence = self._new_fence(cluster)
                self._retiring[fence.number] = cluster
                effects.append(fence)
        return effects + self._need_fence()

    def passes(self, cluster: str) -> bool:
        """Whether a record of a cluster is delivered at once: for whoever saves the detour over ``message``."""
        return cluster == self._leader

    def message(self, cluster: str, item: T, size: int) -> list[Effect[T]]:
        """Take a record that has come from a cluster, with its size in bytes."""
        if self.passes(cluster):
            return [Deliver(cluster, (item,))]
        if cluster not in self._owners and cluster not in self._retiring.values():
            # Forgotten, and something was still on its way within this process.
            return [Deliver(cluster, (item,))]
        self._held.setdefault(cluster, deque()).append((item, size))
        self._count += 1
        self._bytes += size
        if self._count > self._limit or self._bytes > self._limit_bytes:
            return self._overflow()
        return self._need_fence()

    def fenced(self, number: int, outcome: Outcome) -> list[Effect[T]]:
        """Take note of how a fence has ended. An old one changes nothing."""
        retiring = self._retiring.get(number)
        if retiring is not None:
            return self._retired(number, retiring, outcome)
        if number != self._fence:
            return []
        effects: list[Effect[T]] = []
        if outcome is not Outcome.DRAINED:
            effects.append(Unfenced(self._leader, outcome))
        return effects + self._advance() + self._need_fence()

    def _retired(self, number: int, cluster: str, outcome: Outcome) -> list[Effect[T]]:
        if cluster in self._held:
            # It leads once more before it goes.
            return []
        del self._retiring[number]
        if cluster == self._leader:
            return []
        self._roles = [(epoch, name) for epoch, name in self._roles if name != cluster]
        lost: list[Effect[T]] = [] if outcome is Outcome.DRAINED else [Unfenced(cluster, outcome)]
        return [*lost, Forget(cluster)]

    def _overflow(self) -> list[Effect[T]]:
        effects: list[Effect[T]] = []
        # Each step comes to another place in the rings' order, so it ends.
        while self._count:
            effects.append(Unfenced(self._leader, Outcome.OVERFLOW))
            effects += self._advance()
        return effects + self._need_fence()

    def _advance(self) -> list[Effect[T]]:
        """Let the next cluster lead."""
        self._fence = None
        old = self._leader
        self._epoch, self._leader = self._next()
        if self._leader == old:
            return []
        effects: list[Effect[T]] = [Led(old, self._leader)]
        if old not in self._owners:
            self._roles = [(epoch, cluster) for epoch, cluster in self._roles if cluster != old]
            self._retiring = {number: cluster for number, cluster in self._retiring.items() if cluster != old}
            effects.append(Forget(old))
        held = self._held.pop(self._leader, None)
        if held is not None:
            self._count -= len(held)
            self._bytes -= sum(size for _, size in held)
            effects.append(Deliver(self._leader, tuple(item for item, _ in held)))
        return effects

    def _next(self) -> Role:
        for epoch, cluster in self._roles:
            if epoch > self._epoch and cluster != self._leader:
                return epoch, cluster
        # Nothing newer: records of another topic that has not moved yet, or of a pod that was paused.
        for held in self._held:
            return next((role for role in reversed(self._roles) if role[1] == held), (self._epoch, held))
        return self._roles[-1] if self._leader not in self._owners else (self._epoch, self._leader)

    def _need_fence(self) -> list[Effect[T]]:
        if self._fence is not None or not (self._count or self._leader not in self._owners):
            return []
        fence = self._new_fence(self._leader)
        self._fence = fence.number
        return [fence]

    def _new_fence(self, cluster: str) -> Fence:
        self._number += 1
        return Fence(cluster, self._number)
