//! What all rings together take.

use std::time::Duration;

use forwarder_core::document::RingConfig;
use forwarder_core::fanout::table::{Shape, Summary};

use super::*;
use crate::index::rings::state::ENTRY;
use crate::index::rings::tables::{NoTable, Tables};

fn summary(epoch: u64, name: &str, replicas: u32) -> Summary {
    let text =
        format!("epoch: {epoch}\nreplicas: {replicas}\nclusters:\n- name: {name}\n  servers: [nats://{name}:4222]\n");
    Summary::of(&RingConfig::from_yaml(&text).unwrap())
}

fn shape(name: &str, replicas: u32) -> Arc<Shape> {
    Arc::clone(summary(1, name, replicas).shape())
}

#[tokio::test]
async fn rings_of_one_shape_share_a_table_whatever_their_epochs_and_servers() {
    let tables = Tables::with_most(1_000);
    let mut elsewhere = RingConfig::from_yaml(RING).unwrap();
    elsewhere.epoch = 9;
    elsewhere.clusters[0].servers = vec!["nats://elsewhere:4222".to_owned()];
    let one = tables
        .of("plant", Summary::of(&RingConfig::from_yaml(RING).unwrap()).shape())
        .await
        .unwrap();
    let other = tables.of("other", Summary::of(&elsewhere).shape()).await.unwrap();
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(tables.nodes_of_each(), [128]);
}

#[tokio::test]
async fn the_table_that_was_used_least_recently_makes_room() {
    let tables = Tables::with_most(100);
    for replicas in [40, 41, 40, 42] {
        tables.of("plant", &shape("c", replicas)).await.unwrap();
    }
    assert_eq!(tables.nodes_of_each(), [40, 42], "41 was used before 40 was used again");
    tables.of("plant", &shape("c", 100)).await.unwrap();
    assert_eq!(tables.nodes_of_each(), [100], "one that just fits is alone");
    let refused = tables.of("plant", &shape("c", 101)).await.unwrap_err();
    assert_eq!(refused, NoTable::TooLarge { nodes: 101, most: 100 });
    assert_eq!(tables.nodes_of_each(), [100], "nobody made room for it");
}

#[tokio::test]
async fn many_requests_for_a_ring_make_one_table() {
    let tables = Tables::default();
    let shape = shape("c", 20_000);
    let asked = (0..32).map(|_| tables.of("plant", &shape));
    let rings: Vec<_> = futures::future::join_all(asked).await;
    assert_eq!(tables.made(), 1);
    let first = rings[0].as_ref().unwrap();
    assert!(rings.iter().all(|ring| Arc::ptr_eq(ring.as_ref().unwrap(), first)));
}

#[tokio::test]
async fn a_table_is_kept_also_where_nobody_waits_for_it_any_more() {
    let tables = Tables::default();
    let shape = shape("c", 50_000);
    let asked = tokio::time::timeout(Duration::ZERO, tables.of("plant", &shape)).await;
    assert!(asked.is_err(), "it was given up at once");
    // It is being made all the same, and this one waits for it.
    tables.of("plant", &shape).await.unwrap();
    assert_eq!((tables.nodes_of_each(), tables.made()), (vec![50_000], 1));
}

#[tokio::test]
async fn a_ring_that_does_not_fit_is_refused_in_a_sentence_and_others_are_answered() {
    let rings = Arc::new(Rings::with(Tables::with_most(200), usize::MAX));
    list(&rings, &["a", "b"]);
    see(&rings, &map("a", RING));
    see(&rings, &map("b", &RING.replace("clusters", "replicas: 201\nclusters")));
    rings.rings_listed(&[key("a"), key("b")].into());
    let (status, body) = get_json(&rings, "/forwarders/plant/b/asset/x").await;
    assert_eq!(status, 503);
    let said = body["error"].as_str().unwrap();
    assert!(
        said.contains("201 virtual nodes") && said.contains("spec.ring.replicas"),
        "{said}"
    );
    assert_eq!(get_json(&rings, "/forwarders/plant/a/asset/x").await.0, 200);
    let listed = get_json(&rings, "/forwarders").await.1;
    assert_eq!(listed["forwarders"][1]["ring_epoch"], 7, "it is listed all the same");
}

