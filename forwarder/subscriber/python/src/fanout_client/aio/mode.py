"""What a client does in one way over core NATS, and in another one over streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from fanout_client.aio.feed import Feed
from fanout_client.aio.network import Network
from fanout_client.aio.subscription import Subscription
from fanout_client.aio.tasks import Tasks
from fanout_client.beacon import Known, Learned
from fanout_client.events import Event
from fanout_client.options import Limits, Repeats, StartAt
from fanout_client.subject import subject_of

AnyFeed: TypeAlias = Feed[Any]


@dataclass(frozen=True)
class Bench:
    """What both ways work with."""

    network: Network
    limits: Limits
    repeats: Repeats
    event: Callable[[Event], None]
    tasks: Tasks
    feeds: Callable[[], list[AnyFeed]]
    """All feeds that are read."""
    jetstream_api: dict[str, str]
    """What subjects of JetStream's API begin with, by a cluster's name, with ``*`` for the rest."""

    @property
    def known(self) -> Known:
        """What is known of the ring."""
        return self.network.known

    @property
    def template(self) -> str:
        """The template of records' subjects."""
        return self.known.publishing.subject if self.known.publishing else ""

    def subject(self, feed: AnyFeed) -> str:
        """Give the subject of a feed. Raises ``AssetInvalidError``."""
        return subject_of(self.template, feed.asset, feed.item)

    def is_member(self, cluster: str) -> bool:
        """Whether a cluster is in any ring that is not left."""
        return self.known.servers(cluster) is not None


class Mode(Protocol):
    """One of the two ways."""

    @property
    def stream(self) -> str | None:
        """The name of the stream. ``None``: core NATS."""
        ...

    def feed(self, asset: str, item: str, stream: Subscription, start: StartAt) -> AnyFeed:
        """Make a feed. Raises ``ValueError``."""
        ...

    async def follow(self, feed: AnyFeed) -> None:
        """Tap all owners of a feed's asset."""

    async def resubscribe(self, feed: AnyFeed) -> None:
        """Read what the forwarder publishes under now. Raises ``AssetInvalidError``."""

    def learned(self, feed: AnyFeed, learned: Learned) -> None:
        """Tell what a feed may miss by what was learned."""

    def why_not_proven(self, cluster: str) -> str:
        """Say why a cluster has not proved in time that nothing is missed. Raises ``JetStreamError``."""
        ...

    def is_read(self, cluster: str) -> bool:
        """Whether the stream of a cluster is read."""
        ...

    async def close(self) -> None:
        """End."""
