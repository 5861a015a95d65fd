"""The client for programs without asyncio: an event loop in a thread of its own behind plain methods."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from fanout_client import aio
from fanout_client.credentials import CredentialsOf
from fanout_client.errors import ClosedError
from fanout_client.events import Event, EventsDropped, Gap, GapReason
from fanout_client.message import Message
from fanout_client.options import Limits, Pin, Repeats, Start, StartAt

__all__ = ["Client", "Event", "EventsDropped", "Gap", "GapReason", "Subscription", "connect"]

T = TypeVar("T")
_log = logging.getLogger("fanout_client")
_STOP_SECONDS = 5.0


def connect(
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
    """Connect as ``fanout_client.connect`` does, and wait for it. It raises the same errors."""
    loop = _LoopThread()
    try:
        client = loop.run(
            aio.connect(
                urls,
                pin=pin,
                credentials=credentials,
                allow_hosts=allow_hosts,
                repeats=repeats,
                tls=tls,
                inbox_prefix=inbox_prefix,
                jetstream_api=jetstream_api,
                limits=limits,
            )
        )
    except BaseException:
        loop.stop()
        raise
    return Client(client, loop)


class _LoopThread:
    """An event loop that runs in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fanout-client", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if not self._thread.is_alive():
            work.close()
            raise ClosedError("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        future = self.submit(work)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def call(self, what: Callable[[], None]) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(what)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.close()


class Subscription:
    """An ordered stream of records. Iterate over it in one thread; ``close`` may come from any other."""

    def __init__(self, inner: aio.Subscription, loop: _LoopThread) -> None:
        """Use ``Client.subscribe``."""
        self._inner = inner
        self._loop = loop
        # Hops between threads cost more than records do, so a hop takes many.
        self._batch: deque[Message] = deque()

    def next(self, timeout: float | None = None) -> Message | None:
        """Wait for the next record. ``None``: there will be none.

        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        if not self._batch:
            self._batch.extend(self.next_batch(timeout=timeout))
        return self._batch.popleft() if self._batch else None

    def next_batch(self, most: int = 256, timeout: float | None = None) -> list[Message]:
        """Wait for records, and take up to ``most`` of them. An empty list: there will be none.

        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        try:
            return self._loop.run(self._within(most, timeout))
        except (ClosedError, concurrent.futures.CancelledError):
            return []

    def __iter__(self) -> Iterator[Message]:
        while (message := self.next()) is not None:
            yield message

    def close(self) -> None:
        """End the subscription. What has come already can still be read."""
        self._loop.call(self._inner.close)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _within(self, most: int, timeout: float | None) -> list[Message]:
        try:
            return await asyncio.wait_for(self._inner.next_batch(most), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"no record has come within {timeout} s") from None


class Client:
    """Use ``connect``. Its methods may be called from any thread."""

    def __init__(self, inner: aio.Client, loop: _LoopThread) -> None:
        self._inner = inner
        self._loop = loop
        self._closed = False

    def subscribe(
        self,
        asset: str,
        id: str = "*",
        callback: Callable[[Message], None] | None = None,
        start: StartAt = Start.NEW,
    ) -> Subscription:
        """Subscribe as the client for asyncio does. A ``callback`` is called with each record, in a thread of its own.

        What a callback raises is logged, and the next record follows.
        """
        return self.subscribe_many([asset], id, callback, start)

    def subscribe_many(
        self,
        assets: Iterable[str],
        id: str = "*",
        callback: Callable[[Message], None] | None = None,
        start: StartAt = Start.NEW,
    ) -> Subscription:
        """Subscribe to many assets in one stream. Each asset keeps its own order."""
        stream = Subscription(self._loop.run(self._inner.subscribe_many(assets, id, start)), self._loop)
        if callback is not None:
            thread = threading.Thread(
                target=_call_with_each, args=(stream, callback), name="fanout-client-callback", daemon=True
            )
            thread.start()
        return stream

    def events(self) -> Iterator[Event]:
        """Iterate over what happens: see ``fanout_client.events``. It ends when the client is closed."""
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event. ``None``: there will be none. Raises ``TimeoutError``."""
        try:
            return self._loop.run(self._event_within(timeout))
        except (ClosedError, concurrent.futures.CancelledError):
            return None

    def owner(self, asset: str) -> str:
        """Name of the cluster that owns an asset under the ring in use."""
        return self._loop.run(self._owner(asset))

    def servers(self, cluster: str) -> tuple[str, ...]:
        """Where a cluster is reached, as the newest ring says."""
        return self._loop.run(self._servers(cluster))

    def close(self) -> None:
        """End all subscriptions and connections, and the thread."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._inner.close())
            self._loop.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _owner(self, asset: str) -> str:
        return self._inner.owner(asset)

    async def _servers(self, cluster: str) -> tuple[str, ...]:
        return self._inner.servers(cluster)

    async def _event_within(self, timeout: float | None) -> Event | None:
        try:
            return await asyncio.wait_for(self._inner.next_event(), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"no event has come within {timeout} s") from None


def _call_with_each(stream: Subscription, callback: Callable[[Message], None]) -> None:
    for message in stream:
        try:
            callback(message)
        except Exception:
            _log.exception("the callback has failed with a record of %s", message.subject)
