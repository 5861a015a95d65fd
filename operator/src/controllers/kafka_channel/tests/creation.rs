//! Whether a channel has created its topic.

use crds::kafka_channel::{CreationState, TopicCreation};

use super::super::creation::{
    NotOurs, Whose, asks_for_id, awaits_id, begun, can_be_outcome, done, gives_id, has_begun, whose,
};
use super::*;

/// A topic with this ID, in the Kafka `cluster`. Without an ID: the brokers have not told it in time.
fn with_id(cluster: &str, id: Option<&str>) -> Seen {
    let id = id.map_or(TopicId::NotYet, |id| TopicId::Told(id.to_owned()));
    identified(cluster, id)
}

fn identified(cluster: &str, id: TopicId) -> Seen {
    let mut seen = seen(2, &[]);
    seen.cluster_id = Some(cluster.to_owned());
    if let Some(topic) = &mut seen.topic {
        topic.id = id;
    }
    seen
}

/// The record of a topic that was made, begun at second 100; with the ID that was seen.
fn created(seen: &Seen) -> TopicCreation {
    done(&begun(seen, at(100)), seen, seen.topic.as_ref())
}

fn topic_of(seen: &Seen) -> &SeenTopic {
    seen.topic.as_ref().unwrap()
}

#[test]
fn only_the_topic_that_was_made_is_ours() {
    let made = with_id("k", Some("1"));
    let record = created(&made);
    assert_eq!(record.begun_at, None, "its ID is known");
    // However long ago.
    let whose = |record: Option<&TopicCreation>, seen: &Seen| whose(record, seen, topic_of(seen), at(99_999));
    assert_eq!(whose(Some(&record), &made), Whose::Ours);
    assert_eq!(whose(None, &made), Whose::NotOurs(NotOurs::NoRecord));
    let begun = begun(&made, at(1));
    assert_eq!(whose(Some(&begun), &made), Whose::NotOurs(NotOurs::NoRecord));
    let other = with_id("k", Some("2"));
    assert_eq!(whose(Some(&record), &other), Whose::NotOurs(NotOurs::Another));
    for id in [TopicId::NotYet, TopicId::Never] {
        let untold = identified("k", id);
        assert_eq!(whose(Some(&record), &untold), Whose::Untold, "that is no other ID");
    }
}

#[test]
fn an_id_is_taken_into_the_record_only_soon_after_the_creation() {
    let made = with_id("k", Some("1"));
    let record = created(&with_id("k", None));
    assert_eq!(
        (record.topic_id.as_deref(), &record.begun_at),
        (None, &Some(at(100).to_string()))
    );
    let whose_at = |record: &TopicCreation, seen: &Seen, now: i64| whose(Some(record), seen, topic_of(seen), at(now));
    assert_eq!(whose_at(&record, &made, 700), Whose::Ours);
    assert!(gives_id(&record, &made, topic_of(&made), at(700)));
    assert_eq!(done(&record, &made, made.topic.as_ref()), created(&made));

    let late = Whose::NotOurs(NotOurs::Unidentified);
    assert_eq!(
        whose_at(&record, &made, 701),
        late,
        "somebody may have made it anew since"
    );
    assert!(!gives_id(&record, &made, topic_of(&made), at(701)));
    let of_an_older_operator = TopicCreation {
        begun_at: None,
        ..record.clone()
    };
    assert_eq!(whose_at(&of_an_older_operator, &made, 100), late);
    assert!(!gives_id(&of_an_older_operator, &made, topic_of(&made), at(100)));
    let of_no_known_kafka = TopicCreation {
        cluster_id: None,
        ..record.clone()
    };
    assert_eq!(whose_at(&of_no_known_kafka, &made, 100), late);
    let mut unnamed = made.clone();
    unnamed.cluster_id = None;
    assert_eq!(whose_at(&of_no_known_kafka, &unnamed, 700), Whose::Ours);
    assert_eq!(whose_at(&of_no_known_kafka, &unnamed, 701), late);

    let elsewhere = with_id("other", Some("1"));
    assert_eq!(whose_at(&record, &elsewhere, 100), Whose::NotOurs(NotOurs::Another));
    assert_eq!(whose_at(&record, &with_id("k", None), 99_999), Whose::Untold);
    let mut nowhere = made;
    nowhere.cluster_id = None;
    assert_eq!(whose_at(&record, &nowhere, 100), Whose::Untold);
}

#[test]
fn brokers_that_tell_no_ids_at_all_leave_only_the_kafka_to_compare() {
    let made = identified("k", TopicId::Never);
    let record = created(&made);
    let whose = |seen: &Seen| whose(Some(&record), seen, topic_of(seen), at(99_999));
    assert_eq!(whose(&made), Whose::Ours);
    let elsewhere = identified("other", TopicId::Never);
    assert_eq!(whose(&elsewhere), Whose::NotOurs(NotOurs::Another));
}

