"""In the place of two names of OpenFactory: its Asset classes follow their asset by another import.

::

    from fanout_client.openfactory import NATSSubscriber, get_nats_cluster_url

The pin stands in the environment:

- ``FANOUT_BEACON_SUBJECT``, ``FANOUT_BEACON_KEY``, ``FANOUT_RING``: ``status.beacon`` of the AssetForwarder.
- ``FANOUT_SERVERS``: servers of any member, with commas between them. Without it the router is asked.
- ``FANOUT_CREDENTIALS``: a ``.creds`` file, for all clusters.
- ``FANOUT_ALLOW_HOSTS``: hosts at which the client may log in, with commas between them.

Where the pin is missing it works as the original does: it asks the router once, and does not follow. A warning says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import os
import threading
import urllib.request
import warnings
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from fanout_client import sync
from fanout_client.credentials import Credentials
from fanout_client.errors import FanoutError
from fanout_client.message import Message
from fanout_client.options import Pin

__all__ = ["AssetNATSCallback", "LoopThread", "NATSSubscriber", "NotFollowingWarning", "get_nats_cluster_url"]

_log = logging.getLogger("fanout_client.openfactory")
_ROUTER_SECONDS = 10.0
_RETRY_SECONDS = 2.0
_BATCH = 256
_STOP_SECONDS = 2.0


class NotFollowingWarning(RuntimeWarning):
    """The subscriber stays on the cluster that the router has named, also when its asset moves."""


class AssetNATSCallback(Protocol):
    """What is called with each record: its subject, and its body as parsed JSON."""

    def __call__(self, msg_subject: str, msg_value: dict[str, Any]) -> None:
        """Take a record."""


class LoopThread(Protocol):
    """What is needed of OpenFactory's ``AsyncLoopThread``: callbacks run in its loop."""

    def run_coro(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, and give a ``concurrent.futures.Future`` of it."""


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    pin: Pin
    servers: tuple[str, ...]
    credentials: Credentials | None
    allow_hosts: tuple[str, ...] | None

    @staticmethod
    def read(environment: Mapping[str, str] | None = None) -> Settings | None:
        """Read the settings. ``None``: there is no pin.

        Raises ``ValueError`` where a part of the pin is missing: a client that only seems to follow is worse than none.
        """
        values = os.environ if environment is None else environment
        names = ("FANOUT_BEACON_KEY", "FANOUT_RING", "FANOUT_BEACON_SUBJECT")
        key, ring, subject = (values.get(name, "").strip() for name in names)
        missing = [name for name in names if not values.get(name, "").strip()]
        if len(missing) == len(names):
            return None
        if missing:
            raise ValueError(f"the pin is not complete: set {', '.join(missing)} as well")
        file = values.get("FANOUT_CREDENTIALS", "").strip()
        return Settings(
            Pin(public_key=key, ring=ring, subject=subject),
            _listed(values.get("FANOUT_SERVERS", "")),
            Credentials(file=file) if file else None,
            _listed(values["FANOUT_ALLOW_HOSTS"]) if "FANOUT_ALLOW_HOSTS" in values else None,
        )


def get_nats_cluster_url(asset_uuid: str, asset_router_url: str | None = None) -> str:
    """Give the URL of a server of the cluster that owns an asset.

    With a pin and ``FANOUT_SERVERS`` the ring itself says it, else the router at ``asset_router_url`` or, without that,
    at ``ASSET_ROUTER_URL``. Raises ``ValueError`` for an answer without ``nats_url``, ``OSError`` where the router does
    not answer, or ``FanoutError``.
    """
    settings = Settings.read()
    if settings is not None and settings.servers:
        client = _CLIENTS.take(settings, settings.servers)
        try:
            # OpenFactory writes assets in capitals, whatever the program writes.
            servers = client.servers(client.owner(asset_uuid.upper()))
        finally:
            _CLIENTS.give_back(client)
        return servers[0]
    router = asset_router_url or os.environ.get("ASSET_ROUTER_URL", "")
    if urlsplit(router).scheme not in ("http", "https"):
        raise ValueError(f"the asset router's URL is {router!r}: set ASSET_ROUTER_URL to an http:// or https:// URL")
    url = f"{router.rstrip('/')}/asset/{quote(asset_uuid, safe='')}"
    with urllib.request.urlopen(url, timeout=_ROUTER_SECONDS) as response:
        answer = json.loads(response.read())
    nats_url = answer.get("nats_url") if isinstance(answer, dict) else None
    if not isinstance(nats_url, str) or not nats_url:
        raise ValueError(f"'nats_url' not found in response for asset {asset_uuid}")
    return nats_url


class NATSSubscriber:
    """Calls ``on_message`` with each record of a subject such as ``PLC-17.*``, in the loop of ``loop_thread``."""

    def __init__(
        self,
        loop_thread: LoopThread,
        servers: str | list[str],
        subject: str,
        on_message: AssetNATSCallback,
    ) -> None:
        """Take the arguments of the original. Nothing happens before ``start``."""
        self.loop_thread = loop_thread
        self.servers = servers
        self.subject = subject
        self.on_message = on_message
        self._settings = Settings.read()
        self._stopped = threading.Event()
        self._plain: NatsClient | None = None
        self._thread: threading.Thread | None = None
        self._stream: sync.Subscription | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Subscribe, and return when that is done.

        As with the original, a failure is logged and not raised. With a pin it is tried again in the background.
        """
        if self._settings is None:
            text = f"{self.subject} does not follow its asset when the ring changes: no beacon is configured"
            warnings.warn(text, NotFollowingWarning, stacklevel=2)
            self._start_plain()
            return
        first = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(self._settings, first), name=f"fanout {self.subject}", daemon=True
        )
        self._thread.start()
        first.wait()

    def stop(self) -> None:
        """Unsubscribe."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._plain is not None:
            try:
                self.loop_thread.run_coro(self._plain.close()).result()
            except Exception:
                _log.exception("failed to close the connection of %s", self.subject)
        if self._thread is not None and self._thread is not threading.current_thread():
            # Not for ever: the callback itself may have called this.
            self._thread.join(_STOP_SECONDS)

    # With a pin.

    def _follow(self, settings: Settings, first: threading.Event) -> None:
        servers = settings.servers or ((self.servers,) if isinstance(self.servers, str) else tuple(self.servers))
        asset, _, item = self.subject.partition(".")
        while not self._stopped.is_set():
            try:
                client = _CLIENTS.take(settings, servers)
            except (FanoutError, ValueError, OSError) as error:
                _log.error("failed to connect for %s: %s", self.subject, error)
                first.set()
                self._stopped.wait(_RETRY_SECONDS)
                continue
            try:
                stream = client.subscribe(asset, item or "*")
                with self._lock:
                    self._stream = stream
                    if self._stopped.is_set():
                        stream.close()
                first.set()
                self._pump(stream)
            except (FanoutError, ValueError) as error:
                _log.error("failed to subscribe to %s: %s", self.subject, error)
                first.set()
                self._stopped.wait(_RETRY_SECONDS)
            finally:
                _CLIENTS.give_back(client)

    def _pump(self, stream: sync.Subscription) -> None:
        """Hand records to the loop of the program, as many at a time as there are."""
        while not self._stopped.is_set():
            batch = stream.next_batch(_BATCH)
            if not batch:
                return
            future = self.loop_thread.run_coro(self._call(batch))
            while not self._stopped.is_set():
                try:
                    future.result(0.5)
                    break
                except (concurrent.futures.TimeoutError, asyncio.TimeoutError):
                    # The callback works, or the program has stopped its loop: then `stop` follows.
                    continue
                except concurrent.futures.CancelledError:
                    break

    async def _call(self, batch: list[Message]) -> None:
        for message in batch:
            if not self._stopped.is_set():
                self._call_one(message.subject, message.data)

    def _call_one(self, subject: str, data: bytes) -> None:
        try:
            value = json.loads(data)
        except ValueError:
            _log.error("passed over a record of %s: its body is no JSON", subject)
            return
        try:
            self.on_message(subject, value)
        except Exception:
            _log.exception("the callback has failed with a record of %s", subject)

    # Without.

    def _start_plain(self) -> None:
        try:
            self._plain = self.loop_thread.run_coro(self._connect_plain()).result()
        except Exception:
            _log.exception("failed to connect to %s for %s", self.servers, self.subject)

    async def _connect_plain(self) -> NatsClient:
        client = await nats.connect(
            self.servers,
            max_reconnect_attempts=-1,
            connect_timeout=2,
            reconnect_time_wait=1,
            error_cb=self._plain_error,
        )
        await client.subscribe(self.subject, cb=self._on_plain)
        return client

    async def _plain_error(self, error: Exception) -> None:
        _log.warning("the connection of %s: %s", self.subject, error)

    async def _on_plain(self, message: Msg) -> None:
        self._call_one(message.subject, message.data)


class _Clients:
    """One client for all subscribers of a process that declare the same. The last one closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[Settings, tuple[sync.Client, int]] = {}

    def take(self, settings: Settings, servers: tuple[str, ...]) -> sync.Client:
        # The lock is held while connecting: whoever comes meanwhile needs the same client.
        with self._lock:
            client, users = self._clients.get(settings, (None, 0))
            if client is None:
                client = sync.connect(
                    servers,
                    pin=settings.pin,
                    credentials=settings.credentials,
                    allow_hosts=settings.allow_hosts,
                )
            self._clients[settings] = (client, users + 1)
            return client

    def give_back(self, client: sync.Client) -> None:
        with self._lock:
            settings = next((key for key, (other, _) in self._clients.items() if other is client), None)
            if settings is None:
                return
            _, users = self._clients[settings]
            if users > 1:
                self._clients[settings] = (client, users - 1)
                return
            del self._clients[settings]
        client.close()


_CLIENTS = _Clients()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