#[tokio::test]
async fn small_tables_neither_wait_for_large_ones_nor_give_way_to_them() {
    let tables = Tables::with(10, 20, 100);
    tables.of("plant", &shape("small", 10)).await.unwrap();
    tables.of("other", &shape("large", 100)).await.unwrap();
    assert_eq!(tables.nodes_of_each(), [10, 100]);
    let turn = tables.hold().await;
    let waits = tokio::time::timeout(Duration::ZERO, tables.of("other", &shape("large", 99))).await;
    assert!(waits.is_err(), "it is not its turn");
    tables.of("plant", &shape("small", 9)).await.unwrap();
    drop(turn);
    tables.of("other", &shape("large", 99)).await.unwrap();
    assert_eq!(tables.nodes_of_each(), [9, 10, 99]);
}

#[tokio::test]
async fn a_namespace_with_large_rings_gives_way_itself() {
    let tables = Tables::with_most(100);
    let ask = async |namespace: &str, replicas: u32| tables.of(namespace, &shape(namespace, replicas)).await.unwrap();
    ask("greedy", 50).await;
    ask("greedy", 49).await;
    assert_eq!(tables.nodes_of_each(), [49, 50], "nobody else wants the room");
    ask("plant", 20).await;
    assert_eq!(tables.nodes_of_each(), [20, 49]);
    for replicas in [50, 48, 47, 49] {
        ask("greedy", replicas).await;
        assert_eq!(
            tables.nodes_of_each(),
            [20, u64::from(replicas)],
            "in turn, they are its own"
        );
    }
    // One that is larger than half is answered from, and takes nothing from those within their half.
    ask("huge", 100).await;
    assert_eq!(tables.nodes_of_each(), [20, 49]);
}

#[tokio::test]
async fn one_namespace_has_few_tables_begun_and_is_told_to_ask_again() {
    let tables = Tables::with_most(10_000);
    let rings = Arc::new(Rings::with(tables.clone(), usize::MAX));
    list(&rings, &["a"]);
    see(&rings, &map("a", RING));
    rings.rings_listed(&[key("a")].into());
    let turn = tables.hold().await;
    let begin = async |namespace: &str, replicas: u32| {
        let shape = shape("c", replicas);
        let begun = tokio::time::timeout(Duration::ZERO, tables.of(namespace, &shape)).await;
        begun.map(|made| made.map(|_| ()))
    };
    for replicas in [1, 2, 3, 4, 4, 1] {
        assert!(begin("plant", replicas).await.is_err(), "it waits: {replicas}");
    }
    let busy = begin("plant", 5).await.unwrap().unwrap_err();
    assert!(matches!(busy, NoTable::Busy { most: 4, .. }), "{busy}");
    assert!(begin("other", 5).await.is_err(), "others wait for their turn");

    let request = Request::get("/asset/x").body(Body::empty()).unwrap();
    let response = routed(&rings).oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let (_, body) = get_json(&rings, "/asset/x").await;
    assert!(body["error"].as_str().unwrap().contains("ask again"), "{body}");
    drop(turn);
    tables.of("other", &shape("c", 5)).await.unwrap();
    assert_eq!(get_json(&rings, "/asset/x").await.0, 200);
}

#[test]
fn a_uid_that_no_api_server_makes_is_nobody_s() {
    for (length, is_taken) in [
        (0, false),
        (1, true),
        (36, true),
        (64, true),
        (65, false),
        (1 << 20, false),
    ] {
        let mut map = map("a", RING);
        own(&mut map, "AssetForwarder", "a", &"u".repeat(length));
        let heard = Heard::of(Event::Apply(map));
        let Heard::Seen { uid, .. } = heard else {
            panic!("{heard:?}");
        };
        assert_eq!(uid.is_some(), is_taken, "{length}");
    }
}

#[test]
fn documents_that_cannot_be_read_take_room_as_well() {
    let most = 100 * ENTRY;
    let rings = Rings::with(Tables::default(), most);
    for number in 0..1_000 {
        rings.ring_seen(key(&number.to_string()), "u".repeat(64), Document::Broken);
        let (bytes, entries) = rings.size();
        assert!(
            bytes <= most && bytes >= entries * (ENTRY + 64),
            "{bytes} of {entries} entries"
        );
    }
    assert!(rings.size().1 > 50, "what fits is kept");
    for number in 0..1_000 {
        rings.ring_gone(&key(&number.to_string()));
    }
    assert_eq!(rings.size(), (0, 0));
}