#[test]
fn the_id_is_asked_for_where_it_is_needed() {
    let known = created(&with_id("k", Some("1")));
    let awaited = created(&with_id("k", None));
    let asks = |topic: Value, record: Option<&TopicCreation>, now: i64| {
        asks_for_id(&channel(topic, json!({})), record, at(now))
    };
    let retained = || json!({"managed": true});
    assert!(asks(retained(), Some(&awaited), 100), "deletionPolicy may change later");
    assert!(!asks(retained(), Some(&awaited), 701));
    assert!(!asks(retained(), Some(&known), 100));
    assert!(!asks(retained(), None, 100));
    assert!(!asks(json!({}), Some(&awaited), 100));
    assert!(asks(json!({"managed": true, "deletionPolicy": "Delete"}), None, 100));

    assert!(awaits_id(Some(&awaited), at(100)));
    let channel = channel(retained(), json!({}));
    let seen = with_id("k", None);
    let plan = Plan::default();
    let ready = status(&channel, &Facts::Seen { seen, plan }, Some(&awaited), at(100));
    let pause = |record, now| again_after(&channel, &ready, Some(record), at(now)).as_secs();
    assert_eq!(
        (pause(&awaited, 100), pause(&awaited, 701), pause(&known, 100)),
        (60, 300, 300)
    );
}

#[test]
fn a_creation_that_was_cut_short_is_taken_for_ours_only_if_all_speaks_for_it() {
    let declared =
        json!({"managed": true, "partitions": 2, "replicationFactor": 1, "config": {"retention.ms": "0600000"}});
    let topic = channel(declared, json!({})).spec.topic;
    let settings: &[(&str, Option<&str>, bool)] =
        &[("retention.ms", Some("600000"), true), ("segment.ms", Some("7"), false)];
    let made = seen(2, settings);
    let record = begun(&made, at(100));
    let can_be = |record: &TopicCreation, seen: &Seen, now: i64| {
        let found = topic_of(seen);
        can_be_outcome(record, &topic, seen, found, &found.config, at(now))
    };
    assert!(can_be(&record, &made, 100));
    assert!(can_be(&record, &made, 700));
    assert!(!can_be(&record, &made, 701), "too late");
    assert!(!can_be(&record, &seen(3, settings), 100), "other partitions");
    let by_default = [("retention.ms", Some("600000"), false)];
    assert!(!can_be(&record, &seen(2, &by_default), 100), "not set on the topic");
    let more = [("retention.ms", Some("600000"), true), ("segment.ms", Some("7"), true)];
    assert!(!can_be(&record, &seen(2, &more), 100), "set by somebody else");
    let mut elsewhere = made.clone();
    elsewhere.cluster_id = Some("other".to_owned());
    assert!(!can_be(&record, &elsewhere, 100), "another Kafka");
    let mut copied = made;
    copied.topic.as_mut().unwrap().replication_factor = 3;
    assert!(!can_be(&record, &copied, 100), "other copies");
}

#[test]
fn a_creation_that_has_begun_is_not_recorded_twice() {
    let nothing = Seen {
        cluster_id: Some("k".to_owned()),
        topic: None,
    };
    let record = begun(&nothing, at(100));
    assert_eq!(record.state, CreationState::Begun);
    assert!(has_begun(Some(&record), &nothing, at(400)));
    assert!(
        !has_begun(Some(&record), &nothing, at(401)),
        "it must not be too old when the topic is seen"
    );
    assert!(!has_begun(Some(&record), &Seen::default(), at(100)));
    assert!(
        !has_begun(Some(&created(&nothing)), &nothing, at(100)),
        "that topic is gone"
    );
    assert!(!has_begun(None, &nothing, at(100)));
}

#[test]
fn a_topic_that_deletion_would_leave_is_told_while_there_is_time() {
    let made = with_id("k", Some("1"));
    let record = created(&made);
    let message = |policy: &str, record: Option<&TopicCreation>| {
        let channel = channel(json!({"managed": true, "deletionPolicy": policy}), json!({}));
        let facts = Facts::Seen {
            seen: made.clone(),
            plan: Plan::default(),
        };
        let status = status(&channel, &facts, record, at(1));
        assert_eq!(brief(&status), [("Ready", "True", "TopicReady")]);
        assert_eq!(status.topic_creation, None, "it has a writer of its own");
        status.conditions[0].message.clone()
    };
    assert!(message("Delete", None).contains("Deleting this channel leaves it"));
    assert!(!message("Delete", Some(&record)).contains("leaves it"));
    let without_id = TopicCreation {
        topic_id: None,
        ..record
    };
    let told = message("Delete", Some(&without_id));
    for part in [
        "Deleting this channel leaves it",
        "does not hold its ID",
        "Kafka's own tools",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!message("Retain", None).contains("leaves it"));
}
