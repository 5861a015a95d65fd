"""A question to forwarders that is on its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fanout_client.beacon import Announcement


@dataclass
class Asked:
    """A question that waits for one answer, or for one of each pod."""

    nonce: str
    answer: asyncio.Future[Announcement | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ready: set[str] = field(default_factory=set)
    progress: asyncio.Event = field(default_factory=asyncio.Event)
