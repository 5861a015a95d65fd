"""Where a message comes from in Kafka, and whether it was there before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote

TOPIC = "Kafka-Topic"
PARTITION = "Kafka-Partition"
OFFSET = "Kafka-Offset"
TIMESTAMP = "Kafka-Timestamp"
MESSAGE_ID = "Nats-Msg-Id"
MIRRORED = "Fanout-Mirrored"


def is_copy(headers: Mapping[str, str] | None) -> bool:
    """Tell whether a message is a copy for who stays at an asset's former cluster. Copies may have holes."""
    return headers is not None and MIRRORED in headers


class Origin(NamedTuple):
    """A record's place in Kafka. ``timestamp`` is in milliseconds since 1970; ``None``: it has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None = None

    @staticmethod
    def of(headers: Mapping[str, str] | None) -> Origin | None:
        """Read a message's origin. ``None``: the message does not say, or not soundly."""
        if not headers:
            return None
        try:
            topic = headers.get(TOPIC)
            if topic is not None:
                timestamp = headers.get(TIMESTAMP)
                return Origin(
                    unquote(topic) if "%" in topic else topic,
                    int(headers[PARTITION]),
                    int(headers[OFFSET]),
                    None if timestamp is None else int(timestamp),
                )
            if MESSAGE_ID in headers:
                topic, partition, offset, millis = headers[MESSAGE_ID].rsplit(".", 3)
                # As in Kafka's own format, -1 is no timestamp.
                return Origin(unquote(topic), int(partition), int(offset), None if millis == "-1" else int(millis))
        except (KeyError, ValueError):
            return None
        return None


class Judgement(Enum):
    """What a message is, by its origin."""

    NEW = "new"
    """It was not there before, and is in order."""
    REPEAT = "repeat"
    """It was there before, or is older than all that is remembered."""
    LATE = "late"
    """It was not there before, and a younger one was."""
    ANEW = "anew"
    """Its topic was made anew: offsets have begun again."""


class _Partition:
    """The youngest offsets of a partition that were delivered, each with its timestamp."""

    __slots__ = ("last", "newest", "recent")

    def __init__(self, origin: Origin) -> None:
        self.last = origin.offset
        self.newest = origin.timestamp
        self.recent = OrderedDict({origin.offset: origin.timestamp})


class Once:
    """Tells repeats of one asset's records. What it remembers has a bound."""

    def __init__(self, window: int = 256, partitions: int = 64) -> None:
        """Remember ``window`` offsets of each of ``partitions`` partitions."""
        self._window = window
        self._most = partitions
        self._partitions: OrderedDict[tuple[str, int], _Partition] = OrderedDict()

    def judge(self, origin: Origin) -> Judgement:
        """Judge a message that is about to be delivered, and remember it."""
        key = (origin.topic, origin.partition)
        partition = self._partitions.get(key)
        if partition is None:
            self._begin(key, origin)
            return Judgement.NEW
        if origin.offset > partition.last:
            self._remember(partition, origin)
            return Judgement.NEW
        if partition.recent.get(origin.offset, ...) == origin.timestamp:
            return Judgement.REPEAT
        if origin.timestamp is not None and partition.newest is not None and origin.timestamp > partition.newest:
            self._begin(key, origin)
            return Judgement.ANEW
        if origin.offset in partition.recent or origin.offset < min(partition.recent):
            return Judgement.REPEAT
        self._remember(partition, origin)
        return Judgement.LATE

    def is_forgotten(self, origin: Origin) -> bool:
        """Whether a message is older than all that is remembered, so that nothing is known of it."""
        partition = self._partitions.get((origin.topic, origin.partition))
        return partition is not None and origin.offset < min(partition.recent)

    def _begin(self, key: tuple[str, int], origin: Origin) -> None:
        self._partitions[key] = _Partition(origin)
        self._partitions.move_to_end(key)
        if len(self._partitions) > self._most:
            self._partitions.popitem(last=False)

    def _remember(self, partition: _Partition, origin: Origin) -> None:
        partition.recent[origin.offset] = origin.timestamp
        if len(partition.recent) > self._window:
            partition.recent.popitem(last=False)
        partition.last = max(partition.last, origin.offset)
        if origin.timestamp is not None:
            partition.newest = max(partition.newest or origin.timestamp, origin.timestamp)
