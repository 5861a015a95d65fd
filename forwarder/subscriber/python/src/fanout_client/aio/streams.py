"""The way over streams."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from fanout_client.aio.feed import Feed
from fanout_client.aio.jetstream import DeniedError
from fanout_client.aio.mode import AnyFeed, Bench
from fanout_client.aio.reader import Reader
from fanout_client.aio.streamfeed import StreamFeed
from fanout_client.aio.streamtap import StreamTap
from fanout_client.aio.subscription import Subscription
from fanout_client.beacon import Learned, Phase
from fanout_client.errors import JetStreamError
from fanout_client.events import Event, Gap, GapReason, Refused
from fanout_client.options import StartAt

_DRAIN_SECONDS = 0.1
_MOST_DRAIN_SECONDS = 1.0


class Streams:
    """See the module."""

    def __init__(self, bench: Bench, stream: str) -> None:
        """Read ``stream`` on each cluster."""
        self._bench = bench
        self._stream = stream
        self._readers: dict[str, Reader] = {}
        self._closed = False

    @property
    def stream(self) -> str | None:
        """The name of the stream."""
        return self._stream

    def feed(self, asset: str, item: str, stream: Subscription, start: StartAt) -> StreamFeed:
        """Make a feed."""
        bench = self._bench
        return StreamFeed(asset, item, bench.known.roles(asset), stream, start, bench.repeats, bench.limits, self)

    async def follow(self, feed: AnyFeed) -> None:
        """Tap all owners of a feed's asset."""
        for cluster in self._bench.known.owners(feed.asset):
            if isinstance(feed, StreamFeed) and cluster not in feed.taps:
                self._reader(cluster).add(feed.tap(cluster, self._bench.subject(feed)))

    async def resubscribe(self, feed: AnyFeed) -> None:
        """Read what the forwarder publishes under now. Raises ``AssetInvalidError``."""
        subject = self._bench.subject(feed)
        for cluster, tap in list(feed.taps.items()):
            if isinstance(feed, StreamFeed) and tap.subject != subject:
                feed.gap(GapReason.SUBJECT_CHANGED, cluster)
                reader = self._reader(cluster)
                feed.was_read(cluster, reader.remove(tap))
                reader.add(feed.tap(cluster, subject))

    def learned(self, feed: AnyFeed, learned: Learned) -> None:
        """Streams keep what comes before they are read."""

    def why_not_proven(self, cluster: str) -> str:
        """Say why a stream has not said how far it is. Raises ``JetStreamError`` where a permission is missing."""
        reader = self._readers.get(cluster)
        failure = reader.failure if reader else None
        if isinstance(failure, DeniedError):
            raise JetStreamError(f"the stream of the cluster {cluster!r} cannot be read: {failure}")
        return str(failure or "there is no connection to the cluster")

    def is_read(self, cluster: str) -> bool:
        """Whether the stream of a cluster is read."""
        return cluster in self._readers

    async def close(self) -> None:
        """End."""
        self._closed = True
        readers = list(self._readers.values())
        self._readers.clear()
        await asyncio.gather(*(reader.close() for reader in readers))

    def _reader(self, cluster: str) -> Reader:
        reader = self._readers.get(cluster)
        if reader is None:
            apis = self._bench.jetstream_api
            reader = self._readers[cluster] = Reader(
                cluster,
                partial(self._bench.network.link, cluster),
                self._stream,
                apis.get(cluster) or apis.get("*") or "$JS.API",
                self._wide,
                self._bench.limits,
                self,
            )
            reader.start()
        return reader

    def _wide(self) -> str:
        """Give a subject that takes all records: an ID may have several tokens where it is the last one."""
        tokens = self._bench.template.split(".")
        wide = ["*" if "{" in token else token for token in tokens]
        return ".".join([*wide[:-1], ">"] if tokens[-1] == "{id}" else wide)

    # What feeds need: see ``StreamHub``.

    def event(self, event: Event) -> None:
        """Tell an event."""
        self._bench.event(event)

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        return self._bench.is_member(cluster)

    def rewind(self, cluster: str, tap: StreamTap) -> None:
        """Read again what was not taken."""
        self._reader(cluster).rewind(tap)

    def forget(self, feed: Feed[StreamTap], cluster: str, tap: StreamTap) -> None:
        """Remove a tap."""
        reader = self._readers.get(cluster)
        if reader is None or self._closed:
            return
        until = reader.remove(tap)
        if isinstance(feed, StreamFeed):
            feed.was_read(cluster, until)
        if len(reader) == 0:
            del self._readers[cluster]
            self._bench.tasks.spawn(self._end(reader))

    async def _end(self, reader: Reader) -> None:
        await reader.close()
        self._bench.network.tidy()

    def fence(self, feed: Feed[StreamTap], cluster: str, number: int) -> None:
        """Read a cluster's stream to its end, in the background."""
        if isinstance(feed, StreamFeed):
            self._bench.tasks.spawn(self._drain(feed, cluster, number))

    async def _drain(self, feed: StreamFeed, cluster: str, number: int) -> None:
        begun = time.monotonic()
        wait = _DRAIN_SECONDS
        is_overdue = False
        while (tap := feed.taps.get(cluster)) is not None:
            reader = self._reader(cluster)
            if await reader.drain(tap):
                feed.drained(cluster, number)
                return
            if time.monotonic() - max(begun, reader.answered) > self._bench.limits.drain_stream:
                if not is_overdue:
                    is_overdue = True
                    feed.overdue(cluster, number)
                if not self._bench.is_member(cluster):
                    feed.lost(cluster, number)
                    return
            await asyncio.sleep(wait)
            wait = min(wait * 2, _MOST_DRAIN_SECONDS)

    # What readers tell: see ``ReaderHost``.

    def expired(self, cluster: str, tap: StreamTap, first: int, last: int) -> None:
        """Tell a gap of the asset."""
        for feed in self._bench.feeds():
            if feed.taps.get(cluster) is tap:
                feed.gap(GapReason.EXPIRED, cluster, f"sequences {first} to {last} of the stream")

    def made_anew(self, cluster: str) -> None:
        """Tell a gap of the cluster."""
        for feed in self._bench.feeds():
            if isinstance(feed, StreamFeed):
                feed.forget_places(cluster)
        self._bench.event(Gap(GapReason.STREAM_ANEW, cluster=cluster))

    def stream_failed(self, cluster: str, reason: str, is_missing: bool) -> None:
        """Tell what is wrong. A stream that is missing before a ring is used is no fault."""
        used = [ring for ring in self._bench.known.rings if ring.view.phase != Phase.ANNOUNCED]
        if not is_missing or any(ring.servers(cluster) is not None for ring in used):
            self._bench.event(Refused(cluster, "", reason))
