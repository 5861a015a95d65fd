mod creation;
mod removal;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crds::KafkaChannelStatus;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde_json::{Value, json};

use super::decide::{Block, Drift, Plan, Step, decide};
use super::inspect::{decisive, lasting, metadata_version};
use super::removal::Why;
use super::seen::{Kind, Seen, SeenTopic, Setting, TopicId};
use super::status::{again_after, status};
use super::*;
use crate::fake_api;
use crate::reconcile::credentials::Secrets;
use crate::reconcile::invalid_spec::InvalidSpec;

/// The channel `plant/a` with this topic, beside its name, and these metadata.
fn channel(topic: Value, metadata: Value) -> KafkaChannel {
    let mut object = json!({
        "metadata": {"name": "a", "namespace": "plant", "generation": 3},
        "spec": {"connection": {"bootstrapServers": ["k:9092"]}, "topic": {"name": "assets"}},
    });
    for (pointer, more) in [("/spec/topic", topic), ("/metadata", metadata)] {
        let part = object.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        part.extend(more.as_object().unwrap().clone());
    }
    serde_json::from_value(object).unwrap()
}

/// Else a condition that has not changed would get a new time.
#[tokio::test]
async fn a_channel_without_our_own_last_status_is_looked_at_later() {
    let context = fake_api::context(fake_api::client(|parts, _| {
        panic!("nobody is to be asked: {}", parts.uri)
    }));
    let of = |version: &str| Arc::new(channel(json!({}), json!({"uid": "u", "resourceVersion": version})));
    context.own_writes.note(of("9").as_ref(), std::time::Instant::now());
    let action = reconcile(of("8"), Arc::clone(&context)).await.unwrap();
    assert_eq!(action, Action::requeue(SOON));
}

fn no_secrets() -> Secrets {
    Secrets::new("plant", BTreeMap::new())
}

