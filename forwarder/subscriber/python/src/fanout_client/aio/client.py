"""The client: its subscriptions, over what the network tells."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from types import TracebackType

from fanout_client.aio.feed import Feed
from fanout_client.aio.link import Link
from fanout_client.aio.network import Network
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tap import Tap
from fanout_client.aio.tasks import Tasks
from fanout_client.beacon import Announcement, Known, Learned, Verifier
from fanout_client.credentials import CredentialsOf, HostPolicy
from fanout_client.errors import AssetInvalidError, ClosedError, HostRefusedError, JetStreamError
from fanout_client.events import AtLeastOnce, Event, Events, Gap, GapReason, RingChanged, Unbelieved
from fanout_client.merge import Outcome
from fanout_client.options import Limits, Pin, Repeats
from fanout_client.subject import subject_of


async def connect(
    urls: str | Iterable[str],
    *,
    pin: Pin,
    credentials: CredentialsOf = None,
    allow_hosts: Iterable[str] | None = None,
    repeats: Repeats = Repeats.DROP,
    tls: ssl.SSLContext | None = None,
    inbox_prefix: str = "_INBOX",
    limits: Limits | None = None,
) -> Client:
    """Connect to any server of any member of the ring, and learn the ring.

    ``credentials`` are of all clusters, or by a cluster's name in the ring; the name ``*`` stands for the rest and
    for ``urls``. They are sent to the hosts of ``urls`` and of ``allow_hosts`` only, and only by TLS, unless ``urls``
    names the server without.

    Forwarders answer to an ``inbox_prefix`` that is ``_INBOX``, begins with ``_INBOX_``, or is the cluster's own.

    Raises ``ConnectError``, ``JetStreamError``, ``KeyInvalidError``, or ``ValueError`` for a URL.
    """
    policy = HostPolicy([urls] if isinstance(urls, str) else urls, credentials, allow_hosts)
    client = Client(pin, policy, repeats, tls, inbox_prefix, limits or Limits())
    try:
        await client._begin()
    except BaseException:
        await client.close()
        raise
    return client


class Client:
    """Use ``connect``. All methods are of the event loop that has connected."""

    def __init__(
        self,
        pin: Pin,
        policy: HostPolicy,
        repeats: Repeats,
        tls: ssl.SSLContext | None,
        inbox_prefix: str,
        limits: Limits,
    ) -> None:
        # A key that is none is the caller's error, not an event.
        Verifier(pin.public_key)
        if not policy.seeds:
            raise ValueError("at least one URL of a server is needed")
        self._pin = pin
        self._repeats = repeats
        self._limits = limits
        self._events = Events(limits.events)
        self._network = Network(pin, policy, tls, inbox_prefix, limits, self)
        self._feeds: dict[Subscription, list[Feed]] = {}
        self._tasks = Tasks()
        self._closed = False
        self._fatal: JetStreamError | None = None

    async def subscribe(self, asset: str, id: str = "*") -> Subscription:
        """Subscribe to an asset's records. ``id``: one data item, ``*``, or ``>`` for IDs with dots.

        It returns when all pods have proved that they see the interest, or after ``Limits.ready`` with a ``Gap``.
        Raises ``AssetInvalidError``, ``HostRefusedError``, ``JetStreamError`` or ``ClosedError``.
        """
        return await self.subscribe_many([asset], id)

    async def subscribe_many(self, assets: Iterable[str], id: str = "*") -> Subscription:
        """Subscribe to many assets in one stream. Each asset keeps its own order. Raises as ``subscribe`` does."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._fatal is not None:
            raise self._fatal
        stream = Subscription(self._limits.queue, self._limits.queue_bytes, self._end)
        feeds = []
        for asset in dict.fromkeys(assets):
            subject_of(self._template, asset, id)
            roles = self.known.roles(asset)
            feeds.append(Feed(asset, id, roles, stream, self._repeats, self._limits, self))
        self._feeds[stream] = feeds
        try:
            for feed in feeds:
                await self._follow(feed)
            self._refuse_where_needed(feeds)
            await self._await_proof(feeds)
        except BaseException:
            stream.close()
            raise
        for feed in feeds:
            feed.is_begun = True
        return stream

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over what happens: see ``fanout_client.events``. All iterations share one queue."""
        while (event := await self.next_event()) is not None:
            yield event

    async def next_event(self) -> Event | None:
        """Wait for the next event. ``None``: there will be none."""
        return await self._events.take()

    def owner(self, asset: str) -> str:
        """Name of the cluster that owns an asset under the ring in use."""
        ring = self.known.current
        return ring.owner(asset) if ring else ""

    def servers(self, cluster: str) -> tuple[str, ...]:
        """Where a cluster is reached, as the newest ring says."""
        return self.known.servers(cluster) or ()

    @property
    def known(self) -> Known:
        """What the client knows of the ring. It is to be read only."""
        return self._network.known

    async def close(self) -> None:
        """End all subscriptions and connections."""
        if self._closed:
            return
        self._closed = True
        for stream in list(self._feeds):
            stream.close()
        await self._tasks.close()
        await self._network.close()
        self._events.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _begin(self) -> None:
        await self._network.begin()
        if self._fatal is not None:
            raise self._fatal

    @property
    def _template(self) -> str:
        return self.known.publishing.subject if self.known.publishing else ""

    # Subscriptions.

    async def _follow(self, feed: Feed) -> None:
        """Tap all owners of a feed's asset."""
        for cluster in self.known.owners(feed.asset):
            if cluster not in feed.taps:
                tap = feed.tap(cluster, subject_of(self._template, feed.asset, feed.item))
                await self._network.link(cluster).add(tap)

    async def _resubscribe(self, feed: Feed) -> None:
        subject = subject_of(self._template, feed.asset, feed.item)
        for cluster, tap in list(feed.taps.items()):
            if tap.subject != subject:
                feed.gap(GapReason.SUBJECT_CHANGED, cluster)
                link = self._network.link(cluster)
                await link.remove(tap)
                await link.add(feed.tap(cluster, subject))

    def _refuse_where_needed(self, feeds: list[Feed]) -> None:
        for cluster in {cluster for feed in feeds for cluster in feed.taps}:
            route = self._network.route(cluster)
            if not route.servers:
                reasons = "; ".join(f"{url}: {reason}" for url, reason in route.refused)
                raise HostRefusedError(f"the cluster {cluster!r} may not be used: {reasons}")

    async def _await_proof(self, feeds: list[Feed]) -> None:
        proofs = [(feed, cluster, tap) for feed in feeds for cluster, tap in feed.taps.items()]
        end = time.monotonic() + self._limits.ready
        for feed, cluster, tap in proofs:
            if tap.proven.is_set():
                continue
            try:
                # Also when the time is over: what is proved already costs none.
                await asyncio.wait_for(tap.proven.wait(), max(end - time.monotonic(), 0.001))
            except asyncio.TimeoutError:
                if cluster in feed.taps:
                    feed.gap(GapReason.NOT_READY, cluster, "not all pods have answered")

    def _end(self, stream: Subscription) -> None:
        for feed in self._feeds.pop(stream, []):
            feed.close()
            taps, feed.taps = feed.taps, {}
            for cluster, tap in taps.items():
                self.forget(feed, cluster, tap)

    # What the network tells: see ``Listener``.

    async def learned(self, told: Announcement, learned: Learned, before: int | None) -> None:
        """Bring subscriptions to what is known now."""
        if told.publishing.stream is not None and self._fatal is None:
            self._fatal = JetStreamError(
                f"the forwarder publishes into the stream {told.publishing.stream!r}; "
                "this version of the client reads core NATS only"
            )
            if before is not None:
                self.event(Gap(GapReason.JETSTREAM, detail=str(self._fatal)))
        if not learned:
            return
        self._tell(learned)
        rings = self.known.rings
        if before is not None and before < self.known.left and rings[0].view.epoch > before + 1:
            self.event(Gap(GapReason.RING_SKIPPED, detail=f"after the ring of epoch {before}"))
        feeds = [feed for feeds in self._feeds.values() for feed in feeds]
        for feed in feeds:
            self._miss(feed, learned)
            try:
                if learned.publishing and before is not None:
                    await self._resubscribe(feed)
                if not feed.stream.closed:
                    feed.owners(self.known.roles(feed.asset))
                    await self._follow(feed)
            except AssetInvalidError as error:
                # The forwarder's new template makes no subject of it.
                feed.gap(GapReason.SUBJECT_CHANGED, None, str(error))

    def _tell(self, learned: Learned) -> None:
        states = (("announced", learned.new), ("in use", learned.in_use), ("left", learned.left))
        for state, epochs in states:
            for epoch in epochs:
                self.event(RingChanged(epoch, state))
        if learned.contradicted is not None:
            reason = f"the ring of epoch {learned.contradicted} was told before with other members"
            self.event(Unbelieved(self._pin.subject, reason))
        publishing = self.known.publishing
        if learned.publishing and publishing is not None and not publishing.origin:
            self.event(AtLeastOnce())

    def _miss(self, feed: Feed, learned: Learned) -> None:
        """Tell gaps of rings that are in use before the interest on the new side was proved."""
        used = [ring for ring in self.known.rings if ring.view.epoch in learned.in_use]
        for owner in dict.fromkeys(ring.owner(feed.asset) for ring in used):
            tap = feed.taps.get(owner)
            if feed.is_begun and not (tap and tap.proven.is_set()):
                feed.gap(GapReason.NOT_READY, owner, "its ring is in use already")

    def dropped(self, tap: Tap) -> None:
        """Tell a gap of the asset."""
        for feed in (feed for feeds in self._feeds.values() for feed in feeds):
            for cluster, other in feed.taps.items():
                if other is tap:
                    feed.overflow(cluster)

    def event(self, event: Event) -> None:
        """Tell an event."""
        self._events.put(event)

    # What feeds need: see ``Hub``.

    def fence(self, feed: Feed, cluster: str, number: int) -> None:
        """Fence a cluster in the background."""
        self._tasks.spawn(self._fence(feed, cluster, number))

    async def _fence(self, feed: Feed, cluster: str, number: int) -> None:
        link, tap = self._network.linked(cluster), feed.taps.get(cluster)
        outcome = Outcome.DOWN
        if link is not None and tap is not None:
            try:
                outcome = await asyncio.wait_for(link.fence(tap), self._limits.drain)
            except asyncio.TimeoutError:
                outcome = Outcome.TIMED_OUT
            has_several = link.several_servers or len(self.servers(cluster)) > 1
            if outcome is Outcome.DRAINED and has_several:
                # Servers of a cluster pass on messages of two connections in another order than they took them in.
                await asyncio.sleep(self._limits.settle)
        feed.fenced(number, outcome)

    def forget(self, feed: Feed, cluster: str, tap: Tap) -> None:
        """Remove a tap in the background."""
        link = self._network.linked(cluster)
        if link is not None and not self._closed:
            self._tasks.spawn(self._remove(link, tap))

    async def _remove(self, link: Link, tap: Tap) -> None:
        await link.remove(tap)
        self._network.tidy()

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        return self.known.servers(cluster) is not None
