"""One connection to one server, without reconnecting: ``Link`` makes a new one, and says what that costs."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client as NatsClient

from fanout_client.credentials import Credentials, Route, Server

_log = logging.getLogger("fanout_client")

_CLOSE_SECONDS = 1.0
_PING_SECONDS = 15
_PINGS_WITHOUT_ANSWER = 2


class PlainTextError(nats.errors.Error):
    """The server does not speak TLS, so the credentials are not sent."""


class DialError(Exception):
    """No server of a cluster could be reached. The text says why, by server."""


class _Guarded(NatsClient):
    """Sends no credentials in clear text, whatever the server says of TLS."""

    def __init__(self, needs_tls: bool) -> None:
        super().__init__()
        self._needs_tls = needs_tls

    def _connect_command(self) -> bytes:
        # The last moment before the login. Until here the server alone has chosen between TLS and clear text.
        info = self._server_info
        scheme = self._current_server.uri.scheme if self._current_server else ""
        if self._needs_tls and not (info.get("tls_required") or scheme == "wss"):
            raise PlainTextError("nats: the server does not speak TLS, so the credentials are not sent")
        return super()._connect_command()


Failed = Callable[[Exception], Awaitable[None]]
Closed = Callable[[], Awaitable[None]]


async def dial(
    route: Route,
    *,
    tls: ssl.SSLContext | None,
    inbox_prefix: str,
    within: float,
    failed: Failed,
    closed: Closed,
) -> NatsClient:
    """Connect to one of a route's servers.

    Raises ``DialError``.
    """
    if not route.servers:
        reasons = "; ".join(f"{url}: {reason}" for url, reason in route.refused)
        raise DialError(f"no server may be used: {reasons}" if reasons else "no server is known")
    errors = []
    for server in random.sample(route.servers, len(route.servers)):
        try:
            return await _dial_one(server, route, tls, inbox_prefix, within, failed, closed)
        except Exception as error:
            errors.append(f"{server.url}: {str(error) or type(error).__name__}")
    raise DialError("; ".join(errors))


async def shut(client: NatsClient) -> None:
    """Close a connection. A transport that failed in the middle of TLS may never say that it is closed."""
    try:
        await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
    except Exception as error:
        _log.debug("failed to close a connection: %s", error)


async def _dial_one(
    server: Server,
    route: Route,
    tls: ssl.SSLContext | None,
    inbox_prefix: str,
    within: float,
    failed: Failed,
    closed: Closed,
) -> NatsClient:
    login = route.credentials or Credentials()
    needs_tls = server.scheme in ("tls", "wss") or (route.credentials is not None and server.url not in route.plain)
    client = _Guarded(needs_tls)
    last: list[Exception] = []
    is_open = False

    async def end() -> None:
        # An attempt that fails is closed as well.
        if is_open:
            await closed()

    async def note(error: Exception) -> None:
        # The client says "no servers" where it knows better.
        if client.is_connected:
            await failed(error)
        else:
            last.append(error)

    try:
        await asyncio.wait_for(
            client.connect(
                servers=[server.url],
                name="fanout-client",
                error_cb=note,
                closed_cb=end,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, round(within)),
                ping_interval=_PING_SECONDS,
                max_outstanding_pings=_PINGS_WITHOUT_ANSWER,
                inbox_prefix=inbox_prefix,
                tls=login.tls or tls,
                user=login.user,
                password=login.password,
                token=login.token,
                user_credentials=login.file,
                nkeys_seed_str=login.nkey_seed,
            ),
            within,
        )
    except BaseException as error:
        await shut(client)
        if isinstance(error, nats.errors.NoServersError) and last:
            raise last[-1] from error
        raise
    if client.is_closed:
        raise nats.errors.ConnectionClosedError
    is_open = True
    return client
