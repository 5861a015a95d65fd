import dataclasses
import json

import pytest

from fanout_client.beacon import (
    MAX_BYTES,
    Announcement,
    Digest,
    ForgedError,
    KeyInvalidError,
    OpenError,
    Phase,
    Subjects,
    TooLongError,
    UnreadableError,
    UnsoundError,
    Verifier,
    body_of,
    request,
)
from support.signer import golden_signer, other_signer
from support.vectors import beacon_vectors


def test_bodies_are_opened_as_the_vectors_say() -> None:
    vectors = beacon_vectors()
    signer = golden_signer()
    assert signer.public_key == vectors["publicKey"]
    verifier = Verifier(f" {vectors['publicKey']}\n")
    kinds = set()
    for signed in vectors["signed"]:
        assert signer.sign(signed["body"]) == signed["text"].encode()
        opened = verifier.open(signed["text"].encode())
        assert opened == body_of(signed["body"])
        kinds.add(type(opened).__name__)
    assert kinds == {"Announcement", "Digest", "Ready", "Statement"}


def test_an_announcement_is_read_field_by_field() -> None:
    vectors = beacon_vectors()
    told = Verifier(vectors["publicKey"]).open(vectors["signed"][0]["text"].encode())
    assert isinstance(told, Announcement)
    assert (told.ring, told.nonce, told.left) == ("2f6c1e0a-0000-4000-8000-000000000001", "n-1", 7)
    assert [(ring.epoch, ring.phase, ring.replicas) for ring in told.rings] == [
        (7, Phase.IN_USE, 128),
        (8, Phase.ANNOUNCED, 128),
    ]
    newest = told.rings[1].clusters
    assert [cluster.name for cluster in newest] == ["C1", "C2", "Zürich"]
    assert (newest[1].weight, newest[1].servers) == (2, ("nats://c2.plant.example:4222",))
    assert (told.publishing.subject, told.publishing.stream, told.publishing.origin) == ("{key}.{id}", None, True)
    assert told.pods == ("assets-0", "assets-1")


def test_what_is_refused_is_refused_for_its_reason() -> None:
    vectors = beacon_vectors()
    verifier = Verifier(vectors["publicKey"])
    assert vectors["refused"]
    for refused in vectors["refused"]:
        with pytest.raises((OpenError, UnreadableError, UnsoundError), match=refused["why"]):
            verifier.open(refused["text"].encode())
    with pytest.raises(TooLongError):
        verifier.open(b"a" * (MAX_BYTES + 1))


def test_each_byte_that_somebody_changes_is_noticed() -> None:
    vectors = beacon_vectors()
    verifier = Verifier(vectors["publicKey"])
    sound = vectors["signed"][1]["text"].encode()
    for at in range(len(sound)):
        changed = bytearray(sound)
        changed[at] ^= 1
        with pytest.raises(OpenError):
            verifier.open(bytes(changed))
    # The decoder of base64 passes over blanks.
    with pytest.raises(OpenError):
        verifier.open(b" " + sound)


def test_another_key_signs_nothing_that_is_believed() -> None:
    body = {"kind": "digest", "ring": "r", "epoch": 9, "hash": "", "pod": "p", "sequence": 1, "nextMs": 1}
    other = other_signer()
    with pytest.raises(ForgedError):
        Verifier(golden_signer().public_key).open(other.sign(body))
    opened = Verifier(other.public_key).open(other.sign(body))
    assert opened == Digest(ring="r", epoch=9, hash="", pod="p", sequence=1, next_ms=1)


@pytest.mark.parametrize("key", ["", "UAB", "SU", beacon_vectors()["publicKey"][:-1] + "A"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(KeyInvalidError):
        Verifier(key)


@pytest.mark.parametrize(
    "change",
    [{"epoch": "9"}, {"epoch": True}, {"epoch": -1}, {"epoch": 1 << 64}, {"epoch": None}, {"hash": 1}, {"kind": "x"}],
)
def test_fields_of_another_type_are_unreadable(change: dict[str, object]) -> None:
    body = {"kind": "digest", "ring": "r", "epoch": 9, "hash": "", "pod": "p", "sequence": 1, "nextMs": 1}
    assert isinstance(body_of({**body, "later": 1}), Digest), "what is not known is passed over"
    with pytest.raises(UnreadableError):
        body_of({**body, **change})


def test_a_body_cannot_be_changed() -> None:
    body = body_of({"kind": "ready", "ring": "r", "nonce": "n", "pod": "p", "cluster": "C1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        body.ring = "x"  # type: ignore[misc]


def test_subjects_are_below_the_base() -> None:
    subjects = Subjects(Subjects.default_base("plant", "line.1"))
    assert subjects.get == "_FANOUT.plant.line_1.get"
    assert [subjects.digest, subjects.ready, subjects.pods] == [
        f"_FANOUT.plant.line_1.{name}" for name in ("digest", "ready", "pods")
    ]
    assert json.loads(request("n-1")) == {"nonce": "n-1"}