#[tokio::test]
async fn rings_of_nobody_go_before_any_live_one_wherever_they_are() {
    let summary = || summary(1, "c", 1);
    let rings = Rings::with(Tables::default(), 10 * (ENTRY + summary().bytes() + 20));
    let of = |namespace: &str, name: &str| Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let seen = |key: &Key| rings.ring_seen(key.clone(), "u".to_owned(), Document::Ring(summary()));
    // The live ones are of one namespace, the largest of all.
    let live: Vec<Key> = (0..5).map(|number| of("plant", &number.to_string())).collect();
    for key in &live {
        rings.forwarder_seen(key.clone(), "u".to_owned(), Progress::Unsaid);
        seen(key);
    }
    for number in 0..100 {
        seen(&of(&format!("other-{number}"), "a"));
    }
    for key in &live {
        assert!(rings.answer(key, "x".to_owned()).await.is_ok(), "{key}");
    }
    assert!(!rings.are_to_be_read_again());
}

#[tokio::test]
async fn a_ring_that_was_let_go_before_its_forwarder_was_seen_is_read_again() {
    let rings = Rings::with(Tables::default(), 2 * (ENTRY + summary(1, "c", 1).bytes() + 40));
    let seen = |name: &str| rings.ring_seen(key(name), uid(name), Document::Ring(summary(1, "c", 1)));
    let all = ["a", "b", "c", "d"];
    for name in all {
        seen(name);
    }
    let listed = BTreeSet::from(all.map(key));
    rings.rings_listed(&listed);
    // These gave way, since nobody was known to be live.
    for name in ["b", "c"] {
        rings.forwarder_seen(key(name), uid(name), Progress::Unsaid);
    }
    rings.forwarders_listed(&["b", "c"].map(key).into());
    assert!(rings.are_to_be_read_again());
    for name in all {
        seen(name);
    }
    rings.rings_listed(&listed);
    assert!(!rings.are_to_be_read_again());
    for name in ["b", "c"] {
        assert!(rings.answer(&key(name), "x".to_owned()).await.is_ok(), "{name}");
    }
    // A new forwarder without a document is no reason to read all of them again and again.
    rings.forwarder_seen(key("e"), uid("e"), Progress::Unsaid);
    rings.rings_listed(&listed);
    assert!(!rings.are_to_be_read_again());
}

#[tokio::test]
async fn the_namespace_with_the_largest_rings_gives_way() {
    let bytes = summary(1, "c", 1).bytes();
    // Entries without a ring, and four rings.
    let rings = Rings::with(
        Tables::default(),
        51 * (ENTRY + "other".len() + "11".len() + 1) + 4 * bytes,
    );
    let of = |namespace: &str, name: &str| Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let seen = |key: &Key| {
        rings.ring_seen(key.clone(), "u".to_owned(), Document::Ring(summary(1, "c", 1)));
    };
    let ours = of("plant", "a");
    rings.forwarder_seen(ours.clone(), "u".to_owned(), Progress::Unsaid);
    let theirs: Vec<Key> = (0..50).map(|number| of("other", &number.to_string())).collect();
    let (live, forged) = theirs.split_at(1);
    rings.forwarder_seen(live[0].clone(), "u".to_owned(), Progress::Unsaid);
    seen(&live[0]);
    for key in forged {
        seen(key);
    }
    seen(&ours);
    for key in forged {
        seen(key);
    }
    let answered = async |key: &Key| rings.answer(key, "x".to_owned()).await.is_ok();
    assert!(answered(&ours).await, "it is the only one of its namespace");
    assert!(answered(&live[0]).await, "rings of nobody give way first");
    assert!(!rings.are_to_be_read_again());

    // Live forwarders alone can be too many as well.
    for key in forged {
        rings.forwarder_seen(key.clone(), "u".to_owned(), Progress::Unsaid);
        seen(key);
    }
    assert!(answered(&ours).await);
    let mut kept = 0;
    let mut gone_before = Vec::new();
    for key in &theirs {
        if answered(key).await {
            kept += 1;
        } else {
            gone_before.push(key.clone());
        }
    }
    assert_eq!(kept, 3);
    for key in theirs.iter().filter(|key| !gone_before.contains(key)) {
        rings.ring_gone(key);
        rings.forwarder_gone(key);
    }
    assert!(rings.are_to_be_read_again(), "those that are left are to be read anew");
    seen(&gone_before[0]);
    assert!(answered(&gone_before[0]).await);
}
