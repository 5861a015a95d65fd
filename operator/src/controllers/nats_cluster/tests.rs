use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use crds::{AssetForwarder, NatsClusterStatus};
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use kube::client::Body;
use kube::runtime::reflector;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::drain::{Farewell, Force};
use super::probe::{Failure, JetStream, Kind, Seen};
use super::status::{Facts, again_after, status};
use super::*;
use crate::fake_api;
use crate::reconcile::cluster::ring_name;
use crate::reconcile::credentials::Secrets;

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

/// Else a condition that has not changed would get a new time.
#[tokio::test]
async fn a_cluster_without_our_own_last_status_is_looked_at_later() {
    let context = fake_api::context(fake_api::client(|parts, _| {
        panic!("nobody is to be asked: {}", parts.uri)
    }));
    let of = |version: &str| Arc::new(cluster(json!({}), json!({"uid": "u", "resourceVersion": version})));
    context.own_writes.note(of("9").as_ref(), std::time::Instant::now());
    let (forwarders, _writer) = reflector::store();
    let action = reconcile(of("8"), Arc::clone(&context), forwarders, at(0))
        .await
        .unwrap();
    assert_eq!(action, Action::requeue(SOON));
}

fn no_secrets() -> Secrets {
    Secrets::new("plant", BTreeMap::new())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seen() -> Seen {
    Seen {
        version: "2.15.1".to_owned(),
        cluster_name: Some("east".to_owned()),
        jet_stream: JetStream::Told(Some(true)),
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
        status(cluster, &[], None, &facts, at(1))
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
    let up = status(&cluster, &[], None, &Facts::Connected(seen()), at(1));
    assert_eq!(brief(&up), [("Ready", "True", "Connected")]);
    assert_eq!(up.observed_generation, Some(3));
    assert_eq!((up.ring_name.as_deref(), up.jet_stream), (Some("c1"), Some(true)));
    cluster.status = Some(up);
    let down = status(&cluster, &[], None, &away(), at(50));
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
        status(&cluster, &[], None, &away(), at(99)),
        down,
        "the same outage is the same status"
    );
    cluster.metadata.generation = Some(4);
    assert_eq!(
        status(&cluster, &[], None, &away(), at(99)).server_version,
        None,
        "another spec, perhaps another cluster"
    );
}

#[test]
fn a_jet_stream_that_is_silent_for_a_moment_is_what_it_was_and_is_asked_again_soon() {
    let silent = || {
        Facts::Connected(Seen {
            jet_stream: JetStream::Silent,
            ..seen()
        })
    };
    let mut cluster = sound();
    let first = status(&cluster, &[], None, &silent(), at(100));
    assert_eq!((brief(&first)[0].1, first.jet_stream), ("True", None));
    let pauses = [100, 140, 400].map(|now| again_after(&cluster, &first, &silent(), at(now)).as_secs());
    assert_eq!(pauses, [2, 20, 60]);
    cluster.status = Some(first);
    let told = status(&cluster, &[], None, &Facts::Connected(seen()), at(102));
    assert_eq!(told.jet_stream, Some(true));
    cluster.status = Some(told.clone());
    assert_eq!(
        status(&cluster, &[], None, &silent(), at(162)),
        told,
        "nothing is written"
    );
    let refused = Facts::Connected(Seen {
        jet_stream: JetStream::Told(None),
        ..seen()
    });
    assert_eq!(status(&cluster, &[], None, &refused, at(222)).jet_stream, None);
    cluster.metadata.generation = Some(4);
    assert_eq!(status(&cluster, &[], None, &silent(), at(282)).jet_stream, None);
}

#[test]
fn the_pause_grows_with_the_age_of_an_outage() {
    let mut cluster = sound();
    let down = status(&cluster, &[], None, &away(), at(100));
    let pauses: Vec<u64> = [100, 110, 140, 400]
        .map(|now| again_after(&cluster, &down, &away(), at(now)).as_secs())
        .into();
    assert_eq!(pauses, [2, 5, 20, 60]);
    let up = status(&cluster, &[], None, &Facts::Connected(seen()), at(100));
    assert_eq!(
        again_after(&cluster, &up, &Facts::Connected(seen()), at(100)).as_secs(),
        60
    );
    cluster.spec.drain = true;
    let draining = status(&cluster, &["line/a".to_owned()], None, &Facts::Leaving, at(100));
    assert_eq!(again_after(&cluster, &draining, &Facts::Leaving, at(900)).as_secs(), 5);
}

#[test]
fn a_drained_cluster_is_ready_once_all_forwarders_have_left_it() {
    let cluster = cluster(json!({"drain": true}), json!({}));
    let draining = status(&cluster, &["line/a".to_owned()], None, &Facts::Leaving, at(1));
    assert_eq!(
        brief(&draining),
        [("Ready", "False", "Draining"), ("Reconciling", "True", "Draining")]
    );
    assert!(draining.conditions[0].message.ends_with("line/a"));
    assert_eq!(draining.member_of, ["line/a"]);
    let drained = status(&cluster, &[], None, &Facts::Leaving, at(1));
    assert_eq!(brief(&drained), [("Ready", "True", "Drained")]);
}

#[test]
fn a_deleted_cluster_says_whom_it_waits_for_and_until_when() {
    let deleted = cluster(json!({}), json!({"deletionTimestamp": "1970-01-01T00:01:40Z"}));
    let waiting = |now| {
        status(
            &deleted,
            &["line/a".to_owned()],
            Some(at(700)),
            &Facts::Leaving,
            at(now),
        )
    };
    let first = waiting(100);
    assert_eq!(brief(&first)[0], ("Ready", "False", "Draining"));
    let message = &first.conditions[0].message;
    for part in ["line/a", "until 1970-01-01T00:11:40Z at most", SKIP_DRAIN] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(*message, waiting(600).conditions[0].message, "waiting writes nothing");
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

fn known(forwarders: &[&str]) -> Remaining {
    Remaining::Known(forwarders.iter().map(|name| (*name).to_owned()).collect())
}

fn unknown() -> Remaining {
    Remaining::Unknown("assetforwarders is forbidden".to_owned())
}

fn deleted_at_100(annotations: Value) -> NatsCluster {
    let metadata = json!({"deletionTimestamp": "1970-01-01T00:01:40Z", "annotations": annotations});
    cluster(json!({}), metadata)
}

#[test]
fn a_deleted_cluster_goes_when_nobody_publishes_to_it_or_nobody_may_wait_any_longer() {
    let waits = |until| Departure::Waits { until: at(until) };
    let mut plain = deleted_at_100(json!({}));
    assert!(Leaving::of(&sound(), at(0)).is_none());
    let departure = |cluster: &NatsCluster, remaining: &Remaining, began, now| {
        Leaving::of(cluster, at(began)).unwrap().departure(remaining, at(now))
    };
    assert_eq!(
        departure(&plain, &known(&[]), 0, 100),
        Departure::Goes(Farewell::Unused)
    );
    let forced = |by, remaining: &Remaining| {
        let remaining = remaining.clone();
        Departure::Goes(Farewell::Forced { by, remaining })
    };
    let seconds = Duration::from_secs;
    // Who cannot tell whether there is anybody waits as for somebody, and no longer.
    for remaining in [known(&["line/a"]), unknown()] {
        assert_eq!(departure(&plain, &remaining, 0, 699), waits(700));
        assert_eq!(departure(&plain, &remaining, 0, 50), waits(700), "our clock is behind");
        assert_eq!(
            departure(&plain, &remaining, 0, 700),
            forced(Force::Bound(seconds(600)), &remaining)
        );
        assert_eq!(
            departure(&plain, &remaining, 650, 700),
            waits(1_250),
            "nobody saw to it before"
        );
        let mut with_namespace = Leaving::of(&plain, at(0)).unwrap();
        with_namespace.namespace_goes = true;
        assert_eq!(with_namespace.departure(&remaining, at(119)), waits(120));
        assert_eq!(
            with_namespace.departure(&remaining, at(120)),
            forced(Force::Bound(seconds(20)), &remaining)
        );
        let skipped = deleted_at_100(json!({SKIP_DRAIN: "true"}));
        assert_eq!(
            departure(&skipped, &remaining, 0, 100),
            forced(Force::Annotation, &remaining)
        );
    }
    plain.status = Some(status(&plain, &["line/a".to_owned()], None, &Facts::Leaving, at(100)));
    assert_eq!(
        departure(&plain, &known(&[]), 0, 110),
        Departure::Goes(Farewell::Drained)
    );
}

#[test]
fn a_deleted_cluster_says_that_it_cannot_tell_whom_it_waits_for() {
    let mut deleted = deleted_at_100(json!({}));
    deleted.status = Some(status(&deleted, &["line/a".to_owned()], None, &Facts::Leaving, at(100)));
    let facts = Facts::Unread("assetforwarders is forbidden".to_owned());
    let waiting = status(&deleted, &[], Some(at(700)), &facts, at(110));
    assert_eq!(
        brief(&waiting),
        [("Ready", "False", "Draining"), ("Reconciling", "True", "Draining")]
    );
    let message = &waiting.conditions[0].message;
    for part in [
        "cannot read which forwarders may still publish to it: assetforwarders is forbidden. The cluster waits",
        "until 1970-01-01T00:11:40Z at most",
        SKIP_DRAIN,
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(waiting.member_of, ["line/a"], "what was known stays");
    assert_eq!(again_after(&deleted, &waiting, &Facts::Leaving, at(110)).as_secs(), 5);
}

/// What reconciles are given where the API server takes patches of this cluster and answers nothing else, and each patch.
fn mute(cluster: &NatsCluster) -> (Arc<Context>, UnboundedReceiver<Value>) {
    let (told, patches) = unbounded_channel();
    let answer = json!(cluster).to_string();
    let service = tower::service_fn(move |request: hyper::Request<Body>| {
        let (told, answer) = (told.clone(), answer.clone());
        async move {
            if request.method() != hyper::Method::PATCH {
                return std::future::pending().await;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            told.send(serde_json::from_slice(&body).unwrap()).unwrap();
            Ok::<_, Infallible>(hyper::Response::new(Full::<Bytes>::from(answer)))
        }
    });
    (fake_api::context(Client::new(service, "default")), patches)
}

async fn reconciled(cluster: NatsCluster) -> (Action, Value) {
    let (context, mut patches) = mute(&cluster);
    let (store, _writer) = reflector::store();
    let action = reconcile(Arc::new(cluster), context, store, at(0)).await.unwrap();
    (action, patches.recv().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_answers_no_question_holds_no_cluster() {
    let now = Timestamp::now().to_string();
    let deleted = |when: &str, annotations: Value| {
        let finalizers = [DRAIN, "example.com/other"];
        let metadata = json!({"deletionTimestamp": when, "annotations": annotations, "finalizers": finalizers});
        cluster(json!({}), metadata)
    };
    for goes in [
        deleted(&now, json!({SKIP_DRAIN: "true"})),
        deleted("1970-01-01T00:01:40Z", json!({})),
    ] {
        let (action, patch) = reconciled(goes).await;
        assert_eq!(action, Action::await_change());
        assert_eq!(patch["metadata"]["finalizers"], json!(["example.com/other"]));
    }
    let (action, patch) = reconciled(deleted(&now, json!({}))).await;
    assert_eq!(action, Action::requeue(Duration::from_secs(5)));
    let message = patch["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("may still publish to it: no answer within 20 s"),
        "{message}"
    );
}
