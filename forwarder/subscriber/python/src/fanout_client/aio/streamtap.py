"""One subject of one stream, for one feed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from nats.aio.msg import Msg

from fanout_client.aio.jetstream import Place
from fanout_client.aio.subscription import Subscription
from fanout_client.options import StartAt
from fanout_client.wants import Want


class StreamTap:
    """One subject of one stream, for one feed."""

    def __init__(self, subject: str, stream: Subscription, take: Callable[[Msg, Place], bool], start: StartAt) -> None:
        """``take`` says whether there was room for a record."""
        self.stream = stream
        self.take = take
        self.start = start
        self.begun = (time.monotonic(), time.time())
        self.is_exact = False
        """Whether it begins with what comes next, and not at the time at which it was made."""
        self.resumes: tuple[str, int] | None = None
        """Up to where it was read in a stream that was made at a time, when it was read before."""
        self.proven = asyncio.Event()
        """It is known where it begins."""
        self.want: Want[StreamTap] = Want(subject, self)

    @property
    def subject(self) -> str:
        """What is read."""
        return self.want.subject

    def age(self) -> float:
        """Give the seconds since it was begun. A machine may have slept meanwhile, which one of the clocks shows."""
        return max(time.monotonic() - self.begun[0], time.time() - self.begun[1], 0.0)


class ReaderHost(Protocol):
    """Who is told of what happens on a stream. No method may wait."""

    def expired(self, cluster: str, tap: StreamTap, first: int, last: int) -> None:
        """Take note that the stream has dropped records that were not read."""

    def made_anew(self, cluster: str) -> None:
        """Take note that the stream was deleted and made again."""

    def stream_failed(self, cluster: str, reason: str, is_missing: bool) -> None:
        """Take note of what keeps a stream from being read. It is tried again."""