/// A topic with these settings: name, value, whether it was set on the topic.
fn seen(partitions: i32, settings: &[(&str, Option<&str>, bool)]) -> Seen {
    let setting = |(name, value, own): &(&str, Option<&str>, bool)| {
        let value = value.map(str::to_owned);
        ((*name).to_owned(), Setting { value, own: *own })
    };
    let topic = SeenTopic {
        partitions,
        replication_factor: 1,
        config: settings.iter().map(setting).collect(),
        ..SeenTopic::default()
    };
    Seen {
        cluster_id: Some("id".to_owned()),
        topic: Some(topic),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn planned(topic: Value, seen: &Seen) -> Plan {
    decide(&channel(topic, json!({})).spec.topic, seen, &[])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn brief(status: &KafkaChannelStatus) -> Vec<(&str, &str, &str)> {
    let conditions = status.conditions.iter();
    conditions
        .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
        .collect()
}

/// The status of a channel whose topic is as `seen`.
fn assessed(topic: Value, seen: Seen) -> KafkaChannelStatus {
    let channel = channel(topic, json!({}));
    let plan = decide(&channel.spec.topic, &seen, &[]);
    status(&channel, &Facts::Seen { seen, plan }, None, at(1))
}

fn failed(kind: Kind) -> Facts {
    Facts::Failed(Failure::new(kind, "why"))
}

#[test]
fn what_a_forwarder_would_refuse_is_named_by_its_path() {
    let mut bad = channel(json!({"name": "a b"}), json!({}));
    bad.spec.connection.bootstrap_servers = vec!["k:9092".to_owned(), "kafka://x".to_owned()];
    let error = validate(&bad, &no_secrets(), Path::new("/x")).unwrap_err().to_string();
    for part in ["spec.connection.bootstrapServers[1]", "spec.topic.name"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(validate(&channel(json!({}), json!({})), &no_secrets(), Path::new("/x")).is_ok());
}

#[test]
fn a_topic_cannot_be_managed_with_a_token() {
    let mut channel = channel(json!({"managed": true}), json!({}));
    let sasl = json!({"mechanism": "OAUTHBEARER", "secretRef": {"name": "s"}});
    channel.spec.connection.sasl = Some(serde_json::from_value(sasl).unwrap());
    let error = validate(&channel, &no_secrets(), Path::new("/x")).unwrap_err();
    assert!(
        matches!(&error, InvalidSpec::Spec(text) if text.contains("OAUTHBEARER")),
        "{error}"
    );
    channel.spec.topic.managed = false;
    let error = validate(&channel, &no_secrets(), Path::new("/x")).unwrap_err();
    assert!(
        matches!(error, InvalidSpec::Credentials(_)),
        "it is the Secret that is missing now"
    );
}

#[test]
fn a_topic_that_is_not_managed_is_only_looked_at() {
    assert_eq!(planned(json!({}), &Seen::default()), Plan::default());
    assert_eq!(
        brief(&assessed(json!({}), Seen::default())),
        [
            ("Ready", "False", "TopicMissing"),
            ("Reconciling", "True", "TopicMissing")
        ]
    );
    let there = assessed(json!({}), seen(6, &[]));
    assert_eq!(brief(&there), [("Ready", "True", "TopicReady")]);
    assert_eq!(
        (there.partitions, there.replication_factor, there.cluster_id.as_deref()),
        (Some(6), Some(1), Some("id"))
    );
}

#[test]
fn a_managed_topic_that_is_missing_is_made_as_declared() {
    let declared = json!({"managed": true, "partitions": 12, "replicationFactor": 3, "config": {"retention.ms": "1"}});
    let create = Step::Create {
        partitions: Some(12),
        replication_factor: Some(3),
        config: map(&[("retention.ms", "1")]),
    };
    assert_eq!(planned(declared, &Seen::default()).steps, [create]);
    let by_default = Step::Create {
        partitions: None,
        replication_factor: None,
        config: map(&[]),
    };
    assert_eq!(planned(json!({"managed": true}), &Seen::default()).steps, [by_default]);
}

#[test]
fn settings_that_differ_are_written_with_all_others_that_were_set_there() {
    let declared = json!({"managed": true, "config": {"retention.ms": "1000", "cleanup.policy": "compact, delete", "max.message.bytes": "5"}});
    let found = seen(
        1,
        &[
            ("retention.ms", Some("9"), true),
            ("cleanup.policy", Some("compact,delete"), true),
            ("max.message.bytes", Some("5"), false),
            ("segment.ms", Some("7"), true),
            ("flush.ms", Some("8"), false),
        ],
    );
    let plan = planned(declared, &found);
    let configure = Step::Configure {
        names: vec!["retention.ms".to_owned()],
        all: map(&[
            ("retention.ms", "1000"),
            ("cleanup.policy", "compact, delete"),
            ("max.message.bytes", "5"),
            ("segment.ms", "7"),
        ]),
    };
    assert_eq!(plan.steps, [configure]);
    let settled = seen(1, &[("retention.ms", Some("1000"), true)]);
    let same = json!({"managed": true, "config": {"retention.ms": "1000"}});
    assert_eq!(
        planned(same, &settled),
        Plan::default(),
        "a settled topic is left alone"
    );
}

#[test]
fn nothing_is_written_that_would_lose_a_setting() {
    let declared = json!({"managed": true, "config": {"retention.ms": "1000"}});
    let found = seen(1, &[("retention.ms", Some("9"), true), ("secret", None, true)]);
    let plan = planned(declared.clone(), &found);
    assert_eq!(
        (plan.steps.len(), plan.drift),
        (0, vec![Drift::Unreadable("secret".to_owned())])
    );
    let unknown = planned(declared, &seen(1, &[("segment.ms", Some("7"), true)]));
    assert_eq!(
        unknown.block,
        Some(Block::UnknownSettings(vec!["retention.ms".to_owned()]))
    );
}

#[test]
fn partitions_grow_only_as_far_as_somebody_has_acknowledged() {
    let declared = |allowed: Value| json!({"managed": true, "partitions": 12, "allowPartitionIncrease": allowed});
    for (allowed, goes) in [
        (Value::Null, false),
        (json!(11), false),
        (json!(12), true),
        (json!(20), true),
    ] {
        let plan = planned(declared(allowed.clone()), &seen(6, &[]));
        let steps = if goes {
            vec![Step::AddPartitions { from: 6, to: 12 }]
        } else {
            vec![]
        };
        assert_eq!(plan.steps, steps, "{allowed}");
        assert_eq!(plan.block.is_none(), goes, "{allowed}");
    }
    let stalled = assessed(declared(Value::Null), seen(6, &[]));
    let reason = "PartitionIncreaseNotAcknowledged";
    assert_eq!(
        brief(&stalled),
        [("Ready", "False", reason), ("Stalled", "True", reason)]
    );
    assert_eq!(stalled.partitions, Some(6));
}

#[test]
fn what_cannot_be_repaired_is_told_and_leaves_the_channel_ready() {
    let drifted = assessed(
        json!({"managed": true, "partitions": 3, "replicationFactor": 2}),
        seen(6, &[]),
    );
    assert_eq!(
        brief(&drifted),
        [("Ready", "True", "TopicReady"), ("Drifted", "True", "Partitions")]
    );
    let message = &drifted.conditions[1].message;
    assert!(
        message.contains("6 partitions") && message.contains("have 1 replicas"),
        "{message}"
    );
}

#[test]
fn failures_are_told_apart_and_an_outage_keeps_what_was_seen() {
    let mut channel = channel(json!({}), json!({}));
    for (kind, reason, type_) in [
        (Kind::Unreachable, "Unreachable", "Reconciling"),
        (Kind::Tls, "TlsFailed", "Reconciling"),
        (Kind::Authentication, "AuthenticationFailed", "Reconciling"),
        (Kind::Authorization, "NotAuthorized", "Reconciling"),
        (Kind::Refused, "TopicRefused", "Reconciling"),
        (Kind::Invalid, "TopicInvalid", "Stalled"),
    ] {
        let status = status(&channel, &failed(kind), None, at(1));
        assert_eq!(brief(&status), [("Ready", "False", reason), (type_, "True", reason)]);
    }
    channel.status = Some(assessed(json!({}), seen(6, &[])));
    let away = status(&channel, &failed(Kind::Unreachable), None, at(9));
    assert_eq!(away.partitions, Some(6));
    channel.status = Some(away.clone());
    assert_eq!(
        status(&channel, &failed(Kind::Unreachable), None, at(99)),
        away,
        "the same outage is the same status"
    );
    channel.metadata.generation = Some(4);
    assert_eq!(
        status(&channel, &failed(Kind::Unreachable), None, at(99)).partitions,
        None
    );
}

#[test]
fn the_pause_grows_with_the_age_of_an_outage() {
    let mut channel = channel(json!({}), json!({}));
    let away = status(&channel, &failed(Kind::Unreachable), None, at(100));
    let pauses: Vec<u64> = [100, 110, 999]
        .map(|now| again_after(&channel, &away, None, at(now)).as_secs())
        .into();
    assert_eq!(pauses, [2, 5, 60]);
    let invalid = status(&channel, &failed(Kind::Invalid), None, at(100));
    assert_eq!(again_after(&channel, &invalid, None, at(100)).as_secs(), 300);
    channel.metadata.deletion_timestamp = Some(serde_json::from_value(json!("1970-01-01T00:01:40Z")).unwrap());
    assert_eq!(again_after(&channel, &away, None, at(999)).as_secs(), 5);
}

#[test]
fn a_topic_goes_only_where_its_policy_says_so_and_within_a_bound() {
    let removal_of = |policy: &str, metadata: Value, namespace_goes: bool, now: i64| {
        let topic = json!({"managed": true, "deletionPolicy": policy});
        removal(&channel(topic, metadata), namespace_goes, at(now))
    };
    let deleted = json!({"deletionTimestamp": "1970-01-01T00:01:40Z", "finalizers": [FINALIZER]});
    let seconds = Duration::from_secs;
    assert_eq!(removal_of("Delete", json!({}), false, 100), Removal::Stays);
    assert_eq!(
        removal_of("Delete", deleted.clone(), false, 50),
        Removal::Deletes { past: None }
    );
    assert_eq!(
        removal_of("Delete", deleted.clone(), false, 399),
        Removal::Deletes { past: None }
    );
    assert_eq!(
        removal_of("Delete", deleted.clone(), false, 400),
        Removal::Deletes {
            past: Some(seconds(300))
        }
    );
    assert_eq!(
        removal_of("Delete", deleted.clone(), true, 110),
        Removal::Deletes {
            past: Some(seconds(10))
        }
    );
    assert_eq!(removal_of("Retain", deleted, false, 100), Removal::Leaves(Why::Policy));
    let without = json!({"deletionTimestamp": "1970-01-01T00:01:40Z"});
    assert_eq!(removal_of("Delete", without, false, 100), Removal::Leaves(Why::Policy));
    let skipped = json!({
        "deletionTimestamp": "1970-01-01T00:01:40Z",
        "finalizers": [FINALIZER],
        "annotations": {SKIP_TOPIC_DELETION: "true"},
    });
    assert_eq!(
        removal_of("Delete", skipped, false, 100),
        Removal::Leaves(Why::Annotation)
    );
}

#[test]
fn whether_brokers_tell_ids_is_read_from_the_requests_that_they_know() {
    for (line, version) in [
        (
            "[thrd:k:9092/bootstrap]: k:9092/bootstrap:   ApiKey Metadata (3) Versions 0..13",
            Some(13),
        ),
        ("k:9092/bootstrap:   ApiKey Metadata (3) Versions 0..9", Some(9)),
        ("k:9092/bootstrap:   ApiKey Produce (0) Versions 0..11", None),
        ("k:9092/bootstrap: Broker API support:", None),
    ] {
        assert_eq!(metadata_version(line), version, "{line}");
    }
}

#[test]
fn only_what_waiting_does_not_mend_ends_the_wait() {
    let told = |code| decisive(&KafkaError::Global(code), "why").map(|failure| failure.kind);
    assert_eq!(told(RDKafkaErrorCode::Authentication), Some(Kind::Authentication));
    assert_eq!(told(RDKafkaErrorCode::SSL), Some(Kind::Tls));
    assert_eq!(told(RDKafkaErrorCode::AllBrokersDown), None);
    assert_eq!(
        lasting(
            "sasl_ssl://k1:9093/bootstrap: SASL authentication error: bad user (after 4ms in state AUTH_REQ, 1 identical error(s) suppressed)"
        ),
        "SASL authentication error: bad user"
    );
    assert_eq!(lasting("no broker here"), "no broker here");
}
