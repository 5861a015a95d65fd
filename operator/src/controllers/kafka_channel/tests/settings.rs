//! Settings by their types, refusals, and what Kafka took and holds differently.

use std::slice::from_ref;
use std::time::Instant;

use crds::kafka_channel::DifferingSetting;

use super::super::refusals::{self, Refusal};
use super::super::settings::{fault, same};
use super::*;

#[test]
fn values_are_compared_as_kafka_reads_them() {
    for (name, declared, found) in [
        ("min.cleanable.dirty.ratio", "0.10", "0.1"),
        ("preallocate", "TRUE", "true"),
        ("retention.ms", "0600000", "600000"),
        ("retention.ms", " +5 ", "5"),
        ("retention.bytes", "-01", "-1"),
        ("min.cleanable.dirty.ratio", "1e-5", "1.0E-5"),
        ("min.cleanable.dirty.ratio", "0.5f", "0.5"),
        ("cleanup.policy", " compact , delete", "compact,delete"),
        ("cleanup.policy", "delete,delete", "delete"),
        ("leader.replication.throttled.replicas", " ", ""),
        ("compression.type", "zstd ", "zstd"),
        // Of a Kafka that is newer than the table.
        ("some.new.ms", "007", "7"),
        ("some.new.flag", "True", "true"),
        ("some.new.ratio", "0.50", "0.5"),
        ("some.new.list", "a, b", "a,b"),
    ] {
        assert!(same(name, declared, found), "{name}: {declared:?} is {found:?}");
    }
    for (name, declared, found) in [
        ("retention.ms", "60", "600"),
        ("retention.ms", "0x10", "16"),
        ("preallocate", "yes", "true"),
        ("compression.type", "ZSTD", "zstd"),
        ("message.format.version", "3.0", "3"),
        ("cleanup.policy", "delete,compact", "compact,delete"),
        ("leader.replication.throttled.replicas", "", "*"),
        ("some.new.name", "07a", "7a"),
        ("some.new.name", "A", "a"),
    ] {
        assert!(!same(name, declared, found), "{name}: {declared:?} is not {found:?}");
    }
}

#[test]
fn a_topic_that_reads_otherwise_and_is_the_same_is_left_alone() {
    let declared = json!({"managed": true, "config": {
        "min.cleanable.dirty.ratio": "0.10",
        "preallocate": "TRUE",
        "retention.ms": "0600000",
    }});
    let found = seen(
        1,
        &[
            ("min.cleanable.dirty.ratio", Some("0.1"), true),
            ("preallocate", Some("true"), true),
            ("retention.ms", Some("600000"), true),
        ],
    );
    assert_eq!(planned(declared, &found), Plan::default());
}

#[test]
fn what_kafka_took_and_holds_differently_is_told_and_not_written_again() {
    let channel = channel(
        json!({"managed": true, "config": {"compression.type": "zstd"}}),
        json!({}),
    );
    let topic = &channel.spec.topic;
    let found = |value| seen(1, &[("compression.type", Some(value), true)]);
    let held = DifferingSetting {
        name: "compression.type".to_owned(),
        declared: "zstd".to_owned(),
        found: Some("gzip".to_owned()),
    };
    let again = decide(topic, &found("gzip"), from_ref(&held));
    assert_eq!(
        (again.steps.len(), again.drift.clone()),
        (0, vec![Drift::Held(held.clone())])
    );
    let facts = Facts::Seen {
        seen: found("gzip"),
        plan: again,
    };
    let status = status(&channel, &facts, None, at(1));
    assert_eq!(
        brief(&status),
        [("Ready", "True", "TopicReady"), ("Drifted", "True", "Config")]
    );
    for part in ["compression.type", "\"zstd\"", "\"gzip\""] {
        let message = &status.conditions[1].message;
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(status.differing_settings, from_ref(&held));
    assert_eq!(again_after(&channel, &status, None, at(1)).as_secs(), 60);

    let changed = decide(topic, &found("lz4"), from_ref(&held));
    assert_eq!(changed.steps.len(), 1, "somebody has changed it since");
    let declared_anew = DifferingSetting {
        declared: "snappy".to_owned(),
        ..held
    };
    let anew = decide(topic, &found("gzip"), &[declared_anew]);
    assert_eq!(anew.steps.len(), 1, "another value is declared since");
}

#[test]
fn unknown_settings_do_not_hide_what_else_is_refused() {
    let declared = json!({"managed": true, "config": {"no.such": "1", "retention.ms": "soon", "preallocate": "TRUE"}});
    let channel = channel(declared, json!({}));
    let found = seen(
        1,
        &[("retention.ms", Some("9"), true), ("preallocate", Some("true"), false)],
    );
    let mut plan = decide(&channel.spec.topic, &found, &[]);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.unasked, map(&[("preallocate", "TRUE"), ("retention.ms", "soon")]));
    plan.refused = vec![refusal("retention.ms", "soon")];
    let status = status(&channel, &Facts::Seen { seen: found, plan }, None, at(1));
    for part in ["no.such", "retention.ms: \"soon\"", "64 bits"] {
        let message = &status.conditions[0].message;
        assert!(message.contains(part), "{message}");
    }
}

