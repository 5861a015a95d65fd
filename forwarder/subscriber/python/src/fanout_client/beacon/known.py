"""What a subscriber knows of the ring: all that it has heard, put together.

Pods may know different things at one moment. Everything here only grows, so answers may come in any order: rings
are added, a ring's phase goes forward, and what is left is never taken up again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fanout_client.beacon.body import MAX_RINGS, Announcement, Phase, Publishing, RingView
from fanout_client.ring import Ring


class OtherRingError(ValueError):
    """The announcement is of another ring: another forwarder has the subject, or the forwarder was made anew."""


@dataclass
class Learned:
    """What an announcement brought. All lists are of epochs, ascending."""

    new: list[int] = field(default_factory=list)
    """Rings that were not known."""
    left: list[int] = field(default_factory=list)
    """Rings that have been left by that."""
    in_use: list[int] = field(default_factory=list)
    """Rings that are in use by that, or were."""
    contradicted: int | None = None
    """The epoch of a ring of which an earlier announcement has said something else. The earlier one counts."""
    publishing: bool = False
    """How records are published has changed."""

    def __bool__(self) -> bool:
        return self != Learned()


class KnownRing:
    """A ring that is not left."""

    __slots__ = ("_table", "view")

    def __init__(self, view: RingView) -> None:
        self.view = view
        self._table = Ring(((cluster.name, cluster.weight) for cluster in view.clusters), view.replicas)

    def owner(self, asset: str) -> str:
        """Name of the cluster that owns an asset."""
        return self._table.owner(asset)

    def servers(self, cluster: str) -> tuple[str, ...] | None:
        """Where a cluster is reached. ``None``: it is no member."""
        return next((member.servers for member in self.view.clusters if member.name == cluster), None)


class Known:
    """See the module."""

    def __init__(self, ring: str) -> None:
        self.ring = ring
        self.left = 0
        self.pods: tuple[str, ...] = ()
        self.publishing: Publishing | None = None
        self._rings: dict[int, KnownRing] = {}

    def learn(self, told: Announcement) -> Learned:
        """Take note of an announcement.

        Raises ``OtherRingError`` or ``RingError``: then nothing has changed.
        """
        if told.ring != self.ring:
            raise OtherRingError(f"the announcement is of the ring {told.ring!r}, not of {self.ring!r}")
        learned = Learned()
        left = max(self.left, told.left)
        new = []
        for view in told.rings:
            known = self._rings.get(view.epoch)
            if view.epoch < left:
                continue
            if known is None:
                new.append(KnownRing(view))
            elif (known.view.replicas, known.view.clusters) != (view.replicas, view.clusters):
                learned.contradicted = view.epoch
        # From here on nothing fails.
        self.left = left
        learned.left = [epoch for epoch in self._rings if epoch < left]
        for view in told.rings:
            known = self._rings.get(view.epoch)
            if known is not None and view.epoch >= left and known.view.phase < view.phase:
                if known.view.phase == Phase.ANNOUNCED:
                    learned.in_use.append(view.epoch)
                known.view = replace(known.view, phase=view.phase)
        for ring in new:
            learned.new.append(ring.view.epoch)
            if ring.view.phase != Phase.ANNOUNCED:
                learned.in_use.append(ring.view.epoch)
            self._rings[ring.view.epoch] = ring
        learned.in_use.sort()
        kept = sorted(epoch for epoch in self._rings if epoch >= left)
        # The oldest go first: whoever still uses them is the furthest behind.
        learned.left += kept[:-MAX_RINGS]
        self._rings = {epoch: self._rings[epoch] for epoch in kept[-MAX_RINGS:]}
        if self.publishing != told.publishing:
            self.publishing = told.publishing
            learned.publishing = True
        self.pods = told.pods
        return learned

    @property
    def rings(self) -> list[KnownRing]:
        """The rings that are not left, ascending by epoch."""
        return list(self._rings.values())

    @property
    def in_use(self) -> KnownRing | None:
        """The newest ring in use."""
        used = (ring for ring in reversed(self.rings) if ring.view.phase != Phase.ANNOUNCED)
        return next(used, None)

    @property
    def current(self) -> KnownRing | None:
        """The newest ring in use, or else the newest one at all."""
        return self.in_use or next(reversed(self.rings), None)

    def owners(self, asset: str) -> tuple[str, ...]:
        """Give the owners of an asset under all rings that are not left, the oldest ring's first, each once."""
        return tuple(dict.fromkeys(ring.owner(asset) for ring in self.rings))

    def roles(self, asset: str) -> tuple[tuple[int, str], ...]:
        """Give the epochs of all rings that are not left, ascending, each with the owner of an asset."""
        return tuple((ring.view.epoch, ring.owner(asset)) for ring in self.rings)

    def servers(self, cluster: str) -> tuple[str, ...] | None:
        """Where a cluster is reached: as the newest ring says that has it."""
        told = (ring.servers(cluster) for ring in reversed(self.rings))
        return next((servers for servers in told if servers is not None), None)
