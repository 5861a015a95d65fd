import random
from collections import deque
from collections.abc import Sequence

import pytest

from fanout_client.merge import Deliver, Effect, Fence, Forget, Led, Merge, Outcome, Unfenced


def merge(*owners: str, limit: int = 100) -> Merge[int]:
    return Merge(roles(owners), limit=limit, limit_bytes=10 * limit)


def roles(owners: Sequence[str], oldest: int = 0) -> list[tuple[int, str]]:
    """Owners under rings of rising epochs."""
    return list(enumerate(owners, oldest))


def test_a_move_holds_the_new_side_until_the_old_one_is_drained() -> None:
    state = merge("A", "B")
    assert state.message("A", 1, 1) == [Deliver("A", (1,))]
    assert state.message("B", 3, 1) == [Fence("A", 1)]
    assert state.message("B", 4, 1) == []
    assert state.message("A", 2, 1) == [Deliver("A", (2,))], "the old side goes on until it is drained"
    assert state.fenced(1, Outcome.DRAINED) == [Led("A", "B"), Deliver("B", (3, 4))]
    assert state.message("B", 5, 1) == [Deliver("B", (5,))]
    assert state.fenced(1, Outcome.DRAINED) == [], "an old fence changes nothing"


def test_the_old_side_is_forgotten_once_it_has_left_and_is_read_to_the_end() -> None:
    leads = merge("A", "B")
    assert leads.owners(roles("B", 1)) == [Fence("A", 1)]
    assert leads.message("A", 1, 1) == [Deliver("A", (1,))]
    assert leads.message("B", 2, 1) == []
    assert leads.fenced(1, Outcome.DRAINED) == [Led("A", "B"), Forget("A"), Deliver("B", (2,))]

    moved = merge("A", "B")
    moved.message("B", 2, 1)
    moved.fenced(1, Outcome.DRAINED)
    assert moved.owners(roles("B", 1)) == [Fence("A", 2)]
    assert moved.message("B", 3, 1) == [Deliver("B", (3,))], "who leads is not held for that"
    assert moved.fenced(2, Outcome.DRAINED) == [Forget("A")]
    assert moved.message("B", 4, 1) == [Deliver("B", (4,))]


def test_several_moves_are_gone_through_one_by_one() -> None:
    state = merge("A", "B", "C")
    assert state.message("C", 3, 1) == [Fence("A", 1)]
    assert state.fenced(1, Outcome.DRAINED) == [Led("A", "B"), Fence("B", 2)], "B may still have something"
    assert state.message("B", 2, 1) == [Deliver("B", (2,))]
    assert state.fenced(2, Outcome.DRAINED) == [Led("B", "C"), Deliver("C", (3,))]
    # And back to A.
    assert state.message("A", 4, 1) == [Fence("C", 3)]
    assert state.fenced(3, Outcome.DRAINED) == [Led("C", "A"), Deliver("A", (4,))]


def test_who_has_left_comes_before_those_that_have_not() -> None:
    state = merge("A", "B", "C")
    assert state.message("C", 3, 1) == [Fence("A", 1)]
    # A owns the asset again, under the newest ring.
    assert state.owners(roles("CA", 2)) == [Fence("B", 2)]
    assert state.message("B", 2, 1) == []
    assert state.fenced(2, Outcome.DRAINED) == [], "what is held of it comes first"
    assert state.fenced(1, Outcome.DRAINED) == [Led("A", "B"), Deliver("B", (2,)), Fence("B", 3)]
    assert state.fenced(3, Outcome.DRAINED) == [Led("B", "C"), Forget("B"), Deliver("C", (3,))]


def test_a_ring_that_was_never_used_is_forgotten() -> None:
    state = merge("A", "B")
    assert state.owners(roles("A", 2)) == [Fence("B", 1)]
    assert state.fenced(1, Outcome.DRAINED) == [Forget("B")]
    back = merge("A", "B")
    assert back.owners(roles("A", 2)) == [Fence("B", 1)]
    assert back.owners(roles("AB", 2)) == []
    assert back.fenced(1, Outcome.DRAINED) == [], "it has come back"


@pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.DOWN])
def test_without_a_fence_it_goes_on_and_says_so(outcome: Outcome) -> None:
    state = merge("A", "B")
    state.message("B", 2, 1)
    assert state.fenced(1, outcome) == [Unfenced("A", outcome), Led("A", "B"), Deliver("B", (2,))]
    assert state.owners(roles("B", 1)) == [Fence("A", 2)]
    assert state.fenced(2, outcome) == [Unfenced("A", outcome), Forget("A")]


def test_what_is_held_has_a_bound() -> None:
    by_count = merge("A", "B", limit=2)
    by_count.message("B", 1, 1)
    by_count.message("B", 2, 1)
    assert by_count.message("B", 3, 1) == [Unfenced("A", Outcome.OVERFLOW), Led("A", "B"), Deliver("B", (1, 2, 3))]
    assert (by_count.held, by_count.leader) == (0, "B")
    by_size = merge("A", "B", limit=2)
    assert Deliver("B", (1,)) in by_size.message("B", 1, 21)


@pytest.mark.parametrize("seed", range(200))
def test_any_walk_over_clusters_keeps_the_order(seed: int) -> None:
    """Records go from cluster to cluster as the rings say; channels and echoes have delays of their own.

    A cluster may lag behind by several rings. But no ring gives an asset back to a cluster while older records are
    still on their way: a ring is announced for longer than messages take.
    """
    chance = random.Random(seed)
    clusters = ["A", "B", "C", "D"]
    # Owners under rings that follow each other. The oldest ones leave when nothing is on its way under them.
    walk = [chance.choice(clusters) for _ in range(6)]
    state = merge(walk[0])
    channels: dict[str, deque[int | Fence]] = {name: deque() for name in clusters}
    tapped = {walk[0]}
    got: list[int] = []

    def perform(effects: list[Effect[int]]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                got.extend(effect.items)
            elif isinstance(effect, Fence):
                channels[effect.cluster].append(effect)
            elif isinstance(effect, Forget):
                assert not [item for item in channels[effect.cluster] if isinstance(item, int)], "lost"
                tapped.discard(effect.cluster)

    def receive() -> None:
        waiting = [name for name in clusters if channels[name]]
        if waiting:
            name = chance.choice(waiting)
            item = channels[name].popleft()
            perform(
                state.fenced(item.number, Outcome.DRAINED) if isinstance(item, Fence) else state.message(name, item, 1)
            )

    def declare(oldest: int, newest: int) -> None:
        rings = walk[oldest : newest + 1]
        perform(state.owners(roles(rings, oldest)))
        tapped.update(rings)

    sent, oldest = 0, 0
    for at in range(len(walk)):
        # Both when it is announced and when it is used.
        while set(walk[at : at + 2]) & set(walk[:at]) and any(channels.values()):
            receive()
        declare(oldest, at + 1)
        for _ in range(chance.randrange(6)):
            assert walk[at] in tapped
            channels[walk[at]].append(sent)
            sent += 1
            for _ in range(chance.randrange(3)):
                receive()
        # The server has all that was sent. That a ring is left says no more.
        oldest = chance.randrange(oldest, at + 1)
        declare(oldest, at + 1)
    declare(len(walk) - 1, len(walk))
    while any(channels.values()):
        receive()
    assert got == list(range(sent))
    assert (state.held, tapped, state.leader) == (0, {walk[-1]}, walk[-1])
