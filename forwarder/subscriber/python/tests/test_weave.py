"""One order out of several streams."""

import random
from dataclasses import dataclass, field

import pytest

from fanout_client.merge import Deliver, Forget
from fanout_client.weave import Ask, Effect, Line, Rewind, Unordered, Weave

LINE = Line("assets", 3)
OTHER = Line("alarms", 0)


def weave(*owners: str, limit: int = 1_000, limit_bytes: int = 1_000) -> Weave[int]:
    return Weave(owners, limit=limit, limit_bytes=limit_bytes)


def take(state: Weave[int], cluster: str, offset: int, line: Line = LINE) -> list[Effect[int]]:
    return state.message(cluster, offset, 1, line, offset)


def test_one_stream_is_handed_on() -> None:
    state = weave("A")
    assert take(state, "A", 5) == [Deliver("A", (5,))]
    assert take(state, "A", 4) == [Deliver("A", (4,))], "a repeat is judged elsewhere"
    assert state.held == 0


def test_a_record_waits_until_the_other_stream_is_read_as_far_as_it_was() -> None:
    state = weave("A", "B")
    assert take(state, "B", 3) == [Ask("A", 1)]
    assert take(state, "B", 4) == []
    # The question had been asked before the second one came.
    assert state.drained(1) == [Deliver("B", (3,)), Ask("A", 2)]
    assert take(state, "B", 5) == []
    assert state.drained(1) == [], "an old answer changes nothing"
    assert state.drained(2) == [Deliver("B", (4,)), Ask("A", 3)]


def test_what_is_behind_something_younger_needs_no_question() -> None:
    state = weave("A", "B")
    assert take(state, "B", 3) == [Ask("A", 1)]
    assert take(state, "A", 1) == [Deliver("A", (1,))]
    assert take(state, "A", 5) == [Deliver("B", (3,)), Ask("B", 2)]
    assert state.drained(2) == [Deliver("A", (5,))]


def test_a_cluster_that_leaves_is_read_to_its_end_and_forgotten() -> None:
    state = weave("A", "B")
    assert take(state, "B", 2) == [Ask("A", 1)]
    assert state.owners(["B"]) == [], "it is asked already"
    assert state.drained(1) == [Ask("A", 2), Deliver("B", (2,))], "and once more, since that was before it left"
    assert take(state, "A", 1) == [Ask("B", 3)]
    assert state.drained(2) == []
    assert state.drained(3) == [Deliver("A", (1,)), Forget("A")]
    assert state.clusters == ("B",)
    assert take(state, "A", 9) == [Deliver("A", (9,))], "what was on its way within the process is not lost"


def test_who_comes_back_is_not_forgotten() -> None:
    state = weave("A", "B")
    assert state.owners(["B"]) == [Ask("A", 1)]
    assert state.owners(["A", "B"]) == []
    assert state.drained(1) == []
    assert state.clusters == ("A", "B")


def test_a_cluster_that_is_overdue_is_not_waited_for_and_may_come_back() -> None:
    state = weave("A", "B")
    assert take(state, "B", 2) == [Ask("A", 1)]
    assert state.overdue(1) == [Deliver("B", (2,))]
    assert take(state, "B", 3) == [Deliver("B", (3,))]
    assert take(state, "A", 1) == [Ask("B", 2)]
    assert state.drained(2) == [Deliver("A", (1,))], "late, but there"
    assert state.drained(1) == []
    assert take(state, "B", 4) == [Ask("A", 3)], "it is waited for again"


def test_a_cluster_that_is_lost_is_forgotten_and_what_it_gave_is_delivered() -> None:
    state = weave("A", "B")
    assert take(state, "A", 1) == [Ask("B", 1)]
    assert state.owners(["B"]) == [Ask("A", 2)]
    assert state.lost(2) == []
    assert state.drained(1) == [Deliver("A", (1,)), Forget("A")]


