"""Questions to JetStream's API on one connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from fanout_client.wants import Plan

_STREAM_NOT_FOUND = 10059
_NO_MESSAGE_FOUND = 10037
_IDLE_SECONDS = 60
"""How long a server keeps a consumer from which nobody reads."""


class StreamError(Exception):
    """JetStream did not answer, or did not do what it was asked. The text says what, where, and why."""


class NoStreamError(StreamError):
    """The stream is not there."""


class DeniedError(StreamError):
    """The user lacks a permission. The text names the subject."""


@dataclass(frozen=True)
class StreamInfo:
    """What a stream holds, as its leader says."""

    first: int
    last: int
    created: str
    now: datetime
    """The server's own time."""


@dataclass(frozen=True)
class Place:
    """What a consumer says of a record beside it."""

    stream: int
    """The record's sequence in the stream."""
    consumer: int
    """How many records the consumer has given by now."""
    stored: int
    """When it was stored, in nanoseconds since 1970, by the server's clock."""
    pending: int
    """How many records are behind it."""

    @staticmethod
    def of(message: Msg) -> Place | None:
        """Read it from the subject for acknowledgements. ``None``: the message is not of a consumer."""
        tokens = message.reply.split(".")
        # Nine, or eleven and more with domain and account in front.
        at = 5 if len(tokens) == 9 else 7
        if not message.reply.startswith("$JS.ACK.") or len(tokens) < at + 4:
            return None
        try:
            stream, consumer, stored, pending = map(int, tokens[at : at + 4])
        except ValueError:
            return None
        return Place(stream, consumer, stored, pending)


class Api:
    """The API of one cluster, for one stream."""

    def __init__(
        self,
        client: NatsClient,
        prefix: str,
        stream: str,
        within: float,
        is_denied: Callable[[str], bool],
    ) -> None:
        """Ask through ``client``, and wait ``within`` seconds. ``is_denied`` says what the server has refused."""
        self.client = client
        self.stream = stream
        self._prefix = prefix
        self._within = within
        self._is_denied = is_denied

    async def info(self) -> StreamInfo:
        """Ask for the state of the stream. Raises ``StreamError``."""
        answer = await self._ask(f"STREAM.INFO.{self.stream}", {})
        state = answer["state"]
        return StreamInfo(
            first=int(state["first_seq"]),
            last=int(state["last_seq"]),
            created=str(answer["created"]),
            now=_time(str(answer["ts"])) if "ts" in answer else datetime.now(timezone.utc),
        )

    async def last_of(self, subject: str) -> int:
        """Ask the stream's leader for the last sequence of a subject. 0: there is none. Raises ``StreamError``."""
        # Not a direct get: a server that lags behind the leader may answer that.
        answer = await self._ask(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": subject}, _NO_MESSAGE_FOUND)
        return int(answer["message"]["seq"]) if "message" in answer else 0

    async def before(self, time: datetime) -> int:
        """Ask for the last sequence that was stored before a time of the server. Raises ``StreamError``."""
        name = _unique(self.client)
        text = time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        answer = await self._create(name, {"deliver_policy": "by_start_time", "opt_start_time": text})
        await self.delete(name)
        return int(answer["delivered"]["stream_seq"])

    async def consumer(self, plan: Plan) -> str:
        """Make a consumer, and give its name. Raises ``StreamError``."""
        name = _unique(self.client)
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": plan.start,
            "filter_subjects": list(plan.filters),
        }
        await self._create(name, config)
        return name

    async def is_at_end(self, consumer: str, given: int) -> bool:
        """Ask whether a consumer has given all that is there, ``given`` records. Raises ``StreamError``."""
        answer = await self._ask(f"CONSUMER.INFO.{self.stream}.{consumer}", {})
        return int(answer["num_pending"]) == 0 and int(answer["delivered"]["consumer_seq"]) == given

    async def delete(self, consumer: str) -> None:
        """Let a consumer go. The server does so by itself after a while, so nobody waits for it."""
        try:
            await self.client.publish(f"{self._prefix}.CONSUMER.DELETE.{self.stream}.{consumer}")
        except (nats.errors.Error, OSError):
            return

    async def pull(self, consumer: str, reply: str, batch: int, expires: float, heartbeat: float) -> None:
        """Ask for so many records. Raises ``nats.errors.Error`` or ``OSError``."""
        wanted = {"batch": batch, "expires": _nanos(expires), "idle_heartbeat": _nanos(heartbeat)}
        subject = f"{self._prefix}.CONSUMER.MSG.NEXT.{self.stream}.{consumer}"
        await self.client.publish(subject, json.dumps(wanted).encode(), reply=reply)

    async def _create(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        fixed = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": _nanos(_IDLE_SECONDS),
            "num_replicas": 1,
            "mem_storage": True,
        }
        body = {"stream_name": self.stream, "config": {**fixed, **config}, "action": "create"}
        return await self._ask(f"CONSUMER.CREATE.{self.stream}.{name}", body)

    async def _ask(self, what: str, body: Mapping[str, Any], passed_over: int | None = None) -> dict[str, Any]:
        subject = f"{self._prefix}.{what}"
        try:
            message = await self.client.request(subject, json.dumps(body).encode(), timeout=self._within)
            answer = json.loads(message.data)
        except nats.errors.NoRespondersError:
            raise StreamError(f"nobody answers on {subject}: is JetStream on, and is its domain declared?") from None
        except (asyncio.TimeoutError, nats.errors.Error, OSError, ValueError) as error:
            if self._is_denied(subject):
                raise DeniedError(f"the user may not publish to {subject}: permit it") from None
            raise StreamError(f"failed to ask on {subject}: {error or type(error).__name__}") from error
        if not isinstance(answer, dict):
            raise StreamError(f"failed to read the answer on {subject}")
        error_of = answer.get("error")
        if error_of is not None and error_of.get("err_code") != passed_over:
            kind = NoStreamError if error_of.get("err_code") == _STREAM_NOT_FOUND else StreamError
            raise kind(f"{subject}: {error_of.get('description', error_of)}")
        return answer


def shifted(time: datetime, seconds: float) -> datetime:
    """Give a time so many seconds earlier."""
    return time - timedelta(seconds=seconds)


def _unique(client: NatsClient) -> str:
    return client.new_inbox().rpartition(".")[2]


def _nanos(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _time(text: str) -> datetime:
    # Nanoseconds are more than Python reads.
    whole, _, rest = text.rstrip("Z").partition(".")
    micros = int(rest[:6].ljust(6, "0")) if rest[:6].isdigit() else 0
    return datetime.fromisoformat(whole).replace(microsecond=micros, tzinfo=timezone.utc)
