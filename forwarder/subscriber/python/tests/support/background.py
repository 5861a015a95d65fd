"""A rig in a thread of its own, for tests of what is not asynchronous."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from support.rig import Rig, rig

T = TypeVar("T")


class LoopThread:
    """As OpenFactory's ``AsyncLoopThread``: a loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run_coro(self, coro: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        result: T = self.run_coro(coro).result(20)
        return result

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@contextmanager
def background_rig(*names: str) -> Iterator[tuple[LoopThread, Rig]]:
    thread = LoopThread()
    manager = rig(*names)
    made = thread.run(manager.__aenter__())
    try:
        yield thread, made
    finally:
        thread.run(manager.__aexit__(None, None, None))
        thread.stop()
