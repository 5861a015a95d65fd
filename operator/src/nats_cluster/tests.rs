use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crds::{AssetForwarder, NatsClusterStatus};
use serde_json::{Value, json};

use super::assess::{Facts, again_after, status};
use super::dereference::Dereferenced;
use super::drain::{Departure, Farewell, Force, departure};
use super::probe::{Failure, Kind, Seen};
use super::*;
use crate::credentials::Secrets;

/// The cluster `plant/c1` of generation 3 with this spec, beside its server, and these metadata.
fn cluster(spec: Value, metadata: Value) -> NatsCluster {
    let mut object = json!({
        "metadata": {"name": "c1", "namespace": "plant", "generation": 3},
        "spec": {"external": {"servers": ["nats://c1:4222"]}},
    });
    for (part, more) in [("spec", spec), ("metadata", metadata)] {
        object[part]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
    }
    serde_json::from_value(object).unwrap()
}

fn sound() -> NatsCluster {
    cluster(json!({}), json!({}))
}

fn forwarder(name: &str, ring: Value) -> Arc<AssetForwarder> {
    let object = json!({
        "metadata": {"name": name, "namespace": "line"},
        "spec": {"sources": [], "clusters": {"selector": {}}},
        "status": {"ring": ring},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn no_secrets() -> Secrets {
    Secrets::new("plant", BTreeMap::new())
}

fn found(member_of: &[&str]) -> Dereferenced {
    Dereferenced {
        secrets: no_secrets(),
        member_of: member_of.iter().map(|name| (*name).to_owned()).collect(),
        namespace_goes: false,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seen() -> Seen {
    Seen {
        version: "2.15.1".to_owned(),
        cluster_name: Some("east".to_owned()),
        jet_stream: Some(true),
        servers: vec!["nats://c1:4222".to_owned()],
    }
}

fn away() -> Facts {
    Facts::Failed(Failure {
        kind: Kind::Unreachable,
        message: "nobody listens".to_owned(),
    })
}

/// Status and reason of each condition.
fn brief(status: &NatsClusterStatus) -> Vec<(&str, &str, &str)> {
    let conditions = status.conditions.iter();
    conditions
        .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
        .collect()
}

#[test]
fn a_sound_cluster_is_a_member_as_the_forwarder_reads_it() {
    let named = cluster(json!({"ringName": "C1", "weight": 2, "tls": {}}), json!({}));
    let member = validate(&named, &no_secrets(), Path::new("/x")).unwrap().cluster;
    assert_eq!((member.name.as_str(), member.weight), ("C1", 2));
    assert!(member.tls.is_some());
    assert_eq!(ring_name(&sound()), "c1", "the default is the object's name");
}

#[test]
fn what_a_forwarder_would_refuse_is_named_by_its_path() {
    let bad = cluster(
        json!({"ringName": " ", "external": {"servers": ["nats://ok", "http://x", "nats://u:hunter2@h"]}}),
        json!({}),
    );
    let error = validate(&bad, &no_secrets(), Path::new("/x")).unwrap_err().to_string();
    for part in ["spec.ringName", "spec.external.servers[1]", "spec.external.servers[2]"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("hunter2") && !error.contains("servers[0]"), "{error}");
}

#[test]
fn what_is_declared_of_a_cluster_is_what_the_forwarder_reads_and_nothing_else() {
    let spec =
        json!({"discoverServers": false, "jetStreamApi": {"prefix": "JS.plant.API"}, "inboxPrefix": "_INBOX_plant"});
    let member = |spec| {
        let member = validate(&cluster(spec, json!({})), &no_secrets(), Path::new("/x"));
        member.map(|validated| validated.cluster)
    };
    let told = member(spec).unwrap();
    assert_eq!(
        (told.discovers_servers(), told.jet_stream_api().as_str()),
        (false, "JS.plant.API")
    );
    assert_eq!(told.inbox_prefix(), "_INBOX_plant");
    let domain = member(json!({"jetStreamApi": {"domain": "leaf"}})).unwrap();
    assert_eq!(domain.jet_stream_api(), "$JS.leaf.API");
    assert_eq!(member(json!({})).unwrap().document_version(), 1, "older pods read it");

    for (spec, said) in [
        (
            json!({"jetStreamApi": {"prefix": "a", "domain": "b"}}),
            "spec.jetStreamApi: has both domain and prefix; ",
        ),
        (json!({"jetStreamApi": {"prefix": "a.*"}}), "spec.jetStreamApi.prefix: "),
        (json!({"inboxPrefix": "a b"}), "spec.inboxPrefix: "),
    ] {
        let error = member(spec).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_spec_that_cannot_work_is_stalled_and_a_secret_that_may_come_is_not() {
    let refused = |cluster: &NatsCluster| {
        let facts = Facts::Refused(validate(cluster, &no_secrets(), Path::new("/x")).unwrap_err());
        status(cluster, &[], &facts, at(1))
    };
    let bad = refused(&cluster(json!({"external": {"servers": ["ws://x"]}}), json!({})));
    assert_eq!(
        brief(&bad),
        [("Ready", "False", "InvalidSpec"), ("Stalled", "True", "InvalidSpec")]
    );
    let waiting = refused(&cluster(
        json!({"auth": {"type": "Token", "secretRef": {"name": "s"}}}),
        json!({}),
    ));
    assert_eq!(
        brief(&waiting),
        [
            ("Ready", "False", "SecretMissing"),
            ("Reconciling", "True", "SecretMissing")
        ]
    );
    assert!(waiting.conditions[0].message.contains("plant/s"));
}

#[test]
fn an_outage_keeps_what_was_seen_and_writes_nothing_new() {
    let mut cluster = sound();
    let up = status(&cluster, &[], &Facts::Connected(seen()), at(1));
    assert_eq!(brief(&up), [("Ready", "True", "Connected")]);
    assert_eq!(up.observed_generation, Some(3));
    assert_eq!((up.ring_name.as_deref(), up.jet_stream), (Some("c1"), Some(true)));
    cluster.status = Some(up);
    let down = status(&cluster, &[], &away(), at(50));
    assert_eq!(
        brief(&down),
        [
            ("Ready", "False", "Unreachable"),
            ("Reconciling", "True", "Unreachable")
        ]
    );
    assert_eq!(down.server_version.as_deref(), Some("2.15.1"));
    cluster.status = Some(down.clone());
    assert_eq!(
        status(&cluster, &[], &away(), at(99)),
        down,
        "the same outage is the same status"
    );
    cluster.metadata.generation = Some(4);
    assert_eq!(
        status(&cluster, &[], &away(), at(99)).server_version,
        None,
        "another spec, perhaps another cluster"
    );
}

#[test]
fn the_pause_grows_with_the_age_of_an_outage() {
    let mut cluster = sound();
    let down = status(&cluster, &[], &away(), at(100));
    let pauses: Vec<u64> = [100, 110, 140, 400]
        .map(|now| again_after(&cluster, &down, at(now)).as_secs())
        .into();
    assert_eq!(pauses, [2, 5, 20, 60]);
    let up = status(&cluster, &[], &Facts::Connected(seen()), at(100));
    assert_eq!(again_after(&cluster, &up, at(100)).as_secs(), 60);
    cluster.spec.drain = true;
    let draining = status(&cluster, &["line/a".to_owned()], &Facts::Leaving, at(100));
    assert_eq!(again_after(&cluster, &draining, at(900)).as_secs(), 5);
}

#[test]
fn a_drained_cluster_is_ready_once_all_forwarders_have_left_it() {
    let cluster = cluster(json!({"drain": true}), json!({}));
    let draining = status(&cluster, &["line/a".to_owned()], &Facts::Leaving, at(1));
    assert_eq!(
        brief(&draining),
        [("Ready", "False", "Draining"), ("Reconciling", "True", "Draining")]
    );
    assert!(draining.conditions[0].message.ends_with("line/a"));
    assert_eq!(draining.member_of, ["line/a"]);
    let drained = status(&cluster, &[], &Facts::Leaving, at(1));
    assert_eq!(brief(&drained), [("Ready", "True", "Drained")]);
}

#[test]
fn forwarders_that_have_it_and_those_that_are_leaving_it_count() {
    let forwarders = [
        forwarder("b", json!({"epoch": 1, "members": 1, "leaving": ["plant/c1"]})),
        forwarder(
            "c",
            json!({"epoch": 1, "members": 1, "memberRefs": ["plant/c2"], "leaving": ["line/c1"]}),
        ),
        forwarder("a", json!({"epoch": 1, "members": 1, "memberRefs": ["plant/c1"]})),
        forwarder("d", Value::Null),
    ];
    assert_eq!(members_of(&forwarders, "plant/c1"), ["line/a", "line/b"]);
}

#[test]
fn a_forwarder_that_never_had_a_deployment_keeps_no_cluster_waiting() {
    let forwarder = |status: Value| {
        let object = json!({
            "metadata": {"name": "a", "namespace": "line"},
            "spec": {"sources": [], "clusters": {"selector": {}}},
            "status": status,
        });
        [Arc::new(serde_json::from_value(object).unwrap())]
    };
    let status = |reason: &str, epoch: i64, desired: Option<i32>| {
        json!({
            "conditions": [{
                "type": "Ready", "status": "False", "reason": reason, "message": "m",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            }],
            "desiredReplicas": desired,
            "ring": {"epoch": epoch, "members": 0, "memberRefs": ["plant/c1"]},
        })
    };
    assert!(members_of(&forwarder(status("ApplyFailed", 0, None)), "plant/c1").is_empty());
    for may_run in [
        status("RollingOut", 0, None),
        status("ApplyFailed", 1, None),
        status("ApplyFailed", 0, Some(1)),
    ] {
        assert_eq!(members_of(&forwarder(may_run), "plant/c1"), ["line/a"]);
    }
}

#[test]
fn a_deleted_cluster_goes_when_nobody_publishes_to_it_or_nobody_may_wait_any_longer() {
    let deleted = |annotations: Value| {
        let metadata = json!({"deletionTimestamp": "1970-01-01T00:01:40Z", "annotations": annotations});
        cluster(json!({}), metadata)
    };
    let mut plain = deleted(json!({}));
    assert_eq!(departure(&sound(), &found(&[]), at(0), at(100)), Departure::Stays);
    assert_eq!(
        departure(&plain, &found(&[]), at(0), at(100)),
        Departure::Goes(Farewell::Unused)
    );
    assert_eq!(departure(&plain, &found(&["line/a"]), at(0), at(699)), Departure::Waits);
    assert_eq!(
        departure(&plain, &found(&["line/a"]), at(0), at(50)),
        Departure::Waits,
        "our clock is behind"
    );
    let forced = |by| {
        let forwarders = vec!["line/a".to_owned()];
        Departure::Goes(Farewell::Forced { by, forwarders })
    };
    let seconds = Duration::from_secs;
    assert_eq!(
        departure(&plain, &found(&["line/a"]), at(0), at(700)),
        forced(Force::Bound(seconds(600)))
    );
    assert_eq!(
        departure(&plain, &found(&["line/a"]), at(650), at(700)),
        Departure::Waits,
        "nobody saw to it before"
    );
    let with_namespace = Dereferenced {
        namespace_goes: true,
        ..found(&["line/a"])
    };
    assert_eq!(departure(&plain, &with_namespace, at(0), at(119)), Departure::Waits);
    assert_eq!(
        departure(&plain, &with_namespace, at(0), at(120)),
        forced(Force::Bound(seconds(20)))
    );
    let skipped = deleted(json!({SKIP_DRAIN: "true"}));
    assert_eq!(
        departure(&skipped, &found(&["line/a"]), at(0), at(100)),
        forced(Force::Annotation)
    );
    plain.status = Some(status(&plain, &["line/a".to_owned()], &Facts::Leaving, at(100)));
    assert_eq!(
        departure(&plain, &found(&[]), at(0), at(110)),
        Departure::Goes(Farewell::Drained)
    );
}