def test_what_is_held_has_a_bound_and_the_rest_is_read_again() -> None:
    state = weave("A", "B", limit=2)
    take(state, "B", 3)
    take(state, "B", 4)
    assert not state.accepts("B")
    assert state.accepts("A")
    assert state.drained(1) == [Deliver("B", (3,)), Ask("A", 2), Rewind("B")]
    assert state.accepts("B")
    by_size = weave("A", "B", limit_bytes=1)
    take(by_size, "B", 3)
    assert not by_size.accepts("B")


def test_two_clusters_that_wait_for_each_other_go_on_out_of_order() -> None:
    state = weave("A", "B", limit=1)
    assert take(state, "A", 1, LINE) == [Ask("B", 1)]
    assert take(state, "B", 1, OTHER) == [Unordered("A"), Deliver("B", (1,))]


@dataclass
class World:
    """Streams as forwarders fill them, and a client that reads them when it likes."""

    chance: random.Random
    limit: int
    walk: list[str]
    streams: dict[str, list[int]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    asked: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    got: list[int] = field(default_factory=list)
    short: set[str] = field(default_factory=set)
    tapped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.state: Weave[int] = weave(self.walk[0], limit=self.limit)
        self.tapped.add(self.walk[0])

    def stream(self, cluster: str) -> list[int]:
        return self.streams.setdefault(cluster, [])

    def perform(self, effects: list[Effect[int]]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                self.got.extend(effect.items)
            elif isinstance(effect, Ask):
                self.asked[effect.number] = (effect.cluster, None)
            elif isinstance(effect, Rewind):
                self.short.discard(effect.cluster)
            elif isinstance(effect, Forget):
                self.tapped.discard(effect.cluster)
            else:
                raise AssertionError(effect)

    def learn(self, oldest: int, newest: int) -> None:
        owners = self.walk[oldest : newest + 1]
        self.perform(self.state.owners(owners))
        self.tapped.update(owners)

    def step(self) -> bool:
        """The client reads a record, gets an answer, or notices that it has read as far as that."""
        readable = [name for name in self.tapped - self.short if self.read.get(name, 0) < len(self.stream(name))]
        steps = [*sorted(readable), *sorted(self.asked)]
        steps = [step for step in steps if isinstance(step, str) or self.can_answer(step)]
        if not steps:
            return False
        step = self.chance.choice(steps)
        if isinstance(step, int):
            self.answer(step)
            return True
        if not self.state.accepts(step):
            self.short.add(step)
            return True
        at = self.read.get(step, 0)
        self.read[step] = at + 1
        self.perform(take(self.state, step, self.stream(step)[at]))
        return True

    def can_answer(self, number: int) -> bool:
        cluster, last = self.asked[number]
        return last is None or self.read.get(cluster, 0) >= last

    def answer(self, number: int) -> None:
        cluster, last = self.asked[number]
        if last is None:
            self.asked[number] = (cluster, len(self.stream(cluster)))
        else:
            del self.asked[number]
            self.perform(self.state.drained(number))


@pytest.mark.parametrize("seed", range(300))
def test_any_walk_over_clusters_keeps_the_order_however_late_it_is_read(seed: int) -> None:
    """Records go from stream to stream as the rings say. The client hears of all rings, and reads whenever it likes."""
    chance = random.Random(seed)
    clusters = ["A", "B", "C", "D"]
    walk = [chance.choice(clusters) for _ in range(7)]
    world = World(chance, chance.choice([1, 2, 1_000]), walk)
    laziness = chance.choice([0, 1, 4])
    sent, oldest = 0, 0
    for at in range(len(walk)):
        world.learn(oldest, min(at + 1, len(walk) - 1))
        for _ in range(chance.randrange(6)):
            # A forwarder's successor stores what it does not know to be stored.
            offset = max(sent - chance.choice([0, 0, 0, 2]), 0)
            world.stream(walk[at]).extend(range(offset, sent + 1))
            sent += 1
            for _ in range(laziness and chance.randrange(laziness)):
                world.step()
        oldest = chance.randrange(oldest, at + 1)
    world.learn(len(walk) - 1, len(walk) - 1)
    while world.step():
        pass
    # Repeats are judged by what is behind it.
    first = list(dict.fromkeys(world.got))
    assert first == list(range(sent))
    assert (world.state.held, world.tapped, world.short) == (0, {walk[-1]}, set())
