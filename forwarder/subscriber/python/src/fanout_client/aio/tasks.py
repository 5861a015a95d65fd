"""Tasks in the background, none of which fails without a word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_CANCEL_SECONDS = 0.1

_log = logging.getLogger("fanout_client")


class Tasks:
    """Tasks that end with their owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background. What it raises is logged."""
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Cancel all tasks and wait for their end."""
        self._closed = True
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            # Again and again: before Python 3.12 `wait_for` loses a cancellation that comes together with its result.
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the client has failed", exc_info=error)
