"""Reads assets' records from NATS and follows each asset when the ring of clusters changes.

``connect`` is for asyncio; ``fanout_client.sync`` is for programs without it; ``fanout_client.openfactory`` takes the
place of two names of OpenFactory.
"""

from fanout_client.aio import Client, Subscription, connect
from fanout_client.credentials import Credentials
from fanout_client.errors import (
    AssetInvalidError,
    ClosedError,
    ConnectError,
    FanoutError,
    HostRefusedError,
    JetStreamError,
)
from fanout_client.events import Event, Gap, GapReason
from fanout_client.message import Message
from fanout_client.options import Limits, Pin, Repeats, Start
from fanout_client.origin import Origin

__all__ = [
    "AssetInvalidError",
    "Client",
    "ClosedError",
    "ConnectError",
    "Credentials",
    "Event",
    "FanoutError",
    "Gap",
    "GapReason",
    "HostRefusedError",
    "JetStreamError",
    "Limits",
    "Message",
    "Origin",
    "Pin",
    "Repeats",
    "Start",
    "Subscription",
    "connect",
]