fn refusal(name: &str, value: &str) -> Refusal {
    Refusal::Declared {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// `b` is taken only beside `d`, and neither `a` nor `c` at all.
fn check(some: &BTreeMap<String, String>) -> Result<(), Failure> {
    let has = |name| some.contains_key(name);
    if has("a") || has("c") || has("b") && !has("d") {
        Err(Failure::new(Kind::Settings, "all that is told"))
    } else {
        Ok(())
    }
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn every_refused_setting_is_found() {
    let declared = map(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    let found = |declared: &[(&str, &str)], others: &[(&str, &str)]| {
        refusals::refused(&map(declared), &map(others), in_a_minute(), |some, _| check(some))
            .unwrap()
            .unwrap()
    };
    let refused = refusals::refused(&declared, &map(&[]), in_a_minute(), |some, _| check(some));
    assert_eq!(refused.unwrap().unwrap(), [refusal("a", "1"), refusal("c", "3")]);
    assert_eq!(found(&[("b", "2")], &[("d", "4")]), [], "beside what others have set");
    let both = found(&[("a", "1"), ("d", "4")], &[("c", "3")]);
    assert_eq!(both, [refusal("a", "1"), Refusal::Others]);
    assert_eq!(
        found(&[("d", "4")], &[("b", "2")]),
        [],
        "others' one is taken beside ours"
    );
    let told = refusals::told(&both);
    assert!(
        told.contains("a: \"1\" in spec.topic.config") && told.contains("others have set on the topic"),
        "{told}"
    );
    let away = refusals::refused(&declared, &map(&[]), in_a_minute(), |_, _| {
        Err(Failure::new(Kind::Unreachable, "away"))
    });
    assert_eq!(away.unwrap_err().kind, Kind::Unreachable);
}

#[test]
fn brokers_are_asked_a_bounded_number_of_questions_for_a_bounded_time() {
    let many = |count: usize| -> BTreeMap<String, String> {
        (0..count)
            .map(|number| (format!("s{number:03}"), String::new()))
            .collect()
    };
    let none = BTreeMap::new();
    let mut asked = 0;
    // Each round leaves one setting less open.
    let slowly_less = |some: &BTreeMap<String, String>, _: Duration| {
        asked += 1;
        if some.len() > asked / 40 {
            Err(Failure::new(Kind::Settings, "all that is told"))
        } else {
            Ok(())
        }
    };
    assert_eq!(
        refusals::refused(&many(64), &none, in_a_minute(), slowly_less),
        Ok(None)
    );
    assert_eq!(asked, 150);

    let mut asked = 0;
    let slow = |_: &BTreeMap<String, String>, within: Duration| {
        asked += 1;
        assert!(within <= Duration::from_millis(300), "{within:?}");
        std::thread::sleep(Duration::from_millis(120));
        Ok(())
    };
    let deadline = Instant::now() + Duration::from_millis(300);
    assert_eq!(refusals::refused(&many(64), &none, deadline, slow), Ok(None));
    assert!((1..=2).contains(&asked), "{asked}");

    // A question that the deadline cuts short is no outage.
    let deadline = Instant::now() + Duration::from_millis(150);
    let cut_short = |_: &BTreeMap<String, String>, within: Duration| {
        std::thread::sleep(within);
        Err(Failure::new(Kind::Unreachable, "timed out"))
    };
    assert_eq!(refusals::refused(&many(1), &none, deadline, cut_short), Ok(None));

    let mut asked = 0;
    let count = |_: &BTreeMap<String, String>, _: Duration| {
        asked += 1;
        Ok(())
    };
    assert_eq!(refusals::refused(&many(1), &many(101), in_a_minute(), count), Ok(None));
    assert_eq!(asked, 0, "how many others have set is theirs to say");
}

#[test]
fn what_is_wrong_with_a_refused_value_is_told_by_its_type() {
    for (name, value, told) in [
        ("preallocate", "yes", "true or false"),
        ("max.message.bytes", "5000000000", "32 bits"),
        ("retention.ms", "1_000", "64 bits"),
        ("min.cleanable.dirty.ratio", "half", "a number"),
        ("cleanup.policy", "DELETE", "a list of compact, delete"),
        ("compression.type", "ZSTD", "one of uncompressed"),
        ("retention.ms", "-2", "does not take this value"),
        ("retention.msx", "1", "no setting"),
    ] {
        let fault = fault(name, value);
        assert!(fault.contains(told), "{name}: {fault}");
    }
}
