use super::*;
use crate::intake::starts::Place;

fn partition(number: i32) -> PartitionId {
    PartitionId::new(Input::FIRST, number).unwrap()
}

/// Kafka has said where partition 0 begins, and not where partition 1 does.
fn begin() -> Begin {
    Begin {
        places: vec![Place {
            partition: partition(0),
            ring: 0,
            members: None,
            using: None,
            start: Start {
                offset: Some(7),
                committed: true,
                fault: None,
                away: Vec::new(),
                lanes: Vec::new(),
            },
            later: None,
        }],
        group_partitions: Some(2),
        ..Begin::untold(Input::FIRST, vec![partition(1)])
    }
}

/// Whether it is held back at that time.
fn is_held(identity: &mut Identity, now: Instant) -> bool {
    let mut begins = [begin()];
    identity.hold_back(&mut begins, now);
    let [begin] = begins;
    let all = begin.places.iter().map(|place| place.partition);
    let mut all: Vec<_> = all.chain(begin.unanswered).collect();
    all.sort();
    assert_eq!(all, [partition(0), partition(1)], "none is forgotten");
    assert_eq!(begin.places.is_empty(), begin.group_partitions.is_none());
    begin.places.is_empty()
}

#[test]
fn a_topic_that_has_appeared_begins_when_its_id_is_told() {
    let mut identity = Identity::default();
    let now = Instant::now();
    assert!(is_held(&mut identity, now));
    assert!(is_held(&mut identity, now + ID_TIMEOUT / 2));
    identity.ids.insert(Input::FIRST, "id".to_owned());
    assert!(!is_held(&mut identity, now + ID_TIMEOUT / 2));
}

#[test]
fn a_broker_without_ids_holds_up_no_topic_for_long() {
    let mut identity = Identity::default();
    let now = Instant::now();
    assert!(is_held(&mut identity, now));
    assert!(!is_held(&mut identity, now + ID_TIMEOUT));
}

#[test]
fn a_topic_that_kafka_does_not_have_is_not_waited_for_yet() {
    let mut identity = Identity::default();
    let now = Instant::now();
    identity.hold_back(&mut [Begin::untold(Input::FIRST, vec![partition(0)])], now);
    assert!(identity.asked_at.is_empty());
}
