"""Who a client logs in as, on which cluster, and at which hosts.

Credentials are chosen by a cluster's name in the ring. An announcement names servers, and never makes a client log
in at a host that it was not told to trust.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

_ENCRYPTED = ("tls", "wss")
_SCHEMES = ("nats", "tls", "ws", "wss")
_DEFAULT_PORT = 4222


@dataclass(frozen=True)
class Credentials:
    """How to log in: by one of these. None of them is ever shown."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    file: str | None = None
    """A ``.creds`` file."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """With a client certificate."""


EVERY = "*"
"""As a cluster's name: every cluster without an entry, and the servers that the program names itself."""

CredentialsOf: TypeAlias = Credentials | Mapping[str, Credentials] | None


@dataclass(frozen=True)
class Server:
    """A server's address."""

    url: str
    scheme: str
    host: str
    port: int

    @staticmethod
    def parse(url: str) -> Server:
        """Read ``nats://host:port`` or the like.

        Raises ``ValueError``.
        """
        text = url.strip()
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"{parts.scheme!r} is no scheme of NATS: use nats, tls, ws or wss")
        if not parts.hostname:
            raise ValueError("the URL has no host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the URL has a user or a password: give them as credentials")
        web = {"ws": 80, "wss": 443}
        port = parts.port or web.get(parts.scheme, _DEFAULT_PORT)
        host = parts.hostname.lower()
        address = f"[{host}]" if ":" in host else host
        path = parts.path if parts.scheme in web else ""
        return Server(f"{parts.scheme}://{address}:{port}{path}", parts.scheme, host, port)


@dataclass(frozen=True)
class Route:
    """To which servers a client connects, and how it logs in there."""

    servers: tuple[Server, ...]
    credentials: Credentials | None
    plain: frozenset[str]
    """The URLs at which credentials may be sent without TLS: the program has named them itself."""
    refused: tuple[tuple[str, str], ...] = ()
    """Servers that are not used, each with the reason."""


class HostPolicy:
    """Decides on servers. Pure."""

    def __init__(
        self,
        urls: Iterable[str],
        credentials: CredentialsOf = None,
        allow_hosts: Iterable[str] | None = None,
    ) -> None:
        """Trust the hosts of ``urls``, and those of ``allow_hosts``: ``host`` or ``*.domain``.

        Without ``allow_hosts`` a client connects to all hosts of the ring, and logs in at those of ``urls`` only.
        Raises ``ValueError`` for a URL that cannot be read.
        """
        self.seeds = tuple(Server.parse(url) for url in urls)
        self._own = {(server.host, server.port) for server in self.seeds}
        self._plain = frozenset(server.url for server in self.seeds if server.scheme not in _ENCRYPTED)
        self._credentials = credentials
        self._allowed = None if allow_hosts is None else tuple(host.strip().lower() for host in allow_hosts)

    def credentials(self, cluster: str) -> Credentials | None:
        """Give the credentials for a cluster, by its name in the ring."""
        if isinstance(self._credentials, Mapping):
            return self._credentials.get(cluster) or self._credentials.get(EVERY)
        return self._credentials

    def seed_route(self) -> Route:
        """Route to the servers that the program has named."""
        return Route(self.seeds, self.credentials(EVERY), self._plain)

    def route(self, cluster: str, urls: Iterable[str]) -> Route:
        """Route to a cluster whose servers an announcement names."""
        credentials = self.credentials(cluster)
        servers, refused = [], []
        for url in urls:
            try:
                server = Server.parse(url)
            except ValueError as error:
                refused.append((url, str(error)))
                continue
            reason = self._reason(server, credentials)
            if reason is None:
                servers.append(server)
            else:
                refused.append((server.url, reason))
        return Route(tuple(servers), credentials, self._plain, tuple(refused))

    def _reason(self, server: Server, credentials: Credentials | None) -> str | None:
        if (server.host, server.port) in self._own and server.url in {seed.url for seed in self.seeds}:
            return None
        allowed = any(_matches(pattern, server.host) for pattern in self._allowed or ())
        if self._allowed is None and credentials is None:
            return None
        trusted = allowed or any(server.host == host for host, _ in self._own)
        if not trusted:
            return f"the host {server.host!r} is not allowed: name it in allow_hosts"
        if credentials is not None and server.scheme not in _ENCRYPTED:
            return "credentials are sent to tls:// and wss:// servers only"
        return None


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return pattern == host
