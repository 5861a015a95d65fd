"""Where a program reads records: a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from fanout_client.message import Message


class Subscription:
    """An ordered stream of records. Iterate over it with ``async for``."""

    def __init__(self, limit: int, limit_bytes: int, on_close: Callable[[Subscription], None]) -> None:
        """Use ``Client.subscribe``."""
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._closed = False
        self._on_close = on_close

    def offer(self, message: Message) -> bool:
        """Add a record. ``False``: there is no room, and it is dropped. For the client's own use."""
        if len(self._queue) >= self._limit or self._bytes + len(message.data) > self._limit_bytes:
            return False
        self.put(message)
        return True

    def put(self, message: Message) -> None:
        """Add a record, also where there is no room. For the client's own use: it waits for ``room`` before."""
        if not self._queue:
            self._wake.set()
        self._queue.append(message)
        self._bytes += len(message.data)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a record, however short."""
        return not self._closed and (len(self._queue) >= self._limit or self._bytes >= self._limit_bytes)

    async def room(self) -> None:
        """Wait until the program has taken records. For the client's own use."""
        while self.is_full:
            self._has_room.clear()
            await self._has_room.wait()

    async def next_batch(self, most: int = 256) -> list[Message]:
        """Wait for records, and take up to ``most`` of them. An empty list: the subscription is closed."""
        while not self._queue:
            if self._closed:
                return []
            self._wake.clear()
            await self._wake.wait()
        return [self._take() for _ in range(min(most, len(self._queue)))]

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._take()

    @property
    def closed(self) -> bool:
        """Whether no further record comes."""
        return self._closed

    def close(self) -> None:
        """End the subscription. What has come already can still be read."""
        if not self._closed:
            self._closed = True
            self._wake.set()
            self._has_room.set()
            self._on_close(self)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> Message:
        message = self._queue.popleft()
        self._bytes -= len(message.data)
        if not self._has_room.is_set():
            self._has_room.set()
        return message
