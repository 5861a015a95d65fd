"""The subjects below which a ring is announced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subjects:
    """The subjects of one beacon, below ``base``."""

    base: str

    @staticmethod
    def default_base(namespace: str, name: str) -> str:
        """Give the default base of an AssetForwarder."""
        # A dot would make another token of a name, and so a subject that another forwarder may have.
        return f"_FANOUT.{namespace}.{name.replace('.', '_')}"

    @property
    def get(self) -> str:
        """Where a subscriber asks for the announcement."""
        return f"{self.base}.get"

    @property
    def digest(self) -> str:
        """Where pods say which announcement is the newest."""
        return f"{self.base}.digest"

    @property
    def ready(self) -> str:
        """Where a subscriber asks every pod to prove that it sees the subscriber's interest."""
        return f"{self.base}.ready"

    @property
    def pods(self) -> str:
        """Where pods tell each other how far they are. Subscribers do not need it."""
        return f"{self.base}.pods"
