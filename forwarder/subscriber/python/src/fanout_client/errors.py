"""What can go wrong for the caller. What goes wrong on the way is an event: see ``fanout_client.events``."""

from __future__ import annotations


class FanoutError(Exception):
    """Base of all errors of this package that a caller may want to catch."""


class ConnectError(FanoutError):
    """No forwarder has answered through the given servers. The text says why."""


class HostRefusedError(FanoutError):
    """The ring names servers to which this client may not connect, or may not send its credentials."""


class JetStreamError(FanoutError):
    """The stream cannot be read, or the forwarder has changed between core NATS and JetStream. The text says why."""


class AssetInvalidError(FanoutError, ValueError):
    """No subject can be made of the asset or the ID."""


class ClosedError(FanoutError):
    """The client has been closed."""
