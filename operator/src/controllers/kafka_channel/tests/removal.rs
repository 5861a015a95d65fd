//! Who uses a topic, and how a try to delete it ends.

use std::time::Instant;

use crds::AssetForwarder;
use kube::core::Status;

use super::super::creation::{NotOurs, Whose};
use super::super::removal::{Tried, concluded, may_delete};
use super::super::users::{self, Labels, Users, users};
use super::*;

fn named(namespace: &str, name: &str, servers: &[&str], topic: &str) -> KafkaChannel {
    let mut channel = channel(json!({"name": topic}), json!({"namespace": namespace, "name": name}));
    channel.spec.connection.bootstrap_servers = servers.iter().map(|server| (*server).to_owned()).collect();
    channel
}

fn in_cluster(mut channel: KafkaChannel, id: &str) -> KafkaChannel {
    channel.status = Some(KafkaChannelStatus {
        cluster_id: Some(id.to_owned()),
        ..KafkaChannelStatus::default()
    });
    channel
}

fn forwarder(namespace: &str, name: &str, source: Value, letters: Option<Value>) -> AssetForwarder {
    let mut object = json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "sources": [{"channelRef": source, "group": "g"}],
            "clusters": {"selector": {}},
            "publish": {"mode": "Core"},
        },
    });
    if let Some(letters) = letters {
        object["spec"]["deadLetter"] = json!({"type": "Channel", "channelRef": letters});
    }
    serde_json::from_value(object).unwrap()
}

#[test]
fn whoever_uses_a_topic_is_found() {
    let ours = in_cluster(named("plant", "a", &["K1.example.com:9092", "k2:9092"], "assets"), "id");
    let mut going = named("plant", "going", &["k2:9092"], "assets");
    going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("1970-01-01T00:01:40Z")).unwrap());
    let channels = [
        ours.clone(),
        named("other", "a", &["k1.example.com.:9092"], "assets"),
        named("plant", "port", &["k2:9093"], "assets"),
        named("plant", "topic", &["k2:9092"], "others"),
        in_cluster(named("plant", "id", &["elsewhere:9092"], "assets"), "id"),
        in_cluster(named("plant", "no-id", &["elsewhere:9092"], "assets"), "other"),
        going,
    ];
    let forwarders = [
        forwarder("plant", "reads", json!({"name": "a"}), None),
        forwarder("third", "reads-same-name", json!({"name": "a"}), None),
        forwarder(
            "plant",
            "letters",
            json!({"name": "topic"}),
            Some(json!({"name": "id"})),
        ),
        forwarder("plant", "of-one-that-goes", json!({"name": "going"}), None),
    ];
    let found = users(&ours, &channels, &forwarders, &Labels::new());
    assert_eq!(
        found.named,
        [
            "AssetForwarder plant/letters",
            "AssetForwarder plant/of-one-that-goes",
            "AssetForwarder plant/reads",
            "KafkaChannel plant/id",
        ]
    );
    assert_eq!(found.elsewhere, 1, "the channel other/a");
    let mut second = forwarder("plant", "as-its-second", json!({"name": "topic"}), None);
    let source = json!({"channelRef": {"name": "a"}, "group": "g"});
    second.spec.sources.push(serde_json::from_value(source).unwrap());
    let found = users(&ours, &channels[..1], &[second], &Labels::new());
    assert_eq!(found.named, ["AssetForwarder plant/as-its-second"]);
    assert!(users(&ours, &channels[..1], &[], &Labels::new()).is_empty());
}

/// The channel lets these namespaces in.
fn letting_in(mut channel: KafkaChannel, allowed: Value) -> KafkaChannel {
    channel.spec.allowed_namespaces = Some(serde_json::from_value(allowed).unwrap());
    channel
}

#[test]
fn users_in_other_namespaces_count_only_if_they_are_let_in_and_are_named_only_by_ours() {
    let blue = json!({"from": "Selector", "selector": {"matchLabels": {"team": "blue"}}});
    let ours = letting_in(named("plant", "a", &["k:9092"], "assets"), blue);
    let theirs = letting_in(named("secret", "b", &["k:9092"], "assets"), json!({"from": "All"}));
    let closed = named("closed", "c", &["k:9092"], "assets");
    let channels = [ours.clone(), theirs, closed];
    let reads =
        |namespace, of: &str, name: &str| forwarder(namespace, "f", json!({"name": name, "namespace": of}), None);
    let labels = |namespace: &str, team: &str| (namespace.to_owned(), map(&[("team", team)]));
    let labels = Labels::from([labels("blue", "blue"), labels("red", "red")]);
    let found = |forwarders: &[AssetForwarder]| users(&ours, &channels, forwarders, &labels);

    // The two channels.
    assert_eq!((found(&[]).named, found(&[]).elsewhere), (vec![], 2));
    let let_in = found(&[reads("blue", "plant", "a")]);
    assert_eq!(
        (let_in.named.as_slice(), let_in.elsewhere),
        (["AssetForwarder blue/f".to_owned()].as_slice(), 2)
    );
    for denied in [
        reads("red", "plant", "a"),
        reads("plant", "closed", "c"),
        reads("gone", "plant", "a"),
    ] {
        assert_eq!(found(&[denied]), found(&[]));
    }
    // What others do with another channel is not ours to tell.
    let of_theirs = found(&[reads("blue", "secret", "b")]);
    assert_eq!((of_theirs.named, of_theirs.elsewhere), (vec![], 3));
    let own = found(&[reads("plant", "secret", "b")]);
    assert_eq!(
        (own.named.as_slice(), own.elsewhere),
        (["AssetForwarder plant/f".to_owned()].as_slice(), 2)
    );
}

