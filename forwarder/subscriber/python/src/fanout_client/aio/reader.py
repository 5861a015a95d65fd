"""Reads one stream of one cluster for all subscriptions of a client, by one consumer.

The consumer is the client's own, and nothing of it is needed again: where it is lost, or other subjects are read, the
next one begins behind what was had. So a lost connection costs nothing. Nothing is dropped for a program that is slow,
either: reading stops until it has room.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable

import nats.errors
from nats.aio.msg import Msg

from fanout_client.aio.jetstream import Api, DeniedError, NoStreamError, Place, StreamError, StreamInfo, shifted
from fanout_client.aio.link import Link
from fanout_client.aio.streamtap import ReaderHost, StreamTap
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tasks import Tasks
from fanout_client.options import Limits, Start
from fanout_client.wants import Want, Wants

_log = logging.getLogger("fanout_client")

_BATCH = 256
_EXPIRES_SECONDS = 10.0
_HEARTBEAT_SECONDS = 3.0
_SILENCE_SECONDS = 8.0
_CHECK_SECONDS = 1.0
_FIRST_WAIT = 0.05
_DRAINS = 64
"""How many questions for the end of a stream may be out. Each is for all records of an asset that wait."""
_TOGETHER_SECONDS = 0.00002
"""How much longer changes are awaited for each subject that is read, so that many become one consumer."""
_MARGIN_SECONDS = 1.0
"""How much earlier than it was begun a subscription begins on a cluster that it comes to later."""


class _Session:
    """One consumer."""

    def __init__(self) -> None:
        self.count = 0
        """How many records it has given."""
        self.left = 0
        """How many more it may give before it is asked again."""
        self.pending = 0
        self.heard = time.monotonic()
        self.failure: str | None = None


class Reader:
    """See the module."""

    def __init__(
        self,
        cluster: str,
        link: Callable[[], Link],
        stream: str,
        prefix: str,
        wide: Callable[[], str],
        limits: Limits,
        host: ReaderHost,
    ) -> None:
        """Read ``stream`` on ``cluster``. ``wide`` gives a subject that takes all that may be wanted."""
        self.cluster = cluster
        self.answered = time.monotonic()
        """When the cluster has answered last."""
        self.created = ""
        """When the stream was made, as its server writes it."""
        self.failure: StreamError | None = None
        self._wide = wide
        self._link = link
        self._stream = stream
        self._prefix = prefix
        self._limits = limits
        self._host = host
        self._wants: Wants[StreamTap] = Wants()
        self._streams: Counter[Subscription] = Counter()
        """The programs that read from here, each with the number of its subjects."""
        self._waiting: list[tuple[Want[StreamTap], int, asyncio.Future[None]]] = []
        self._drains = asyncio.Semaphore(_DRAINS)
        self._session: _Session | None = None
        self._wake = asyncio.Event()
        self._is_changed = False
        self._mark = 0
        """The stream's last sequence, some seconds ago."""
        self._checked = 0.0
        self._told = ""
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin to read, in the background."""
        self._tasks.spawn(self._run())

    async def close(self) -> None:
        """End."""
        await self._tasks.close()

    def __len__(self) -> int:
        return len(self._wants)

    def add(self, tap: StreamTap) -> None:
        """Read one more subject."""
        self._wants.add(tap.want)
        self._streams[tap.stream] += 1
        self._change()

    def remove(self, tap: StreamTap) -> tuple[str, int] | None:
        """Read a subject no longer, and say how far it was read."""
        self._wants.remove(tap.want)
        self._streams[tap.stream] -= 1
        if self._streams[tap.stream] <= 0:
            del self._streams[tap.stream]
        self._change()
        return None if tap.want.position is None else (self.created, tap.want.position)

    def rewind(self, tap: StreamTap) -> None:
        """Read again what ``tap`` has had no room for."""
        self._wants.rewind(tap.want)
        self._change()

    async def drain(self, tap: StreamTap) -> bool:
        """Read what the stream has of a subject by now. ``False``: it is not done yet, and may be tried again."""
        try:
            api = self._api()
            if api is None:
                return False
            async with self._drains:
                last = await api.last_of(tap.subject)
        except NoStreamError:
            # Nobody has stored anything there.
            last = 0
        except StreamError as error:
            _log.debug("failed to drain %s on %r: %s", tap.subject, self.cluster, error)
            return False
        self.answered = time.monotonic()
        if self._is_had(tap.want, last):
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (tap.want, last, reached)
        self._waiting.append(waiting)
        try:
            # Not for ever: the stream may drop the record before it is read.
            await asyncio.wait_for(reached, self._limits.answer)
        except asyncio.TimeoutError:
            return False
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return True

    def _is_had(self, want: Want[StreamTap], last: int) -> bool:
        return last == 0 or (want.position is not None and self._wants.done(want) >= last)

    def _change(self) -> None:
        self._is_changed = True
        self._wake.set()

    def _api(self) -> Api | None:
        link = self._link()
        client = link.client
        if client is None:
            return None
        return Api(client, self._prefix, self._stream, self._limits.answer, link.is_denied)

    # One consumer after the other.

    async def _run(self) -> None:
        wait = _FIRST_WAIT
        while True:
            await self._link().connected.wait()
            try:
                # An asset may have been elsewhere meanwhile, and who does not know that reads out of order.
                await asyncio.wait_for(self._link().informed.wait(), self._limits.ready)
            except asyncio.TimeoutError:
                _log.info("the cluster %r is read, and no forwarder has answered there", self.cluster)
            api = self._api()
            try:
                if api is not None and await self._read(api):
                    wait = _FIRST_WAIT
                    continue
            except StreamError as error:
                self._fail(error)
            except (asyncio.TimeoutError, nats.errors.Error, OSError) as error:
                _log.info("the stream of the cluster %r: %s", self.cluster, error or type(error).__name__)
            except Exception:
                _log.exception("failed to read the stream of the cluster %r", self.cluster)
            finally:
                self._session = None
                self._wants.stop()
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(wait * 2, self._limits.reconnect)

    def _fail(self, error: StreamError) -> None:
        self.failure = error
        is_missing = isinstance(error, NoStreamError)
        if is_missing:
            for want in self._wants.all():
                # It begins now, and there is nothing yet. What comes until the stream is seen belongs to it.
                want.reader.is_exact = False
                want.reader.proven.set()
        text = str(error)
        if text != self._told and isinstance(error, NoStreamError | DeniedError):
            self._told = text
            self._host.stream_failed(self.cluster, text, is_missing)
        _log.info("the stream of the cluster %r: %s", self.cluster, text)

    async def _read(self, api: Api) -> bool:
        """Read by one consumer until another is needed. Whether that is no failure."""
        self._is_changed = False
        self._wake.clear()
        await self._begin(api)
        plan = self._wants.plan(self._wide())
        if plan is None:
            if not self._is_changed:
                await self._wake.wait()
            return True
        session = _Session()

        async def take(message: Msg) -> None:
            self._on_message(session, message)

        inbox = api.client.new_inbox()
        subscription = await api.client.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
        consumer = await api.consumer(plan)
        self._session = session
        self._told = ""
        self.failure = None
        self._settle_waiting()
        try:
            return await self._pull(api, session, consumer, inbox)
        finally:
            self._session = None
            self._wants.stop()
            if not api.client.is_closed:
                await subscription.unsubscribe()
                await api.delete(consumer)

    async def _begin(self, api: Api) -> None:
        """Say where everything begins that does not know, and what the stream has no longer."""
        if len(self._wants) == 0:
            return
        info = await api.info()
        self.answered = time.monotonic()
        if self.created not in ("", info.created):
            self._host.made_anew(self.cluster)
            for want in self._wants.all():
                if want.position is not None:
                    want.position = 0
        self.created = info.created
        self._expire(info)
        times: dict[object, int] = {}
        for want in self._wants.all():
            if want.position is None:
                want.position = await self._place(api, want.reader, info, times)
                want.reader.proven.set()

    async def _place(self, api: Api, tap: StreamTap, info: StreamInfo, times: dict[object, int]) -> int:
        if tap.resumes is not None and tap.resumes[0] == info.created:
            return tap.resumes[1]
        if tap.start is Start.ALL:
            return max(info.first - 1, 0)
        if tap.start is Start.NEW and tap.is_exact:
            return info.last
        if isinstance(tap.start, Start):
            # Seconds that have passed, and not a time of day: the clocks of two machines differ.
            key: object = tap.begun
            when = shifted(info.now, tap.age() + _MARGIN_SECONDS)
        else:
            key = when = tap.start
        if key not in times:
            times[key] = await api.before(when)
        return times[key]

    def _expire(self, info: StreamInfo) -> None:
        self._checked = time.monotonic()
        for want, first, last in self._wants.expired(info.first):
            self._host.expired(self.cluster, want.reader, first, last)

    async def _pull(self, api: Api, session: _Session, consumer: str, inbox: str) -> bool:
        while True:
            await self._room()
            if self._is_changed:
                # A moment for those that follow.
                await asyncio.sleep(min(_FIRST_WAIT, len(self._wants) * _TOGETHER_SECONDS))
                return True
            session.left = _BATCH
            session.heard = time.monotonic()
            self._wake.clear()
            await api.pull(consumer, inbox, _BATCH, _EXPIRES_SECONDS, _HEARTBEAT_SECONDS)
            while session.left > 0 and session.failure is None and not self._is_changed:
                try:
                    await asyncio.wait_for(self._wake.wait(), _CHECK_SECONDS)
                except asyncio.TimeoutError:
                    if api.client.is_closed or time.monotonic() - session.heard > _SILENCE_SECONDS:
                        return False
                self._wake.clear()
            self.answered = time.monotonic()
            if session.failure is not None:
                _log.info("the consumer on the cluster %r is made anew: %s", self.cluster, session.failure)
                return False
            if session.pending and time.monotonic() - self._checked > _CHECK_SECONDS:
                # The stream may drop what is not read yet.
                self._expire(await api.info())
            elif session.left == 0 and not session.pending:
                await self._advance(api, session, consumer)

    async def _advance(self, api: Api, session: _Session, consumer: str) -> None:
        """Note how far a stream is read of which nothing is for us: the next consumer begins there."""
        if time.monotonic() - self._checked < _EXPIRES_SECONDS:
            return
        if await api.is_at_end(consumer, session.count):
            # What the stream had ten seconds ago, all its servers have by now.
            self._wants.read = max(self._wants.read, self._mark)
            self._settle_waiting()
        info = await api.info()
        self._mark = info.last if info.created == self.created else 0
        self._checked = time.monotonic()

    async def _room(self) -> None:
        """Wait until all programs that read from here have room, or another consumer is needed."""
        while not self._is_changed:
            full = [stream for stream in self._streams if stream.is_full]
            if not full:
                return
            self._wake.clear()
            rooms = [asyncio.ensure_future(stream.room()) for stream in full]
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait([*rooms, woken], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in [*rooms, woken]:
                    task.cancel()

    # What comes in.

    def _on_message(self, session: _Session, message: Msg) -> None:
        if session is not self._session:
            return
        session.heard = self.answered = time.monotonic()
        place = Place.of(message)
        if place is None:
            self._on_status(session, message.headers or {})
            return
        if place.consumer != session.count + 1:
            session.failure = "a record was lost on its way"
            self._wake.set()
            return
        session.count += 1
        session.left -= 1
        session.pending = place.pending
        for want in self._wants.take(place.stream, message.subject):
            if not want.reader.take(message, place):
                self._wants.refuse(want)
        if self._waiting:
            self._settle_waiting()
        if session.left <= 0:
            self._wake.set()

    def _on_status(self, session: _Session, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        if status == "100":
            return
        text = headers.get("Description", "")
        if status in ("404", "408") or "batch completed" in text.lower():
            session.left = 0
        else:
            session.failure = f"{status} {text}"
        self._wake.set()

    def _settle_waiting(self) -> None:
        for waiting in list(self._waiting):
            want, last, reached = waiting
            if self._is_had(want, last):
                self._waiting.remove(waiting)
                if not reached.done():
                    reached.set_result(None)
