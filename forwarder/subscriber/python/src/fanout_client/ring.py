"""Who owns an asset: a consistent hash ring over the members' names.

Virtual node ``r`` of member ``n`` sits at the SHA-256 of the text ``{n}::{r}``, read as a big-endian integer of
256 bits. A member has ``replicas`` x ``weight`` virtual nodes. A key belongs to the first virtual node strictly
after its own SHA-256, wrapping around. Nothing else takes part.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable

MAX_NODES = 1 << 20
"""Most virtual nodes that a ring may have."""


class RingError(ValueError):
    """Members make no ring."""


class Ring:
    """An immutable ring. It takes 16 bytes a virtual node."""

    __slots__ = ("_heads", "_names", "_owners", "_replicas")

    def __init__(self, members: Iterable[tuple[str, int]], replicas: int) -> None:
        """Make a ring of ``members``, each a name and a weight.

        Raises ``RingError`` where they make no ring.
        """
        listed = list(members)
        _check(listed, replicas)
        nodes = []
        for owner, (name, weight) in enumerate(listed):
            prefix = hashlib.sha256(f"{name}::".encode())
            for replica in range(replicas * weight):
                position = prefix.copy()
                position.update(str(replica).encode())
                nodes.append((position.digest(), name, owner, replica))
        # Two nodes at one position would be a collision of SHA-256. By name, even that would not depend on the listing.
        nodes.sort()
        self._names = [name for name, _ in listed]
        self._heads = array("Q", (int.from_bytes(node[0][:8], "big") for node in nodes))
        self._owners = array("I", (node[2] for node in nodes))
        self._replicas = array("I", (node[3] for node in nodes))

    def owner(self, key: str | bytes) -> str:
        """Name of the member that owns ``key``."""
        digest = hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()
        head = int.from_bytes(digest[:8], "big")
        node = bisect_left(self._heads, head)
        # The whole position is computed anew where the leading 64 bits do not tell.
        while node < len(self._heads) and self._heads[node] == head and self._position(node) <= digest:
            node += 1
        return self._names[self._owners[node if node < len(self._owners) else 0]]

    @property
    def names(self) -> list[str]:
        """The members' names, as they were listed."""
        return list(self._names)

    def _position(self, node: int) -> bytes:
        name = self._names[self._owners[node]]
        return hashlib.sha256(f"{name}::{self._replicas[node]}".encode()).digest()


def _check(members: list[tuple[str, int]], replicas: int) -> None:
    if not members:
        raise RingError("the ring has no members")
    if replicas < 1:
        raise RingError("the ring has 0 replicas")
    names = set()
    nodes = 0
    for number, (name, weight) in enumerate(members):
        if not name:
            raise RingError(f"member {number} of the ring has an empty name")
        if weight < 1:
            raise RingError(f"member {name!r} of the ring has weight 0")
        if name in names:
            raise RingError(f"the ring has more than one member named {name!r}")
        names.add(name)
        nodes += replicas * weight
    if nodes > MAX_NODES:
        raise RingError(f"the ring has {nodes} virtual nodes, more than {MAX_NODES}")
