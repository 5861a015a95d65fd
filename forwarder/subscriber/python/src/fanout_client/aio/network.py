"""What a client knows of the ring, and its links to clusters."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import OrderedDict
from typing import Protocol

from fanout_client.aio.link import Link
from fanout_client.aio.tap import Tap
from fanout_client.aio.tasks import Tasks
from fanout_client.beacon import Announcement, Digest, Known, Learned, OtherRingError, Subjects
from fanout_client.credentials import HostPolicy, Route
from fanout_client.errors import ConnectError
from fanout_client.events import Event, Gap, GapReason, Refused, Resumed, Unbelieved
from fanout_client.options import Limits, Pin
from fanout_client.ring import RingError

_log = logging.getLogger("fanout_client")

_SEED = ""
"""The name of the link to the servers that the program has named, as long as it is of no member."""
_HASHES = 64
_MISSED_DIGESTS = 3
_WATCH_SECONDS = 0.25
_DIGEST_SECONDS = 0.1


class Listener(Protocol):
    """Who acts on what is learned."""

    async def learned(self, told: Announcement, learned: Learned, before: int | None) -> None:
        """Act on an announcement. ``before``: the newest epoch that was known before it."""

    def dropped(self, tap: Tap) -> None:
        """Take note of a message that a connection had no room for."""

    def is_read(self, cluster: str) -> bool:
        """Whether the stream of a cluster is read."""
        ...

    def event(self, event: Event) -> None:
        """Tell an event."""


class Network:
    """See the module."""

    def __init__(
        self,
        pin: Pin,
        policy: HostPolicy,
        tls: ssl.SSLContext | None,
        inbox_prefix: str,
        limits: Limits,
        listener: Listener,
    ) -> None:
        """Know nothing, and connect to nobody. ``begin`` does both."""
        self.known = Known(pin.ring)
        self._pin = pin
        self._policy = policy
        self._tls = tls
        self._inbox_prefix = inbox_prefix
        self._limits = limits
        self._listener = listener
        self._get = Subjects(pin.subject).get
        self._links: dict[str, Link] = {}
        self._alive: set[Link] = set()
        """All links that are not closed, also those that are of use for one question only."""
        self._wanted: dict[Link, str] = {}
        """The hash of the latest digest, of links on which something is asked for it."""
        self._asking: dict[Link, asyncio.Task[bool]] = {}
        self._hashes: OrderedDict[str, None] = OrderedDict()
        """Of the latest announcements. A digest of another one makes us ask."""
        self._first = asyncio.Event()
        self._failure = "no server has answered"
        self._refused: set[tuple[str, str]] = set()
        self._gapped: set[str] = set()
        """Clusters of which a gap was told that has not ended."""
        self._elsewhere = 0.0
        self._tasks = Tasks()

    async def begin(self) -> None:
        """Connect and learn the ring.

        Raises ``ConnectError``.
        """
        self.link(_SEED)
        try:
            await asyncio.wait_for(self._first.wait(), self._limits.connect)
        except asyncio.TimeoutError:
            raise ConnectError(f"failed to learn the ring: {self._failure}") from None
        self._tasks.spawn(self._watch())

    async def close(self) -> None:
        """End all connections."""
        await self._tasks.close()
        asking = list(self._asking.values())
        await asyncio.gather(*(self._close(link) for link in list(self._alive)), *asking, return_exceptions=True)
        self._links.clear()

    # Links.

    def link(self, name: str) -> Link:
        """Give the link to a cluster. It is made where there is none."""
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = self._new_link(name)
        return link

    def linked(self, name: str) -> Link | None:
        """Give the link to a cluster, where there is one."""
        return self._links.get(name)

    def route(self, name: str) -> Route:
        """Say where a cluster is reached. Servers that are not allowed are told once."""
        if name == _SEED:
            return self._policy.seed_route()
        route = self._policy.route(name, self.known.servers(name) or ())
        for server, reason in route.refused:
            if self._is_first_refusal(name, server):
                self._listener.event(Refused(name, server, reason))
        if route.refused and not route.servers and self._is_first_refusal(name, ""):
            self._listener.event(Gap(GapReason.HOST_REFUSED, cluster=name))
        return route

    def tidy(self) -> None:
        """Close links that nobody needs. One stays, for the beacon."""
        for name, link in list(self._links.items()):
            others_up = any(other.up for other in self._links.values() if other is not link)
            if link.taps == 0 and not self._listener.is_read(name) and others_up:
                del self._links[name]
                self._tasks.spawn(self._close(link))

    def _new_link(self, name: str) -> Link:
        link = Link(name, lambda: self.route(link.name), self, self._pin, self._limits, self._tls, self._inbox_prefix)
        self._alive.add(link)
        link.start()
        return link

    async def _close(self, link: Link) -> None:
        await link.close()
        self._alive.discard(link)

    def _is_first_refusal(self, name: str, server: str) -> bool:
        is_first = (name, server) not in self._refused
        self._refused.add((name, server))
        return is_first

    def _adopt(self) -> None:
        """Take the first link for that of a member, where it is to one of the member's servers."""
        seed = self._links.get(_SEED)
        if seed is None:
            return
        route = self._policy.seed_route()
        for ring in reversed(self.known.rings):
            for cluster in ring.view.clusters:
                told = self._policy.route(cluster.name, cluster.servers)
                is_same = {server.url for server in route.servers} <= {server.url for server in told.servers}
                if is_same and told.credentials == route.credentials and cluster.name not in self._links:
                    self._links[cluster.name] = self._links.pop(_SEED)
                    seed.name = cluster.name
                    return

    # Questions.

    async def _ask(self, link: Link) -> bool:
        """Ask on a link and learn from the answer. Questions of one moment are one."""
        asking = self._asking.get(link)
        if asking is None:
            asking = asyncio.get_running_loop().create_task(self._ask_once(link))
            self._asking[link] = asking
            asking.add_done_callback(lambda _: self._asking.pop(link, None))
        return await asyncio.shield(asking)

    async def _ask_once(self, link: Link) -> bool:
        told = await link.ask()
        if told is None:
            self._failure = f"no forwarder has answered on {self._get}"
            return False
        link.last_digest = time.monotonic()
        await self._learn(told)
        link.informed.set()
        return True

    async def _learn(self, told: Announcement) -> None:
        rings = self.known.rings
        before = rings[-1].view.epoch if rings else None
        try:
            learned = self.known.learn(told)
        except (OtherRingError, RingError) as error:
            self._failure = str(error)
            self._listener.event(Unbelieved(self._get, str(error)))
            return
        self._hashes[told.hash] = None
        if len(self._hashes) > _HASHES:
            self._hashes.popitem(last=False)
        self._adopt()
        await self._listener.learned(told, learned, before)
        self._first.set()

    async def _watch(self) -> None:
        """Ask where digests are missed, and elsewhere where nobody answers."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            links = list(self._links.values())
            late = [link for link in links if link.up and now - link.last_digest > _MISSED_DIGESTS * link.rhythm]
            are_others_well = any(link.up and link not in late for link in links)
            for link in late:
                # Whatever it answers, the next question waits for three more digests.
                link.last_digest = now
                if not await self._ask(link) and not are_others_well:
                    await self._ask_elsewhere()
            if not any(link.up for link in links):
                await self._ask_elsewhere()

    async def _ask_elsewhere(self) -> None:
        """Ask through members to which there is no link, and through the servers that the program has named."""
        if time.monotonic() - self._elsewhere < self._limits.reconnect:
            return
        members = dict.fromkeys(cluster.name for ring in reversed(self.known.rings) for cluster in ring.view.clusters)
        for name in [*(name for name in members if name not in self._links), _SEED]:
            link = self._new_link(name)
            try:
                await asyncio.wait_for(link.connected.wait(), self._limits.dial)
                if await self._ask(link):
                    break
            except asyncio.TimeoutError:
                continue
            finally:
                await self._close(link)
        self._elsewhere = time.monotonic()

    # What links tell: see ``Owner``.

    def link_up(self, link: Link) -> None:
        """Ask, and again until the first answer."""
        self._tasks.spawn(self._on_up(link))

    async def _on_up(self, link: Link) -> None:
        self.tidy()
        while link.up:
            if await self._ask(link) or self._first.is_set():
                return
            await asyncio.sleep(_WATCH_SECONDS)

    def link_down(self, link: Link, reason: str) -> None:
        """Tell a gap where anything was read through it."""
        if link.taps:
            self._gapped.add(link.name)
            is_slow = "slow consumer" in reason.lower()
            kind = GapReason.SLOW_CONSUMER if is_slow else GapReason.DISCONNECTED
            self._listener.event(Gap(kind, cluster=link.name, detail=reason))

    def link_failed(self, link: Link, reason: str) -> None:
        """Keep the reason, for whoever waits for the first answer."""
        self._failure = reason
        _log.info("failed to connect to the cluster %r: %s", link.name, reason)

    def digest(self, link: Link, digest: Digest) -> None:
        """Ask where the digest is of another announcement than those that are known."""
        if digest.hash in self._hashes:
            return
        if link not in self._wanted:
            self._tasks.spawn(self._on_digest(link))
        self._wanted[link] = digest.hash

    async def _on_digest(self, link: Link) -> None:
        """Ask for what digests name: at most ten times a second, since somebody may send old digests again."""
        try:
            while (wanted := self._wanted.get(link)) not in (None, *self._hashes) and link.up:
                # The answer to a question of before may be older than the digest.
                is_old = link in self._asking
                await self._ask(link)
                await asyncio.sleep(_DIGEST_SECONDS)
                if self._wanted[link] == wanted and not is_old:
                    return
        finally:
            del self._wanted[link]

    def unbelieved(self, subject: str, reason: str) -> None:
        """Tell an event."""
        self._listener.event(Unbelieved(subject, reason))

    def denied(self, link: Link, reason: str) -> None:
        """Tell an event."""
        self._listener.event(Refused(link.name, "", reason))

    def proven(self, link: Link) -> None:
        """Tell the end of a gap."""
        if link.name in self._gapped:
            self._gapped.discard(link.name)
            self._listener.event(Resumed(link.name))

    def dropped(self, tap: Tap) -> None:
        """Pass it on."""
        self._listener.dropped(tap)

    def pods(self) -> tuple[str, ...]:
        """Give the pods that were told last."""
        return self.known.pods

    def refresh(self, link: Link) -> None:
        """Ask: the pods may be others by now."""
        self._tasks.spawn(self._refresh(link))

    async def _refresh(self, link: Link) -> None:
        await self._ask(link)
