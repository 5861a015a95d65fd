"""The client: its subscriptions, over what the network tells."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType

from fanout_client.aio.core import Core
from fanout_client.aio.mode import AnyFeed, Bench, Mode
from fanout_client.aio.network import Network
from fanout_client.aio.streams import Streams
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tap import Tap
from fanout_client.aio.tasks import Tasks
from fanout_client.beacon import Announcement, Known, Learned, Publishing, Verifier
from fanout_client.credentials import CredentialsOf, HostPolicy
from fanout_client.errors import AssetInvalidError, ClosedError, HostRefusedError, JetStreamError
from fanout_client.events import AtLeastOnce, Event, Events, Gap, GapReason, RingChanged, Unbelieved
from fanout_client.options import Limits, Pin, Repeats, Start, StartAt
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
    jetstream_api: str | Mapping[str, str] = "$JS.API",
    limits: Limits | None = None,
) -> Client:
    """Connect to any server of any member of the ring, and learn the ring.

    ``credentials`` are of all clusters, or by a cluster's name in the ring; the name ``*`` stands for the rest and
    for ``urls``. They are sent to the hosts of ``urls`` and of ``allow_hosts`` only, and only by TLS, unless ``urls``
    names the server without.

    ``jetstream_api`` is what subjects of JetStream's API begin with, such as ``$JS.DOMAIN.API``: of all clusters, or by
    a cluster's name in the ring, with ``*`` for the rest.

    Forwarders answer to an ``inbox_prefix`` that is ``_INBOX``, begins with ``_INBOX_``, or is the cluster's own.

    Raises ``ConnectError``, ``JetStreamError``, ``KeyInvalidError``, or ``ValueError`` for a URL.
    """
    policy = HostPolicy([urls] if isinstance(urls, str) else urls, credentials, allow_hosts)
    prefixes = {"*": jetstream_api} if isinstance(jetstream_api, str) else dict(jetstream_api)
    client = Client(pin, policy, repeats, tls, inbox_prefix, prefixes, limits or Limits())
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
        jetstream_api: dict[str, str],
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
        self._feeds: dict[Subscription, list[AnyFeed]] = {}
        self._tasks = Tasks()
        self._bench = Bench(self._network, limits, repeats, self.event, self._tasks, self._all_feeds, jetstream_api)
        self._mode: Mode | None = None
        self._closed = False
        self._fatal: JetStreamError | None = None

    async def subscribe(self, asset: str, id: str = "*", start: StartAt = Start.NEW) -> Subscription:
        """Subscribe to an asset's records. ``id``: one data item, ``*``, or ``>`` for IDs with dots.

        ``start`` says where to begin where there are streams: other than ``Start.NEW`` needs JetStream.

        It returns when nothing more is missed, or after ``Limits.ready`` with a ``Gap``: with core NATS when all pods
        have proved that they see the interest, with streams when they have said how far they are. Raises
        ``AssetInvalidError``, ``HostRefusedError``, ``JetStreamError``, ``ClosedError``, or ``ValueError`` for a
        ``start`` that core NATS does not have.
        """
        return await self.subscribe_many([asset], id, start)

    async def subscribe_many(self, assets: Iterable[str], id: str = "*", start: StartAt = Start.NEW) -> Subscription:
        """Subscribe to many assets in one stream. Each asset keeps its own order. Raises as ``subscribe`` does."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._fatal is not None:
            raise self._fatal
        mode = self._mode
        if mode is None:
            raise ClosedError("the ring is not known")
        stream = Subscription(self._limits.queue, self._limits.queue_bytes, self._end)
        feeds = []
        for asset in dict.fromkeys(assets):
            subject_of(self._bench.template, asset, id)
            feeds.append(mode.feed(asset, id, stream, start))
        self._feeds[stream] = feeds
        try:
            for feed in feeds:
                await mode.follow(feed)
            self._refuse_where_needed(feeds)
            await self._await_proof(mode, feeds)
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
        if self._mode is not None:
            await self._mode.close()
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

    # Subscriptions.

    def _refuse_where_needed(self, feeds: list[AnyFeed]) -> None:
        for cluster in {cluster for feed in feeds for cluster in feed.taps}:
            route = self._network.route(cluster)
            if not route.servers:
                reasons = "; ".join(f"{url}: {reason}" for url, reason in route.refused)
                raise HostRefusedError(f"the cluster {cluster!r} may not be used: {reasons}")

    async def _await_proof(self, mode: Mode, feeds: list[AnyFeed]) -> None:
        proofs = [(feed, cluster, tap) for feed in feeds for cluster, tap in feed.taps.items()]
        end = time.monotonic() + self._limits.ready
        for feed, cluster, tap in proofs:
            if tap.proven.is_set():
                continue
            try:
                # Also when the time is over: what is proved already costs none.
                await asyncio.wait_for(tap.proven.wait(), max(end - time.monotonic(), 0.001))
            except asyncio.TimeoutError:
                reason = mode.why_not_proven(cluster)
                if cluster in feed.taps:
                    feed.gap(GapReason.NOT_READY, cluster, reason)

    def _end(self, stream: Subscription) -> None:
        for feed in self._feeds.pop(stream, []):
            feed.close()

    def _all_feeds(self) -> list[AnyFeed]:
        return [feed for feeds in self._feeds.values() for feed in feeds]

    # What the network tells: see ``Listener``.

    async def learned(self, told: Announcement, learned: Learned, before: int | None) -> None:
        """Bring subscriptions to what is known now."""
        self._choose(told.publishing)
        mode = self._mode
        if not learned or mode is None:
            return
        self._tell(learned)
        rings = self.known.rings
        if before is not None and before < self.known.left and rings[0].view.epoch > before + 1:
            self.event(Gap(GapReason.RING_SKIPPED, detail=f"after the ring of epoch {before}"))
        for feed in self._all_feeds():
            mode.learned(feed, learned)
            try:
                if learned.publishing and before is not None:
                    await mode.resubscribe(feed)
                if not feed.stream.closed:
                    feed.owners(self.known.roles(feed.asset))
                    await mode.follow(feed)
            except AssetInvalidError as error:
                # The forwarder's new template makes no subject of it.
                feed.gap(GapReason.SUBJECT_CHANGED, None, str(error))

    def _choose(self, publishing: Publishing) -> None:
        """Read streams or core NATS, as the forwarder publishes."""
        stream = publishing.stream
        if self._mode is None:
            self._mode = Core(self._bench) if stream is None else Streams(self._bench, stream)
        elif self._mode.stream != stream and self._fatal is None:
            now = "core NATS" if stream is None else f"the stream {stream!r}"
            self._fatal = JetStreamError(f"the forwarder publishes in another way now, into {now}: connect anew")
            self.event(Gap(GapReason.MODE_CHANGED, detail=str(self._fatal)))

    def _tell(self, learned: Learned) -> None:
        states = (("announced", learned.new), ("in use", learned.in_use), ("left", learned.left))
        for state, epochs in states:
            for epoch in epochs:
                self.event(RingChanged(epoch, state))
        if learned.contradicted is not None:
            reason = f"the ring of epoch {learned.contradicted} was told before with other members"
            self.event(Unbelieved(self._pin.subject, reason))
        publishing = self.known.publishing
        is_core = publishing is not None and publishing.stream is None
        if learned.publishing and publishing is not None and is_core and not publishing.origin:
            self.event(AtLeastOnce())

    def dropped(self, tap: Tap) -> None:
        """Tell a gap of the asset."""
        if isinstance(self._mode, Core):
            self._mode.dropped(tap)

    def is_read(self, cluster: str) -> bool:
        """Whether the stream of a cluster is read."""
        return self._mode is not None and self._mode.is_read(cluster)

    def event(self, event: Event) -> None:
        """Tell an event."""
        self._events.put(event)
