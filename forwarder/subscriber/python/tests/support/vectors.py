"""The golden vectors of this checkout."""

import json
from pathlib import Path
from typing import Any

_FORWARDER = Path(__file__).resolve().parents[4]


def ring_vectors() -> Any:
    return json.loads((_FORWARDER / "core/tests/data/ring-vectors.json").read_text())


def beacon_vectors() -> Any:
    return json.loads((_FORWARDER / "beacon/vectors.json").read_text())
