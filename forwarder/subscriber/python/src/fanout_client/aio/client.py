"""The client: what it knows of the ring, its links, and its subscriptions."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterable
from types import TracebackType
from typing import Any

from fanout_client.aio.feed import Feed
from fanout_client.aio.link import Link, Tap
from fanout_client.aio.subscription import Subscription
from fanout_client.beacon import Announcement, Digest, Known, Learned, OtherRingError, Verifier
from fanout_client.credentials import CredentialsOf, HostPolicy, Route
from fanout_client.errors import ClosedError, ConnectError, HostRefusedError, JetStreamError
from fanout_client.events import (
    AtLeastOnce,
    Event,
    Events,
    Gap,
    GapReason,
    Refused,
    Resumed,
    RingChanged,
    Unbelieved,
)
from fanout_client.merge import Outcome
from fanout_client.options import Limits, Pin, Repeats
from fanout_client.ring import RingError
from fanout_client.subject import subject_of

_log = logging.getLogger("fanout_client")

_SEED = ""
"""The name of the link to the servers that the program has named, as long as it is of no member."""
_HASHES = 64
_MISSED_DIGESTS = 3
_WATCH_SECONDS = 0.25


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
        self._policy = policy
        self._repeats = repeats
        self._tls = tls
        self._inbox_prefix = inbox_prefix
        self._limits = limits
        self._known = Known(pin.ring)
        self._events = Events(limits.events)
        self._links: dict[str, Link] = {}
        self._feeds: dict[Subscription, list[Feed]] = {}
        self._hashes: OrderedDict[str, None] = OrderedDict()
        self._asking: dict[Link, asyncio.Task[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._first = asyncio.Event()
        self._failure = "no server has answered"
        self._refused: set[tuple[str, str]] = set()
        self._gapped: set[str] = set()
        self._elsewhere = 0.0
        self._closed = False
        self._fatal: Exception | None = None

    # For programs.

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
        template = self._known.publishing.subject if self._known.publishing else ""
        stream = Subscription(self._limits.queue, self._limits.queue_bytes, self._end)
        feeds = []
        for asset in dict.fromkeys(assets):
            subject_of(template, asset, id)
            roles = self._known.roles(asset)
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
        ring = self._known.current
        return ring.owner(asset) if ring else ""

    def servers(self, cluster: str) -> tuple[str, ...]:
        """Where a cluster is reached, as the newest ring says."""
        return self._known.servers(cluster) or ()

    @property
    def known(self) -> Known:
        """What the client knows of the ring. It is to be read only."""
        return self._known

    async def close(self) -> None:
        """End all subscriptions and connections."""
        if self._closed:
            return
        self._closed = True
        for stream in list(self._feeds):
            stream.close()
        for task in list(self._tasks):
            task.cancel()
        links, self._links = list(self._links.values()), {}
        waiting = [*self._tasks, *self._asking.values()]
        await asyncio.gather(*(link.close() for link in links), *waiting, return_exceptions=True)
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

    # The ring.

    async def _begin(self) -> None:
        self._link(_SEED)
        try:
            await asyncio.wait_for(self._first.wait(), self._limits.connect)
        except asyncio.TimeoutError:
            raise ConnectError(f"failed to learn the ring: {self._failure}") from None
        if self._fatal is not None:
            raise self._fatal
        self._spawn(self._watch())

    async def _ask(self, link: Link) -> bool:
        """Ask on a link. Questions of one moment are one."""
        asking = self._asking.get(link)
        if asking is None:
            asking = asyncio.get_running_loop().create_task(self._ask_once(link))
            self._asking[link] = asking
            asking.add_done_callback(lambda _: self._asking.pop(link, None))
        return await asyncio.shield(asking)

    async def _ask_once(self, link: Link) -> bool:
        told = await link.ask()
        if told is None:
            self._failure = f"no forwarder has answered on {self._pin.subject}.get"
            return False
        link.last_digest = time.monotonic()
        await self._learn(told)
        return True

    async def _learn(self, told: Announcement) -> None:
        before = self._known.rings[-1].view.epoch if self._known.rings else None
        try:
            learned = self._known.learn(told)
        except (OtherRingError, RingError) as error:
            self._failure = str(error)
            self.event(Unbelieved(f"{self._pin.subject}.get", str(error)))
            return
        self._hashes[told.hash] = None
        if len(self._hashes) > _HASHES:
            self._hashes.popitem(last=False)
        if learned:
            self._tell(learned)
            await self._act(learned, before)
        if told.publishing.stream is not None and self._fatal is None:
            self._fatal = JetStreamError(
                f"the forwarder publishes into the stream {told.publishing.stream!r}; "
                "this version of the client reads core NATS only"
            )
            if self._first.is_set():
                self.event(Gap(GapReason.JETSTREAM, detail=str(self._fatal)))
        self._first.set()

    def _tell(self, learned: Learned) -> None:
        states = (("announced", learned.new), ("in use", learned.in_use), ("left", learned.left))
        for state, epochs in states:
            for epoch in epochs:
                self.event(RingChanged(epoch, state))
        if learned.contradicted is not None:
            reason = f"the ring of epoch {learned.contradicted} was told before with other members"
            self.event(Unbelieved(f"{self._pin.subject}.get", reason))
        publishing = self._known.publishing
        if learned.publishing and publishing is not None and not publishing.origin:
            self.event(AtLeastOnce())

    async def _act(self, learned: Learned, before: int | None) -> None:
        """Bring links and feeds to what is known now."""
        self._adopt()
        rings = self._known.rings
        if before is not None and before < self._known.left and rings and rings[0].view.epoch > before + 1:
            self.event(Gap(GapReason.RING_SKIPPED, detail=f"after the ring of epoch {before}"))
        feeds = [feed for feeds in self._feeds.values() for feed in feeds]
        used = [ring for ring in rings if ring.view.epoch in learned.in_use]
        for feed in feeds:
            for owner in dict.fromkeys(ring.owner(feed.asset) for ring in used):
                tap = feed.taps.get(owner)
                if feed.is_begun and not (tap and tap.proven.is_set()):
                    feed.gap(GapReason.NOT_READY, owner, "its ring is in use already")
        if learned.publishing and before is not None and feeds:
            await self._resubscribe(feeds)
        for feed in feeds:
            if not feed.stream.closed:
                feed.owners(self._known.roles(feed.asset))
                await self._follow(feed)

    def _adopt(self) -> None:
        """Take the first link for that of a member, where it is to one of the member's servers."""
        seed = self._links.get(_SEED)
        route = self._policy.seed_route()
        if seed is None:
            return
        for ring in reversed(self._known.rings):
            for cluster in ring.view.clusters:
                told = self._policy.route(cluster.name, cluster.servers)
                same = {server.url for server in route.servers} <= {server.url for server in told.servers}
                if same and told.credentials == route.credentials and cluster.name not in self._links:
                    del self._links[_SEED]
                    self._links[cluster.name] = seed
                    seed.name = cluster.name
                    return

    async def _follow(self, feed: Feed) -> None:
        """Tap all owners of a feed's asset."""
        template = self._known.publishing.subject if self._known.publishing else ""
        for cluster in self._known.owners(feed.asset):
            if cluster not in feed.taps:
                tap = feed.tap(cluster, subject_of(template, feed.asset, feed.item))
                await self._link(cluster).add(tap)

    async def _resubscribe(self, feeds: list[Feed]) -> None:
        template = self._known.publishing.subject if self._known.publishing else ""
        for feed in feeds:
            for cluster, tap in list(feed.taps.items()):
                subject = subject_of(template, feed.asset, feed.item)
                if tap.subject != subject:
                    feed.gap(GapReason.SUBJECT_CHANGED, cluster)
                    await self._link(cluster).remove(tap)
                    await self._link(cluster).add(feed.tap(cluster, subject))

    def _refuse_where_needed(self, feeds: list[Feed]) -> None:
        for feed in feeds:
            for cluster in feed.taps:
                route = self._route(cluster)
                if not route.servers:
                    reasons = "; ".join(f"{url}: {reason}" for url, reason in route.refused)
                    raise HostRefusedError(f"the cluster {cluster!r} may not be used: {reasons}")

    async def _await_proof(self, feeds: list[Feed]) -> None:
        proofs = [(feed, cluster, tap) for feed in feeds for cluster, tap in feed.taps.items()]
        end = time.monotonic() + self._limits.ready
        for feed, cluster, tap in proofs:
            try:
                # Also in the past: what is proved already costs no time.
                await asyncio.wait_for(tap.proven.wait(), max(end - time.monotonic(), 0.001))
            except asyncio.TimeoutError:
                if cluster in feed.taps:
                    feed.gap(GapReason.NOT_READY, cluster, "not all pods have answered")

    def _end(self, stream: Subscription) -> None:
        for feed in self._feeds.pop(stream, []):
            taps, feed.taps = feed.taps, {}
            for cluster, tap in taps.items():
                self.forget(feed, cluster, tap)

    # Links.

    def _link(self, name: str) -> Link:
        link = self._links.get(name)
        if link is None:
            link = self._new_link(name)
            self._links[name] = link
        return link

    def _new_link(self, name: str) -> Link:
        link = Link(
            name,
            lambda: self._route(link.name),
            self,
            self._pin,
            self._limits,
            self._tls,
            self._inbox_prefix,
        )
        link.start()
        return link

    def _route(self, name: str) -> Route:
        if name == _SEED:
            return self._policy.seed_route()
        route = self._policy.route(name, self._known.servers(name) or ())
        for server, reason in route.refused:
            # Once: a link asks before each attempt.
            if (name, server) not in self._refused:
                self._refused.add((name, server))
                self.event(Refused(name, server, reason))
        if route.refused and not route.servers and (name, "") not in self._refused:
            self._refused.add((name, ""))
            self.event(Gap(GapReason.HOST_REFUSED, cluster=name))
        return route

    def _tidy(self) -> None:
        """Close links that nobody needs. One stays, for the beacon."""
        for name, link in list(self._links.items()):
            others_up = any(other.up for other in self._links.values() if other is not link)
            if link.taps == 0 and others_up:
                del self._links[name]
                self._spawn(link.close())

    async def _watch(self) -> None:
        """Ask where digests are missed, and elsewhere where nobody answers."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            links = list(self._links.values())
            late = [link for link in links if link.up and now - link.last_digest > _MISSED_DIGESTS * link.rhythm]
            healthy = [link for link in links if link.up and link not in late]
            for link in late:
                # Whatever it answers, the next question waits for three more digests.
                link.last_digest = now
                if not await self._ask(link) and not healthy:
                    await self._ask_elsewhere()
            if not any(link.up for link in links):
                await self._ask_elsewhere()

    async def _ask_elsewhere(self) -> None:
        """Ask through members to which there is no link, and through the servers that the program has named."""
        if time.monotonic() - self._elsewhere < self._limits.reconnect:
            return
        members = dict.fromkeys(cluster.name for ring in reversed(self._known.rings) for cluster in ring.view.clusters)
        for name in [*(name for name in members if name not in self._links), _SEED]:
            link = self._new_link(name)
            try:
                await asyncio.wait_for(link.connected.wait(), self._limits.dial)
                if await self._ask(link):
                    break
            except asyncio.TimeoutError:
                continue
            finally:
                await link.close()
        self._elsewhere = time.monotonic()

    # What links tell.

    def link_up(self, link: Link) -> None:
        """See ``Owner``."""
        self._spawn(self._on_up(link))

    async def _on_up(self, link: Link) -> None:
        self._tidy()
        while link.up:
            if await self._ask(link) or self._first.is_set():
                return
            await asyncio.sleep(_WATCH_SECONDS)

    def link_down(self, link: Link, reason: str) -> None:
        """See ``Owner``."""
        if link.taps:
            self._gapped.add(link.name)
            slow = "slow consumer" in reason.lower()
            kind = GapReason.SLOW_CONSUMER if slow else GapReason.DISCONNECTED
            self.event(Gap(kind, cluster=link.name, detail=reason))

    def link_failed(self, link: Link, reason: str) -> None:
        """See ``Owner``."""
        self._failure = reason
        _log.info("failed to connect to cluster %r: %s", link.name, reason)

    def digest(self, link: Link, digest: Digest) -> None:
        """See ``Owner``."""
        if digest.hash not in self._hashes:
            self._spawn(self._on_digest(link, digest.hash))

    async def _on_digest(self, link: Link, wanted: str) -> None:
        # The answer to a question of before may be older than the digest.
        is_old = link in self._asking
        await self._ask(link)
        if is_old and wanted not in self._hashes:
            await self._ask(link)

    def unbelieved(self, subject: str, reason: str) -> None:
        """See ``Owner``."""
        self.event(Unbelieved(subject, reason))

    def denied(self, link: Link, reason: str) -> None:
        """See ``Owner``."""
        self.event(Refused(link.name, "", reason))

    def proven(self, link: Link) -> None:
        """See ``Owner``."""
        if link.name in self._gapped:
            self._gapped.discard(link.name)
            self.event(Resumed(link.name))

    def dropped(self, tap: Tap) -> None:
        """See ``Owner``."""
        for feeds in self._feeds.values():
            for feed in feeds:
                for cluster, other in feed.taps.items():
                    if other is tap:
                        feed.gap(GapReason.SLOW_CONSUMER, cluster, "the connection's queue is full")

    def pods(self) -> tuple[str, ...]:
        """See ``Owner``."""
        return self._known.pods

    def refresh(self, link: Link) -> None:
        """See ``Owner``."""
        self._spawn(self._refresh(link))

    async def _refresh(self, link: Link) -> None:
        await self._ask(link)

    # What feeds need.

    def event(self, event: Event) -> None:
        """See ``Hub``."""
        self._events.put(event)

    def fence(self, feed: Feed, cluster: str, number: int) -> None:
        """See ``Hub``."""
        self._spawn(self._fence(feed, cluster, number))

    async def _fence(self, feed: Feed, cluster: str, number: int) -> None:
        link, tap = self._links.get(cluster), feed.taps.get(cluster)
        outcome = Outcome.DOWN
        if link is not None and tap is not None:
            try:
                outcome = await asyncio.wait_for(link.fence(tap), self._limits.drain)
            except asyncio.TimeoutError:
                outcome = Outcome.TIMED_OUT
            several = link.several_servers or len(self._known.servers(cluster) or ()) > 1
            if outcome is Outcome.DRAINED and several:
                # Servers of a cluster pass on messages of two connections in another order than they took them in.
                await asyncio.sleep(self._limits.settle)
        feed.fenced(number, outcome)

    def forget(self, feed: Feed, cluster: str, tap: Tap) -> None:
        """See ``Hub``."""
        link = self._links.get(cluster)
        if link is not None and not self._closed:
            self._spawn(self._remove(link, tap))

    async def _remove(self, link: Link, tap: Tap) -> None:
        await link.remove(tap)
        self._tidy()

    def is_member(self, cluster: str) -> bool:
        """See ``Hub``."""
        return self._known.servers(cluster) is not None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the client has failed", exc_info=error)
