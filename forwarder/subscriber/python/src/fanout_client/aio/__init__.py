"""The client for asyncio."""

from fanout_client.aio.client import Client, connect
from fanout_client.aio.subscription import Subscription

__all__ = ["Client", "Subscription", "connect"]
