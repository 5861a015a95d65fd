import pytest

from fanout_client.ring import MAX_NODES, Ring, RingError
from support.vectors import ring_vectors


def test_owners_are_those_of_the_golden_vectors() -> None:
    vectors = ring_vectors()
    assert len(vectors) > 2
    for vector in vectors:
        weights = vector.get("weights", {})
        ring = Ring(((name, weights.get(name, 1)) for name in vector["clusters"]), vector["replicas"])
        assert {key: ring.owner(key) for key in vector["expect"]} == vector["expect"]


def test_a_weight_is_as_many_virtual_nodes() -> None:
    heavy = Ring([("C1", 3), ("C2", 1)], 32)
    owned = sum(heavy.owner(f"a{number}") == "C1" for number in range(2_000))
    assert 1_200 < owned < 1_800


@pytest.mark.parametrize(
    ("members", "replicas", "why"),
    [
        ([], 1, "no members"),
        ([("C1", 1)], 0, "0 replicas"),
        ([("", 1)], 1, "empty name"),
        ([("C1", 0)], 1, "weight 0"),
        ([("C1", 1), ("C1", 2)], 1, "more than one member named 'C1'"),
        ([("C1", 2)], MAX_NODES, "virtual nodes"),
    ],
)
def test_members_that_make_no_ring_are_refused(members: list[tuple[str, int]], replicas: int, why: str) -> None:
    with pytest.raises(RingError, match=why):
        Ring(members, replicas)
