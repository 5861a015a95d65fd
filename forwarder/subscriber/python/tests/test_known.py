from dataclasses import replace

import pytest

from fanout_client.beacon import (
    MAX_RINGS,
    Announcement,
    ClusterView,
    Known,
    OtherRingError,
    Phase,
    Publishing,
    RingView,
)
from fanout_client.ring import RingError

THREE = ("C1", "C2", "C3")
FOUR = ("C1", "C2", "C3", "C4")
IN_USE, ANNOUNCED, LEAVING = Phase.IN_USE, Phase.ANNOUNCED, Phase.LEAVING


def view(epoch: int, phase: Phase, clusters: tuple[str, ...]) -> RingView:
    members = tuple(ClusterView(name, 1, (f"nats://{name}-{epoch}",)) for name in clusters)
    return RingView(epoch, phase, 64, members)


def told(left: int, *rings: RingView) -> Announcement:
    return Announcement("r", rings, Publishing("{key}.{id}", None, True), left=left, pods=("a",))


def epochs(known: Known) -> list[tuple[int, Phase]]:
    return [(ring.view.epoch, ring.view.phase) for ring in known.rings]


def test_a_change_is_learned_in_its_steps() -> None:
    known = Known("r")
    first = known.learn(told(7, view(7, IN_USE, THREE)))
    assert (first.new, first.in_use, first.publishing) == ([7], [7], True)

    both = told(7, view(7, IN_USE, THREE), view(8, ANNOUNCED, FOUR))
    announced = known.learn(both)
    assert (announced.new, announced.in_use) == ([8], [])
    assert known.current is known.in_use is known.rings[0]
    moved = next(asset for asset in (f"a{n}" for n in range(1_000)) if len(known.owners(asset)) == 2)
    assert known.owners(moved)[1] == "C4", "only the new member takes assets"

    in_use = known.learn(told(7, view(7, LEAVING, THREE), view(8, IN_USE, FOUR)))
    assert (in_use.new, in_use.in_use, in_use.left) == ([], [8], [])
    assert known.servers("C1") == ("nats://C1-8",)

    left = known.learn(told(8, view(8, IN_USE, FOUR)))
    assert left.left == [7]
    assert known.owners(moved) == ("C4",)

    assert not known.learn(both), "what somebody sends again changes nothing"
    assert epochs(known) == [(8, IN_USE)]


def test_answers_of_pods_that_know_different_things_come_to_the_same_in_any_order() -> None:
    ahead = told(7, view(7, LEAVING, THREE), view(8, IN_USE, FOUR))
    behind = told(7, view(7, IN_USE, THREE), view(8, ANNOUNCED, FOUR))
    new = told(0, view(8, ANNOUNCED, FOUR))
    for order in ((ahead, behind, new), (new, behind, ahead), (behind, new, ahead)):
        known = Known("r")
        for each in order:
            known.learn(each)
        assert epochs(known) == [(7, LEAVING), (8, IN_USE)]


def test_another_ring_and_another_content_of_one_epoch_teach_nothing() -> None:
    known = Known("r")
    known.learn(told(0, view(7, IN_USE, THREE)))
    with pytest.raises(OtherRingError):
        known.learn(replace(told(9, view(9, IN_USE, FOUR)), ring="x"))
    assert known.learn(told(0, view(7, IN_USE, FOUR))).contradicted == 7
    with pytest.raises(RingError):
        known.learn(told(9, view(9, IN_USE, ("C1", "C1"))))
    assert epochs(known) == [(7, IN_USE)]
    assert len(known.rings[0].view.clusters) == 3


def test_what_is_kept_has_a_bound() -> None:
    known = Known("r")
    for epoch in range(1, 201):
        known.learn(told(0, view(epoch, IN_USE, THREE)))
    assert len(known.rings) == MAX_RINGS
    assert known.rings[-1].view.epoch == 200
