"""Signs bodies as forwarders do."""

import base64
import json
from typing import Any

import nkeys

from fanout_client.beacon import DOMAIN
from support.vectors import beacon_vectors


class Signer:
    def __init__(self, seed: str) -> None:
        self._pair = nkeys.from_seed(seed.encode())
        self.public_key: str = self._pair.public_key.decode().rstrip("=")

    def sign(self, body: dict[str, Any]) -> bytes:
        document = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        signature = base64.urlsafe_b64encode(self._pair.sign(DOMAIN + document)).rstrip(b"=")
        return signature + b"\n" + document


def golden_signer() -> Signer:
    return Signer(beacon_vectors()["seed"])


def other_signer() -> Signer:
    return Signer(nkeys.encode_seed(bytes(range(32, 64)), nkeys.PREFIX_BYTE_USER).decode())
