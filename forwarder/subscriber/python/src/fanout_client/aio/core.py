"""The way over core NATS."""

from __future__ import annotations

import asyncio

from fanout_client.aio.feed import CoreFeed, Feed
from fanout_client.aio.link import Link
from fanout_client.aio.mode import AnyFeed, Bench
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tap import Tap
from fanout_client.beacon import Learned
from fanout_client.events import Event, GapReason
from fanout_client.merge import Outcome
from fanout_client.options import Start, StartAt


class Core:
    """See the module."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._closed = False

    @property
    def stream(self) -> str | None:
        """There is none."""
        return None

    def feed(self, asset: str, item: str, stream: Subscription, start: StartAt) -> CoreFeed:
        """Make a feed. Raises ``ValueError``."""
        if start is not Start.NEW:
            raise ValueError("core NATS keeps no records to begin with: only Start.NEW works with this forwarder")
        bench = self._bench
        return CoreFeed(asset, item, bench.known.roles(asset), stream, bench.repeats, bench.limits, self)

    async def follow(self, feed: AnyFeed) -> None:
        """Tap all owners of a feed's asset."""
        for cluster in self._bench.known.owners(feed.asset):
            if isinstance(feed, CoreFeed) and cluster not in feed.taps:
                tap = feed.tap(cluster, self._bench.subject(feed))
                await self._bench.network.link(cluster).add(tap)

    async def resubscribe(self, feed: AnyFeed) -> None:
        """Read what the forwarder publishes under now. Raises ``AssetInvalidError``."""
        subject = self._bench.subject(feed)
        for cluster, tap in list(feed.taps.items()):
            if isinstance(feed, CoreFeed) and tap.subject != subject:
                feed.gap(GapReason.SUBJECT_CHANGED, cluster)
                link = self._bench.network.link(cluster)
                await link.remove(tap)
                await link.add(feed.tap(cluster, subject))

    def learned(self, feed: AnyFeed, learned: Learned) -> None:
        """Tell gaps of rings that are in use before the interest on the new side was proved."""
        used = [ring for ring in self._bench.known.rings if ring.view.epoch in learned.in_use]
        for owner in dict.fromkeys(ring.owner(feed.asset) for ring in used):
            tap = feed.taps.get(owner)
            if feed.is_begun and not (tap and tap.proven.is_set()):
                feed.gap(GapReason.NOT_READY, owner, "its ring is in use already")

    def why_not_proven(self, cluster: str) -> str:
        """Say why nothing is proved."""
        return "not all pods have answered"

    def is_read(self, cluster: str) -> bool:
        """There are no streams."""
        return False

    def dropped(self, tap: Tap) -> None:
        """Tell a gap of the asset."""
        for feed in self._bench.feeds():
            for cluster, other in feed.taps.items():
                if other is tap and isinstance(feed, CoreFeed):
                    feed.overflow(cluster)

    async def close(self) -> None:
        """End."""
        self._closed = True

    # What feeds need: see ``Hub``.

    def event(self, event: Event) -> None:
        """Tell an event."""
        self._bench.event(event)

    def fence(self, feed: Feed[Tap], cluster: str, number: int) -> None:
        """Fence a cluster in the background."""
        if isinstance(feed, CoreFeed):
            self._bench.tasks.spawn(self._fence(feed, cluster, number))

    async def _fence(self, feed: CoreFeed, cluster: str, number: int) -> None:
        link, tap = self._bench.network.linked(cluster), feed.taps.get(cluster)
        limits = self._bench.limits
        outcome = Outcome.DOWN
        if link is not None and tap is not None:
            try:
                outcome = await asyncio.wait_for(link.fence(tap), limits.drain)
            except asyncio.TimeoutError:
                outcome = Outcome.TIMED_OUT
            has_several = link.several_servers or len(self._bench.known.servers(cluster) or ()) > 1
            if outcome is Outcome.DRAINED and has_several:
                # Servers of a cluster pass on messages of two connections in another order than they took them in.
                await asyncio.sleep(limits.settle)
        feed.fenced(number, outcome)

    def forget(self, feed: Feed[Tap], cluster: str, tap: Tap) -> None:
        """Remove a tap in the background."""
        link = self._bench.network.linked(cluster)
        if link is not None and not self._closed:
            self._bench.tasks.spawn(self._remove(link, tap))

    async def _remove(self, link: Link, tap: Tap) -> None:
        await link.remove(tap)
        self._bench.network.tidy()

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        return self._bench.is_member(cluster)
