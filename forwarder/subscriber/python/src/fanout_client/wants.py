"""What is read of one stream: which subjects, and from where. Pure: no socket, no clock.

One consumer reads all subjects of a client on a cluster. When it is made anew it begins at the lowest place that any
of them needs. What the others have had already is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

_MOST_FILTER_BYTES = 256 << 10
"""Longest list of subjects that one consumer gets. The server takes 1 MiB for a request."""
_MOST_CACHED = 100_000

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A consumer: its first sequence, and its subjects."""

    start: int
    filters: tuple[str, ...]


class _Shape(NamedTuple):
    """Where a filter has its wildcards. All filters of one shape are found by one look."""

    tokens: int
    wild: tuple[int, ...]
    has_tail: bool

    @staticmethod
    def of(subject: str) -> _Shape:
        tokens = subject.split(".")
        has_tail = tokens[-1] == ">"
        if has_tail:
            tokens.pop()
        return _Shape(len(tokens), tuple(at for at, part in enumerate(tokens) if part == "*"), has_tail)

    def filter_of(self, tokens: list[str]) -> str | None:
        """Give the only filter of this shape that takes a subject. ``None``: there can be none."""
        if len(tokens) <= self.tokens if self.has_tail else len(tokens) != self.tokens:
            return None
        masked = tokens[: self.tokens]
        for at in self.wild:
            masked[at] = "*"
        return ".".join([*masked, ">"] if self.has_tail else masked)


class Want(Generic[T]):
    """One subject that is read for one reader."""

    __slots__ = ("is_covered", "is_short", "position", "reader", "subject")

    def __init__(self, subject: str, reader: T, position: int | None = None) -> None:
        self.subject = subject
        self.reader = reader
        self.position = position
        """The last sequence that it has had. ``None``: where it begins is not known yet."""
        self.is_covered = False
        """Whether the consumer of now reads it."""
        self.is_short = False
        """It has refused a record, and gets nothing before ``Wants.rewind``."""


class Wants(Generic[T]):
    """See the module."""

    def __init__(self) -> None:
        self.read = 0
        """The last sequence that the consumer of now has given, or would have."""
        self._wants: dict[str, dict[Want[T], None]] = {}
        self._shapes: dict[_Shape, int] = {}
        self._cache: dict[str, tuple[Want[T], ...]] = {}

    def all(self) -> list[Want[T]]:
        """Give all of them."""
        return [want for wants in self._wants.values() for want in wants]

    def __len__(self) -> int:
        return sum(len(wants) for wants in self._wants.values())

    def add(self, want: Want[T]) -> None:
        """Read one more."""
        wants = self._wants.setdefault(want.subject, {})
        if not wants:
            shape = _Shape.of(want.subject)
            self._shapes[shape] = self._shapes.get(shape, 0) + 1
        wants[want] = None
        self._cache.clear()

    def remove(self, want: Want[T]) -> None:
        """Read it no longer. What it has had stays in its ``position``."""
        wants = self._wants.get(want.subject, {})
        if want not in wants:
            return
        want.position = self.done(want)
        want.is_covered = False
        del wants[want]
        if not wants:
            del self._wants[want.subject]
            shape = _Shape.of(want.subject)
            self._shapes[shape] -= 1
            if not self._shapes[shape]:
                del self._shapes[shape]
        self._cache.clear()

    def done(self, want: Want[T]) -> int:
        """Up to which sequence it has had all that is its own."""
        position = want.position or 0
        return max(position, self.read) if want.is_covered and not want.is_short else position

    def stop(self) -> None:
        """Take note that the consumer is gone."""
        for want in self.all():
            if want.position is not None:
                want.position = self.done(want)
            want.is_covered = False

    def plan(self, wide: str) -> Plan | None:
        """Say which consumer is needed now, after ``stop``. ``wide``: a subject that takes all of them."""
        placed = [want for want in self.all() if want.position is not None and not want.is_short]
        if not placed:
            return None
        for want in placed:
            want.is_covered = True
        start = min(want.position or 0 for want in placed)
        self.read = start
        filters = self._without_overlap({want.subject for want in placed})
        if sum(map(len, filters)) > _MOST_FILTER_BYTES:
            filters = [wide]
        return Plan(start + 1, tuple(filters))

    def take(self, sequence: int, subject: str) -> tuple[Want[T], ...]:
        """Take note of a record of the consumer, and say who has not had it."""
        if sequence <= self.read:
            return ()
        self.read = sequence
        wants = self._cache.get(subject)
        if wants is None:
            wants = self._find(subject)
        return tuple(
            want for want in wants if want.is_covered and not want.is_short and (want.position or 0) < sequence
        )

    def refuse(self, want: Want[T]) -> None:
        """Take note that the record that was taken last had no room, so that it comes again."""
        want.position = max(want.position or 0, self.read - 1)
        want.is_short = True

    def rewind(self, want: Want[T]) -> None:
        """Read it again with the next consumer, from what it has refused."""
        want.is_short = False
        want.is_covered = False

    def expired(self, first: int) -> list[tuple[Want[T], int, int]]:
        """Say who needs records that the stream has no longer, from where to where. They go on behind them."""
        gone = []
        for want in self.all():
            if want.position is not None and self.done(want) + 1 < first:
                gone.append((want, self.done(want) + 1, first - 1))
                want.position = first - 1
        return gone

    def _find(self, subject: str) -> tuple[Want[T], ...]:
        tokens = subject.split(".")
        filters = (shape.filter_of(tokens) for shape in self._shapes)
        found = tuple(want for name in filters if name is not None for want in self._wants.get(name, ()))
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        self._cache[subject] = found
        return found

    def _without_overlap(self, subjects: set[str]) -> list[str]:
        """Leave out what another subject takes too: servers refuse such consumers."""
        if len(self._shapes) == 1:
            return sorted(subjects)
        return sorted(subject for subject in subjects if not self._is_within_another(subject, subjects))

    def _is_within_another(self, subject: str, subjects: set[str]) -> bool:
        tokens = subject.split(".")
        if tokens[-1] == ">":
            # Only a wider tail takes two tokens more.
            tokens[-1:] = ["*", "*"]
        names = (shape.filter_of(tokens) for shape in self._shapes)
        return any(name != subject and name in subjects for name in names)
