"""A record, as a subscriber gets it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fanout_client.origin import Origin


# Not frozen: that would take longer to make than all the rest of it.
@dataclass(slots=True)
class Message:
    """A record."""

    asset: str
    """The asset that was subscribed to: the record's key."""
    subject: str
    data: bytes
    headers: dict[str, str] | None
    cluster: str
    """The cluster that it came from."""
    origin: Origin | None
    """Its place in Kafka. ``None``: the message does not say."""

    def json(self) -> Any:
        """Give the body as parsed JSON. Raises ``ValueError``."""
        return json.loads(self.data)
