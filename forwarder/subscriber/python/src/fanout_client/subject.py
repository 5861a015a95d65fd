"""Subjects of records: the forwarder's template, filled for one asset."""

from __future__ import annotations

import re

from fanout_client.errors import AssetInvalidError

_MAX_BYTES = 4000
_PLACES = re.compile(r"\{key\}|\{id\}")


def subject_of(template: str, asset: str, item: str) -> str:
    """Fill the template. ``item`` is an ID, ``*`` for IDs of one token, or ``>`` where the template ends in ``{id}``.

    Raises ``AssetInvalidError``.
    """
    if not _is_clean(asset):
        raise AssetInvalidError(f"no subject can be made of the asset {asset!r}")
    if item == ">" and not (template.endswith(".{id}") and template.count("{id}") == 1):
        raise AssetInvalidError(f"the ID '>' needs a subject that ends in '.{{id}}', not {template!r}")
    if item == "*" and any("{id}" in token != "{id}" for token in template.split(".")):
        raise AssetInvalidError(f"the ID '*' needs a subject with '{{id}}' as a token, not {template!r}")
    if item not in ("*", ">") and not _is_clean(item):
        raise AssetInvalidError(f"no subject can be made of the ID {item!r}")
    # In one pass, so that no part of an asset is taken for a place.
    subject = _PLACES.sub(lambda place: asset if place[0] == "{key}" else item, template)
    if len(subject.encode()) > _MAX_BYTES:
        raise AssetInvalidError("the subject is too long")
    return subject


def _is_clean(text: str) -> bool:
    tokens_are_there = all(text.split("."))
    return tokens_are_there and not any(char in "*>" or char <= " " or "\x7f" <= char <= "\x9f" for char in text)
