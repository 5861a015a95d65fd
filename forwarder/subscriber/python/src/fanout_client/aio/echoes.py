"""Messages of a client to itself, which say that all before them has come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import nats.errors

from fanout_client.aio.tasks import Tasks


class Echoes:
    """The echoes of one link. Who asks in one moment shares one."""

    def __init__(self, within: float, tasks: Tasks, send: Callable[[str], Awaitable[None]]) -> None:
        """Wait ``within`` seconds for what ``send`` sends to ourselves."""
        self._within = within
        self._tasks = tasks
        self._send = send
        self._out: dict[str, asyncio.Future[None]] = {}
        self._next: asyncio.Future[None] | None = None

    async def round(self) -> None:
        """Send a message to ourselves and wait until it is back. Raises ``nats.errors.Error`` or ``OSError``."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._send_one(self._next))
        await asyncio.shield(self._next)

    def take(self, token: str) -> bool:
        """Take note of a message to ourselves. Whether it is an echo."""
        echo = self._out.get(token)
        if echo is not None and not echo.done():
            echo.set_result(None)
        return echo is not None

    def fail(self) -> None:
        """Take note that the connection is lost."""
        for echo in [*self._out.values(), *([self._next] if self._next else [])]:
            if not echo.done():
                echo.set_exception(nats.errors.ConnectionClosedError())
                # Nobody may wait for it any more.
                echo.exception()
        self._next = None

    async def _send_one(self, echo: asyncio.Future[None]) -> None:
        # Nobody else who may publish to inboxes can guess it, and so say that all has come.
        token = f"e{secrets.token_hex(16)}"
        # From here on a fence needs an echo of its own: this one is on its way.
        self._next = None
        self._out[token] = echo
        try:
            await self._send(token)
            await asyncio.wait_for(asyncio.shield(echo), self._within)
        except (asyncio.TimeoutError, nats.errors.Error, OSError) as error:
            if not echo.done():
                echo.set_exception(error if isinstance(error, nats.errors.Error) else nats.errors.TimeoutError())
                echo.exception()
        finally:
            del self._out[token]