#[test]
fn users_that_are_not_named_are_told_by_their_number() {
    let told = |named: &[&str], elsewhere| used_by(named, elsewhere).to_string();
    assert_eq!(told(&["a", "b"], 0), "a, b");
    assert_eq!(told(&["a"], 1), "a and 1 in another namespace");
    assert_eq!(told(&["a", "b"], 2), "a, b and 2 in other namespaces");
    assert_eq!(told(&[], 1), "1 resource in another namespace");
    assert_eq!(told(&[], 2), "2 resources in other namespaces");
}

#[tokio::test]
async fn an_api_server_that_knows_no_channels_does_not_mean_that_there_are_none() {
    let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
    let client = fake_api::client(move |_, _| (404, status.to_string()));
    let context = fake_api::context(client);
    let error = users::listed(&context, &channel(json!({}), json!({})))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(refusal) if refusal.code == 404),
        "{error}"
    );
}

#[test]
fn a_topic_is_deleted_only_in_time_and_if_it_is_known_to_be_ours() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    assert_eq!(may_delete(Whose::Ours, "t", later), Ok(Ok(())));
    let late = may_delete(Whose::Ours, "t", now).unwrap_err();
    assert!(late.message.contains("too slow"), "{late:?}");
    let why = NotOurs::Another;
    assert_eq!(may_delete(Whose::NotOurs(why), "t", now), Ok(Err(Why::NotOurs(why))));

    // It waits, and no longer than anything else that is in the way.
    let untold = may_delete(Whose::Untold, "t", later).unwrap_err();
    let waits = || Ok(Tried::Waits(Facts::Failed(untold.clone())));
    assert_eq!(concluded(waits(), None), waits().unwrap());
    let bound = Duration::from_secs(300);
    let left = concluded(waits(), Some(bound));
    assert_eq!(left, Tried::Left(Why::Bound(bound, untold.message.clone())));
    assert!(untold.message.contains("do not return the ID"), "{untold:?}");
}

fn used_by(named: &[&str], elsewhere: usize) -> Users {
    let named = named.iter().map(|name| (*name).to_owned()).collect();
    Users { named, elsewhere }
}

#[test]
fn nothing_holds_a_deletion_up_beyond_its_bound() {
    let bound = Duration::from_secs(300);
    let in_use = || Ok(Tried::Waits(Facts::InUse(used_by(&["AssetForwarder plant/f"], 0))));
    assert_eq!(concluded(in_use(), None), in_use().unwrap());
    let left = |tried| match tried {
        Tried::Left(Why::Bound(_, hindrance)) => hindrance,
        other => panic!("{other:?}"),
    };
    assert!(left(concluded(in_use(), Some(bound))).contains("AssetForwarder plant/f"));

    let forbidden = || {
        let refusal = serde_json::from_value::<Status>(json!({
            "status": "Failure", "message": "secrets is forbidden", "reason": "Forbidden", "code": 403,
        }));
        Err(ReconcileError::Secrets(SecretsError {
            namespace: "plant".to_owned(),
            name: "login".to_owned(),
            source: Box::new(kube::Error::Api(Box::new(refusal.unwrap()))),
        }))
    };
    let waits = concluded(forbidden(), None);
    let Tried::Waits(facts) = &waits else {
        panic!("{waits:?}");
    };
    let deleted = channel(json!({}), json!({"deletionTimestamp": "1970-01-01T00:01:40Z"}));
    let status = status(&deleted, facts, None, at(1));
    assert_eq!(brief(&status)[0], ("Ready", "False", "TopicDeletionFailed"));
    assert!(
        status.conditions[0].message.contains("the Secret plant/login"),
        "{status:?}"
    );
    assert!(left(concluded(forbidden(), Some(bound))).contains("the Secret plant/login"));

    for ended in [Tried::Gone, Tried::Left(Why::NotOurs(NotOurs::NoRecord))] {
        assert_eq!(concluded(Ok(ended.clone()), Some(bound)), ended);
    }
}

#[test]
fn who_still_uses_a_topic_is_told() {
    let deleted = channel(json!({}), json!({"deletionTimestamp": "1970-01-01T00:01:40Z"}));
    let facts = Facts::InUse(used_by(&["KafkaChannel plant/b"], 2));
    let status = status(&deleted, &facts, None, at(1));
    assert_eq!(
        brief(&status),
        [("Ready", "False", "TopicInUse"), ("Reconciling", "True", "TopicInUse")]
    );
    let message = &status.conditions[0].message;
    assert!(
        message.contains("KafkaChannel plant/b and 2 in other namespaces"),
        "{message}"
    );
    assert_eq!(again_after(&deleted, &status, None, at(1)).as_secs(), 5);
}
