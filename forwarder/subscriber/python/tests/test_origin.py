import pytest

from fanout_client.origin import Judgement, Once, Origin

NEW, REPEAT, LATE, ANEW = Judgement.NEW, Judgement.REPEAT, Judgement.LATE, Judgement.ANEW


def at(offset: int, timestamp: int | None = None, partition: int = 0) -> Origin:
    return Origin("assets", partition, offset, offset if timestamp is None else timestamp)


def judged(once: Once, *origins: Origin) -> list[Judgement]:
    return [once.judge(origin) for origin in origins]


def test_a_record_is_delivered_once() -> None:
    once = Once()
    assert judged(once, at(5), at(6), at(9), at(6), at(9), at(10)) == [NEW, NEW, NEW, REPEAT, REPEAT, NEW]
    assert judged(once, at(3)) == [REPEAT], "older than all that is remembered"
    assert judged(once, at(5, partition=1)) == [NEW], "each partition counts for itself"


def test_what_comes_late_is_told_from_a_repeat() -> None:
    assert judged(Once(), at(5), at(9), at(7), at(7), at(10)) == [NEW, NEW, LATE, REPEAT, NEW]


def test_a_topic_that_was_made_anew_is_delivered() -> None:
    once = Once()
    assert judged(once, at(5), at(6), at(0, 100), at(1, 101), at(0, 100)) == [NEW, NEW, ANEW, NEW, REPEAT]
    untimed = Origin("assets", 0, 3)
    assert judged(Once(), Origin("assets", 0, 5), untimed) == [NEW, REPEAT], "without timestamps it cannot be told"


def test_what_is_remembered_has_a_bound() -> None:
    once = Once(window=4, partitions=2)
    judged(once, *(at(offset) for offset in range(100)))
    assert judged(once, at(98), at(10)) == [REPEAT, REPEAT]
    assert judged(once, at(1, partition=1), at(1, partition=2)) == [NEW, NEW]
    assert judged(once, at(99)) == [NEW], "the partition that was quiet for longest is forgotten"


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        (
            {"Kafka-Topic": "as%25ets", "Kafka-Partition": "3", "Kafka-Offset": "7", "Kafka-Timestamp": "9"},
            Origin("as%ets", 3, 7, 9),
        ),
        ({"Kafka-Topic": "a", "Kafka-Partition": "3", "Kafka-Offset": "7"}, Origin("a", 3, 7, None)),
        ({"Nats-Msg-Id": "a.b.3.7.9"}, Origin("a.b", 3, 7, 9)),
        ({"Nats-Msg-Id": "a.3.7.-1"}, Origin("a", 3, 7, None)),
        ({"Kafka-Topic": "a", "Kafka-Partition": "x", "Kafka-Offset": "7"}, None),
        ({"Kafka-Topic": "a"}, None),
        ({"Nats-Msg-Id": "anything"}, None),
        ({"trace": "1"}, None),
        (None, None),
    ],
)
def test_the_origin_is_read_from_headers(headers: dict[str, str] | None, origin: Origin | None) -> None:
    assert Origin.of(headers) == origin
