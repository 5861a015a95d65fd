"""A connection to one cluster that comes back, with everything that is asked through it."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from fanout_client.aio.asked import Asked
from fanout_client.aio.dial import DialError, dial, shut
from fanout_client.aio.echoes import Echoes
from fanout_client.aio.owner import Owner
from fanout_client.aio.tap import Tap
from fanout_client.aio.tasks import Tasks
from fanout_client.beacon import (
    Announcement,
    Body,
    Digest,
    OpenError,
    Ready,
    Subjects,
    UnreadableError,
    UnsoundError,
    Verifier,
    request,
)
from fanout_client.credentials import Route
from fanout_client.merge import Outcome
from fanout_client.options import Limits, Pin

_log = logging.getLogger("fanout_client")

_FIRST_WAIT = 0.05
_MOST_DIGEST_SECONDS = 60.0
_DENIED = 16


class State(Enum):
    """Where a link is in its life."""

    CONNECTING = "connecting"
    """It was never up."""
    UP = "up"
    DOWN = "down"
    """It was up, and tries to be again."""
    CLOSED = "closed"


class Link:
    """See the module."""

    def __init__(
        self,
        name: str,
        route: Callable[[], Route],
        owner: Owner,
        pin: Pin,
        limits: Limits,
        tls: ssl.SSLContext | None,
        inbox_prefix: str,
    ) -> None:
        """Make a link to the cluster ``name``. ``route`` says where it is reached, before each attempt."""
        self.name = name
        self.state = State.CONNECTING
        self.connected = asyncio.Event()
        self.informed = asyncio.Event()
        """An announcement has been heard since it is connected."""
        self.last_digest = time.monotonic()
        self.rhythm = limits.digest
        self._route = route
        self._owner = owner
        self._ring = pin.ring
        self._verifier = Verifier(pin.public_key)
        self._subjects = Subjects(pin.subject)
        self._limits = limits
        self._tls = tls
        self._inbox_prefix = inbox_prefix
        self._client: NatsClient | None = None
        self._inbox = ""
        self._taps: set[Tap] = set()
        self._asked: dict[str, Asked] = {}
        self._lost = asyncio.Event()
        self._denied: deque[str] = deque(maxlen=_DENIED)
        self._tasks = Tasks()
        self._echoes = Echoes(limits.drain, self._tasks, self._send_echo)
        self._is_proving = False

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._tasks.spawn(self._run())

    async def close(self) -> None:
        """End the connection."""
        self.state = State.CLOSED
        self._fail_all()
        await self._tasks.close()
        if self._client is not None:
            await shut(self._client)

    @property
    def up(self) -> bool:
        """Whether it is connected."""
        return self.state is State.UP

    @property
    def client(self) -> NatsClient | None:
        """The connection, while it is up."""
        return self._client if self.up else None

    def is_denied(self, subject: str) -> bool:
        """Whether the server has lately said that the user may not publish to a subject."""
        return any(f'"{subject.lower()}"' in text for text in self._denied)

    @property
    def taps(self) -> int:
        """How many subjects are read through it."""
        return len(self._taps)

    @property
    def several_servers(self) -> bool:
        """Whether the cluster has more than one server, as far as the connection knows."""
        return self._client is not None and len(self._client.servers) > 1

    async def add(self, tap: Tap) -> None:
        """Read one more subject, now or as soon as the link is up."""
        self._taps.add(tap)
        if self._client is None or not self.up:
            return
        try:
            await self._subscribe(self._client, tap)
        except (nats.errors.Error, OSError) as error:
            # The connection is about to be lost. The next one subscribes to all.
            _log.debug("failed to subscribe to %s: %s", tap.subject, error)
        self._prove()

    async def remove(self, tap: Tap) -> None:
        """Read a subject no longer."""
        self._taps.discard(tap)
        subscription = tap.subscription
        tap.connected(None)
        if subscription is not None and self.up:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                _log.debug("failed to unsubscribe %s: %s", tap.subject, error)

    async def ask(self) -> Announcement | None:
        """Ask for the announcement. ``None``: nobody has answered in time."""
        client = self._client
        if client is None or not self.up:
            return None
        token, asked = self._question()
        try:
            await client.publish(self._subjects.get, request(asked.nonce), reply=f"{self._inbox}.{token}")
            return await asyncio.wait_for(asked.answer, self._limits.answer)
        except (asyncio.TimeoutError, nats.errors.Error, OSError):
            return None
        finally:
            del self._asked[token]

    async def fence(self, tap: Tap) -> Outcome:
        """Wait until all is taken that the server had accepted for ``tap``."""
        if not self.up:
            return Outcome.DOWN
        try:
            await self._echoes.round()
        except asyncio.TimeoutError:
            return Outcome.TIMED_OUT
        except (nats.errors.Error, OSError):
            return Outcome.DOWN
        await tap.drained()
        return Outcome.DRAINED if self.up else Outcome.DOWN

    # Connecting.

    async def _run(self) -> None:
        wait = _FIRST_WAIT
        while self.state is not State.CLOSED:
            try:
                await self._connect()
            except DialError as error:
                self._owner.link_failed(self, str(error))
            except Exception as error:
                _log.exception("failed to connect to the cluster %r", self.name)
                self._owner.link_failed(self, str(error))
            else:
                wait = _FIRST_WAIT
                await self._lost.wait()
                self._down()
            # Servers that come back are not met by all clients at one moment.
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(wait * 2, self._limits.reconnect)

    async def _connect(self) -> None:
        self._lost = asyncio.Event()
        client = await dial(
            self._route(),
            tls=self._tls,
            inbox_prefix=self._inbox_prefix,
            within=self._limits.dial,
            failed=self._on_error,
            closed=self._on_closed,
        )
        self._client = client
        try:
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
            await client.subscribe(self._subjects.digest, cb=self._on_digest)
            # Taps may come and go meanwhile.
            while missing := [tap for tap in self._taps if tap.subscription is None]:
                for tap in missing:
                    await self._subscribe(client, tap)
        except (nats.errors.Error, OSError) as error:
            self._client = None
            for tap in self._taps:
                tap.connected(None)
            await shut(client)
            raise DialError(str(error)) from error
        self.last_digest = time.monotonic()
        self.state = State.UP
        self.connected.set()
        self._owner.link_up(self)
        self._prove()

    def _down(self) -> None:
        self.state = State.DOWN
        self.connected.clear()
        self.informed.clear()
        error, self._client = self._client and self._client.last_error, None
        self._fail_all()
        for tap in self._taps:
            tap.connected(None)
        self._owner.link_down(self, str(error or "the server has closed the connection"))

    def _fail_all(self) -> None:
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_result(None)
            asked.progress.set()
        self._echoes.fail()

    async def _on_closed(self) -> None:
        self._lost.set()

    async def _subscribe(self, client: NatsClient, tap: Tap) -> None:
        subscription = await client.subscribe(tap.subject, cb=tap.on_message)
        if self._client is not client:
            return
        if tap in self._taps:
            tap.connected(subscription)
        else:
            await subscription.unsubscribe()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            for tap in self._taps:
                if tap.subscription is error.sub:
                    tap.dropped += 1
                    self._owner.dropped(tap)
            return
        if "permissions violation" in str(error):
            self._denied.append(str(error).lower())
            self._owner.denied(self, str(error))
            return
        if isinstance(error, nats.errors.Error | OSError):
            # What it costs is told as a gap.
            _log.info("the connection to the cluster %r: %s", self.name, error)
        else:
            _log.error("failed to take a message of the cluster %r", self.name, exc_info=error)

    # What comes in.

    def _open(self, message: Msg) -> Body | None:
        try:
            body = self._verifier.open(message.data)
        except (OpenError, UnreadableError, UnsoundError) as error:
            self._owner.unbelieved(message.subject, str(error))
            return None
        if body.ring != self._ring:
            self._owner.unbelieved(message.subject, f"it is of the ring {body.ring!r}, not of {self._ring!r}")
            return None
        return body

    async def _on_digest(self, message: Msg) -> None:
        body = self._open(message)
        if isinstance(body, Digest):
            self.last_digest = time.monotonic()
            self.rhythm = min(max(body.next_ms / 1000, 0.1), _MOST_DIGEST_SECONDS)
            self._owner.digest(self, body)

    async def _on_answer(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        if self._echoes.take(token):
            return
        asked = self._asked.get(token)
        if asked is None:
            # A pod may answer after the time limit.
            return
        if not message.data and (message.headers or {}).get("Status") == "503":
            if not asked.answer.done():
                asked.answer.set_result(None)
            return
        body = self._open(message)
        if body is None:
            return
        if not isinstance(body, Announcement | Ready) or body.nonce != asked.nonce:
            self._owner.unbelieved(message.subject, "it answers another request: its nonce is not ours")
        elif isinstance(body, Ready):
            if body.cluster == self.name:
                asked.ready.add(body.pod)
                asked.progress.set()
        elif not asked.answer.done():
            asked.answer.set_result(body)

    def _question(self) -> tuple[str, Asked]:
        # Nobody else can guess it, and so end the question.
        token = f"q{secrets.token_hex(16)}"
        asked = self._asked[token] = Asked(secrets.token_urlsafe(16))
        return token, asked

    # Fences and proofs.

    async def _send_echo(self, token: str) -> None:
        client = self._client
        if client is None or not self.up:
            raise nats.errors.ConnectionClosedError
        await client.publish(f"{self._inbox}.{token}", b"")

    def _prove(self) -> None:
        if self._taps and not self._is_proving:
            self._is_proving = True
            self._tasks.spawn(self._prove_all())

    async def _prove_all(self) -> None:
        try:
            await self._prove_until_done()
        finally:
            self._is_proving = False

    async def _prove_until_done(self) -> None:
        wait = 0.2
        while self.up:
            # One proof is for all interest that was declared before the request.
            batch = [tap for tap in self._taps if tap.subscription is not None and not tap.proven.is_set()]
            declared = [(tap, tap.subscription) for tap in batch]
            if not declared:
                return
            if await self._round():
                for tap, subscription in declared:
                    if tap.subscription is subscription:
                        tap.proven.set()
                self._owner.proven(self)
                wait = 0.2
                continue
            self._owner.refresh(self)
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._limits.reconnect)

    async def _round(self) -> bool:
        """Ask all pods once. Whether each has answered in time."""
        client = self._client
        if client is None:
            return False
        token, asked = self._question()
        try:
            await client.publish(self._subjects.ready, request(asked.nonce), reply=f"{self._inbox}.{token}")
            end = time.monotonic() + self._limits.answer
            while self.up and not (self._owner.pods() and asked.ready.issuperset(self._owner.pods())):
                asked.progress.clear()
                if asked.answer.done():
                    return False
                await asyncio.wait_for(asked.progress.wait(), end - time.monotonic())
        except (asyncio.TimeoutError, nats.errors.Error, OSError):
            return False
        finally:
            del self._asked[token]
        return self.up
