"""Signed bodies: the signature in base64url without padding, a line feed, then the JSON that it is of.

What is signed is ``DOMAIN`` and then the JSON's bytes.
"""

from __future__ import annotations

import base64
import binascii
import json

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from fanout_client.beacon.body import Body, UnreadableError, UnsoundError, body_of

DOMAIN = b"fanout-beacon-1\n"
"""What is signed before the JSON."""

MAX_BYTES = 1 << 20
"""Longest body that is looked at, in bytes."""

_SIGNATURE_BYTES = 64
_PUBLIC_BYTES = 35


class KeyInvalidError(ValueError):
    """The text is no public nkey of a user. The key itself is never repeated."""


class OpenError(ValueError):
    """Why a body is not believed."""


class TooLongError(OpenError):
    """The body has more than ``MAX_BYTES``."""


class UnsignedError(OpenError):
    """There is no signature in front."""


class ForgedError(OpenError):
    """Somebody else has signed it, or it was changed."""


class Verifier:
    """Opens bodies that one key has signed."""

    def __init__(self, public_key: str) -> None:
        """Verify by ``public_key`` (``U...``). Blanks around it are passed over.

        Raises ``KeyInvalidError``.
        """
        self._key = VerifyKey(_public(public_key.strip()))

    def open(self, signed: bytes) -> Body:
        """Give the body, where the key has signed it.

        Raises ``OpenError``, ``UnreadableError`` or ``UnsoundError``: it is to be passed over.
        """
        if len(signed) > MAX_BYTES:
            raise TooLongError(f"the body has {len(signed)} bytes, more than {MAX_BYTES}")
        text, found, document = signed.partition(b"\n")
        if not found:
            raise UnsignedError("the body has no signature")
        try:
            self._key.verify(DOMAIN + document, _signature(text))
        except BadSignatureError:
            raise ForgedError("the signature is not of the expected key") from None
        try:
            parsed = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise UnreadableError("the signed body cannot be read: it is no JSON") from error
        return body_of(parsed)


def _signature(text: bytes) -> bytes:
    try:
        signature = base64.urlsafe_b64decode(text + b"==")
    except (ValueError, binascii.Error):
        raise UnsignedError("the body has no signature") from None
    # The decoder passes over what is no base64. There is one way to write a signature.
    if len(signature) != _SIGNATURE_BYTES or base64.urlsafe_b64encode(signature).rstrip(b"=") != text:
        raise UnsignedError("the body has no signature")
    return signature


def _public(text: str) -> bytes:
    try:
        decoded = base64.b32decode(text + "=" * (-len(text) % 8))
    except (ValueError, binascii.Error):
        decoded = b""
    checked, checksum = decoded[:-2], decoded[-2:]
    if (
        not text.startswith("U")
        or len(decoded) != _PUBLIC_BYTES
        or nkeys.crc16(checked).to_bytes(2, "little") != checksum
    ):
        raise KeyInvalidError("the key is no public nkey of a user: it must begin with U")
    return checked[1:]


__all__ = [
    "DOMAIN",
    "MAX_BYTES",
    "ForgedError",
    "KeyInvalidError",
    "OpenError",
    "TooLongError",
    "UnreadableError",
    "UnsignedError",
    "UnsoundError",
    "Verifier",
]
