"""Hands the records of one asset to a program: each once, with events where something is odd."""

from __future__ import annotations

import copy
from collections.abc import Callable

from fanout_client.aio.subscription import Subscription
from fanout_client.events import AtLeastOnce, Event, Late, Moved, TopicAnew
from fanout_client.message import Message
from fanout_client.options import Repeats
from fanout_client.origin import Judgement, Once, Origin


class Delivery:
    """See the module."""

    def __init__(self, asset: str, stream: Subscription, repeats: Repeats, event: Callable[[Event], None]) -> None:
        self._asset = asset
        self._stream = stream
        self._repeats = repeats
        self._event = event
        self._once = Once()
        self._behind: dict[str, Once] = {}
        """What was known when others went on without a cluster."""
        self._last_cluster = ""
        self._has_no_origin = False

    def left_behind(self, cluster: str) -> None:
        """Take note that others go on without a cluster, so that its records come late."""
        self._behind.setdefault(cluster, copy.deepcopy(self._once))

    def caught_up(self, cluster: str) -> None:
        """Take note that a cluster's records are in order again."""
        self._behind.pop(cluster, None)

    def is_wanted(self, record: Message) -> bool:
        """Judge a record that is next, and tell events of it."""
        origin = record.origin
        if origin is not None and not self._is_judged_so(record, origin):
            return False
        if record.cluster != self._last_cluster:
            if self._last_cluster:
                self._event(Moved(self._asset, self._last_cluster, record.cluster))
            self._last_cluster = record.cluster
        return not self._stream.closed

    def without_origin(self) -> None:
        """Tell once that repeats cannot be told."""
        if not self._has_no_origin:
            self._has_no_origin = True
            self._event(AtLeastOnce())

    def _is_judged_so(self, record: Message, origin: Origin) -> bool:
        is_old = bool(self._behind) and self._is_old(record, origin)
        judgement = Judgement.LATE if is_old else self._once.judge(origin)
        if judgement is Judgement.REPEAT and self._repeats is Repeats.DROP:
            return False
        if judgement is Judgement.LATE:
            self._event(Late(self._asset, record.cluster, origin.topic, origin.partition, origin.offset))
        elif judgement is Judgement.ANEW:
            self._event(TopicAnew(self._asset, origin.topic, origin.partition))
        return True

    def _is_old(self, record: Message, origin: Origin) -> bool:
        """Tell whether a record of a cluster that was left behind is older than all that is remembered, and new."""
        behind = self._behind.get(record.cluster)
        if behind is None or not self._once.is_forgotten(origin):
            return False
        return behind.judge(origin) is not Judgement.REPEAT
