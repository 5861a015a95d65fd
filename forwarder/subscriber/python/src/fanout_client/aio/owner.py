"""Who is told of what happens on links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fanout_client.beacon import Digest

if TYPE_CHECKING:
    from fanout_client.aio.link import Link
    from fanout_client.aio.tap import Tap


class Owner(Protocol):
    """Who is told of what happens on a link. No method may wait."""

    def link_up(self, link: Link) -> None:
        """Take note that the link is connected, for the first time or again."""

    def link_down(self, link: Link, reason: str) -> None:
        """Take note that the link has lost its connection."""

    def link_failed(self, link: Link, reason: str) -> None:
        """Take note of an attempt to connect that has failed."""

    def digest(self, link: Link, digest: Digest) -> None:
        """Take note of a digest that the pinned key has signed."""

    def unbelieved(self, subject: str, reason: str) -> None:
        """Take note of what was not believed."""

    def denied(self, link: Link, reason: str) -> None:
        """Take note that the server does not permit what the client needs."""

    def proven(self, link: Link) -> None:
        """Take note that all pods see all interest of the link."""

    def dropped(self, tap: Tap) -> None:
        """Take note of a message that the connection had no room for."""

    def pods(self) -> tuple[str, ...]:
        """Give the pods whose proof is needed."""
        ...

    def refresh(self, link: Link) -> None:
        """Ask for the announcement: the pods may be others by now."""
