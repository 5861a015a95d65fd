"""One subject on one link, and how far it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription


class Tap:
    """One subject on one link."""

    __slots__ = ("_progress", "_take", "dropped", "handled", "proven", "subject", "subscription")

    def __init__(self, subject: str, take: Callable[[Msg], None]) -> None:
        self.subject = subject
        self.subscription: NatsSubscription | None = None
        self.handled = 0
        self.dropped = 0
        self.proven = asyncio.Event()
        self._take = take
        self._progress: asyncio.Event | None = None

    async def on_message(self, message: Msg) -> None:
        """Take a message. It never waits, so the connection's own queue stays short."""
        self.handled += 1
        try:
            self._take(message)
        finally:
            if self._progress is not None:
                self._progress.set()

    def connected(self, subscription: NatsSubscription | None) -> None:
        """Begin anew on another connection, or (``None``) wait for one."""
        self.subscription = subscription
        self.handled = self.dropped = 0
        self.proven.clear()
        if self._progress is not None:
            self._progress.set()

    async def drained(self) -> None:
        """Wait until all that has arrived by now is taken."""
        subscription = self.subscription
        target = subscription.delivered if subscription is not None else 0
        while self.subscription is subscription and self.handled + self.dropped < target:
            self._progress = asyncio.Event()
            await self._progress.wait()
