"""What forwarders tell subscribers of their ring: subjects, signed bodies, and what a subscriber makes of them.

Pure: no socket, no clock. The same contract is the Rust crate ``forwarder-beacon``; both pass ``vectors.json``.
"""

from fanout_client.beacon.body import (
    MAX_RINGS,
    Announcement,
    Body,
    ClusterView,
    Digest,
    Phase,
    Publishing,
    Ready,
    RingView,
    Statement,
    UnreadableError,
    UnsoundError,
    body_of,
    request,
)
from fanout_client.beacon.known import Known, KnownRing, Learned, OtherRingError
from fanout_client.beacon.signed import (
    DOMAIN,
    MAX_BYTES,
    ForgedError,
    KeyInvalidError,
    OpenError,
    TooLongError,
    UnsignedError,
    Verifier,
)
from fanout_client.beacon.subjects import Subjects

__all__ = [
    "DOMAIN",
    "MAX_BYTES",
    "MAX_RINGS",
    "Announcement",
    "Body",
    "ClusterView",
    "Digest",
    "ForgedError",
    "KeyInvalidError",
    "Known",
    "KnownRing",
    "Learned",
    "OpenError",
    "OtherRingError",
    "Phase",
    "Publishing",
    "Ready",
    "RingView",
    "Statement",
    "Subjects",
    "TooLongError",
    "UnreadableError",
    "UnsignedError",
    "UnsoundError",
    "Verifier",
    "body_of",
    "request",
]
