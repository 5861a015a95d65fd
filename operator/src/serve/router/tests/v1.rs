//! Both owners of an asset, and which ring is in use.

use forwarder_core::document::RingConfig;
use forwarder_core::fanout::table::{Summary, Table};

use super::*;
use crate::index::rings::tables::Tables;

async fn asked(routes: &Router, path: &str, known: Option<&str>) -> Answered {
    let request = Request::get(path);
    let request = known
        .into_iter()
        .fold(request, |request, tag| request.header("if-none-match", tag));
    ask(routes, request.body(Body::empty()).unwrap()).await
}

/// Who owns an asset in a ring of these clusters, found without the router.
fn owner(clusters: &[&str], asset: &str) -> Value {
    let clusters: Vec<_> = clusters
        .iter()
        .map(|name| json!({"name": name, "servers": [format!("nats://{name}:4222")]}))
        .collect();
    let config: RingConfig = serde_json::from_value(json!({"epoch": 1, "clusters": clusters})).unwrap();
    let answer = Table::new(&config).unwrap().answer(asset.to_owned()).unwrap();
    json!({"cluster_name": answer.cluster_name, "nats_urls": answer.nats_urls, "client_urls": answer.nats_urls})
}

#[tokio::test]
async fn during_a_move_both_owners_are_told() {
    let rings = moving();
    let routes = routed(&rings);
    let mut moved = 0;
    for asset in (0..40).map(|number| format!("W{number}")) {
        let answered = asked(&routes, &format!("/v1/assets/{asset}"), None).await;
        let old = owner(&["C1", "C2", "C3"], &asset);
        let new = owner(&["C1", "C2", "C3", "C4"], &asset);
        let previous = if old == new { Value::Null } else { old.clone() };
        moved += u32::from(!previous.is_null());
        let told = json!({
            "asset_id": asset, "owner": new, "previous": previous, "ring": {"epoch": 9, "phase": "announced"},
        });
        assert_eq!((answered.status, answered.json()), (200, told));
        let first = get_json(&rings, &format!("/asset/{asset}")).await.1;
        assert_eq!(first["cluster_name"], old["cluster_name"], "the ring in use");
        assert_eq!(first["ring_epoch"], 8);
    }
    assert!((1..40).contains(&moved), "{moved}");
    assert_eq!(
        get_json(&rings, "/forwarders").await.1["forwarders"][0]["ring_epoch"],
        8
    );
    say(&rings, "a", Progress::Some);
    assert_eq!(get_json(&rings, "/asset/x").await.1["ring_epoch"], 8);
    say(&rings, "a", Progress::All(9));
    assert_eq!(get_json(&rings, "/asset/x").await.1["ring_epoch"], 9);
    let answered = get_json(&rings, "/v1/assets/x?forwarder=plant/a").await.1;
    assert_eq!(answered["ring"], json!({"epoch": 9, "phase": "inUse"}));
    assert!(answered["previous"].is_null());
}

#[tokio::test]
async fn a_cluster_that_gets_other_servers_is_told_with_both() {
    let rings = rings(&["a"]);
    say(&rings, "a", Progress::All(7));
    let next = RING
        .replace("epoch: 7", "epoch: 8")
        .replace("nats://c1b:4222", "nats://c1c:4222");
    see(&rings, &map("a", &next));
    let told = get_json(&rings, "/v1/assets/x").await.1;
    let with = |second: &str| {
        let urls = ["nats://c1:4222", second];
        json!({"cluster_name": "C1", "nats_urls": urls, "client_urls": urls})
    };
    assert_eq!(
        (&told["owner"], &told["previous"]),
        (&with("nats://c1c:4222"), &with("nats://c1b:4222"))
    );
}

#[tokio::test]
async fn subscribers_are_told_where_they_reach_a_cluster_and_of_each_change_of_that() {
    let rings = rings(&["a"]);
    say(&rings, "a", Progress::All(7));
    let routes = routed(&rings);
    let first = asked(&routes, "/v1/assets/x", None).await;
    let declared = |url: &str| RING.replacen("servers:", &format!("clientServers: ['{url}']\n  servers:"), 1);
    for url in ["wss://c1.example:443", "wss://other.example:443"] {
        see(&rings, &map("a", &declared(url)));
        let again = asked(&routes, "/v1/assets/x", Some(first.header("etag"))).await;
        assert_eq!(again.status, 200, "the answer is another one");
        let owner = &again.json()["owner"];
        assert_eq!(owner["client_urls"], json!([url]));
        assert_eq!(owner["nats_urls"], json!(["nats://c1:4222", "nats://c1b:4222"]));
    }
}

#[tokio::test]
async fn a_replica_that_starts_in_mid_change_answers_the_ring_as_written() {
    let rings = Arc::new(Rings::default());
    list(&rings, &["a"]);
    say(&rings, "a", Progress::Some);
    write(&rings, "a", 9, &["C1", "C4"]);
    rings.rings_listed(&[key("a")].into());
    let answered = get_json(&rings, "/v1/assets/x").await.1;
    assert_eq!(answered["ring"], json!({"epoch": 9, "phase": "unknown"}));
    assert_eq!(get_json(&rings, "/asset/x").await.1["ring_epoch"], 9);
    let routes = routed(&rings);
    let tag = asked(&routes, "/v1/assets/x", None).await.header("etag").to_owned();
    say(&rings, "a", Progress::All(9));
    let answered = asked(&routes, "/v1/assets/x", Some(&tag)).await;
    assert_eq!(answered.status, 200, "the phase is another one");
    assert_eq!(answered.json()["ring"]["phase"], "inUse");
}

#[tokio::test]
async fn an_answer_holds_as_long_as_its_rings_and_their_phase() {
    let rings = rings(&["a"]);
    let routes = routed(&rings);
    let first = asked(&routes, "/v1/assets/x", None).await;
    assert_eq!(first.header("cache-control"), "max-age=5");
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("\"7-") && tag.ends_with('"'), "{tag}");
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        "*".to_owned(),
    ] {
        let again = asked(&routes, "/v1/assets/x", Some(&known)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        assert_eq!(again.header("etag"), tag);
    }
    say(&rings, "a", Progress::Some);
    let same = asked(&routes, "/v1/assets/x", Some(&tag)).await;
    assert_eq!(same.status, 304, "a pod is made anew");

    // Each step makes another answer.
    let steps: [(&dyn Fn(), &str); 4] = [
        (
            &|| see(&rings, &map("a", &RING.replace("nats://c1:", "nats://elsewhere:"))),
            "max-age=5",
        ),
        (&|| write(&rings, "a", 8, &["C1", "C2"]), "max-age=1"),
        (&|| say(&rings, "a", Progress::All(8)), "max-age=5"),
        (
            &|| {
                rings.forwarder_seen(key("a"), "another".to_owned(), Progress::Unsaid);
                let mut anew = map("a", RING);
                own(&mut anew, "AssetForwarder", "a", "another");
                see(&rings, &anew);
            },
            "max-age=5",
        ),
    ];
    let mut tags = BTreeSet::from([tag]);
    for (step, age) in steps {
        step();
        let known: Vec<&str> = tags.iter().map(String::as_str).collect();
        let answered = asked(&routes, "/v1/assets/x", Some(&known.join(","))).await;
        assert_eq!((answered.status, answered.header("cache-control")), (200, age));
        assert!(tags.insert(answered.header("etag").to_owned()));
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_json() {
    let two = routed(&rings(&["a", "b"]));
    let long = format!("/v1/assets/{}?forwarder=plant/a", "x".repeat(513));
    for (path, status, said) in [
        ("/v1/assets/x", 409, "name one"),
        ("/v1/assets/x?forwarder=b", 400, "namespace/name"),
        ("/v1/assets/x?forwarder=plant/a&forwarder=plant/b", 400, "duplicate"),
        ("/v1/assets/x?forwarder=plant/c", 404, "plant/c"),
        ("/v1/assets/%FF", 400, "UTF-8"),
        (&*long, 400, "512"),
    ] {
        let answered = asked(&two, path, None).await;
        assert_eq!(answered.status, status, "{path}");
        assert!(answered.error().contains(said), "{path}: {}", answered.error());
    }
    let most = format!("/v1/assets/{}?forwarder=plant/a", "%C3%A4".repeat(512));
    assert_eq!(
        asked(&two, &most, None).await.status,
        200,
        "characters count, not bytes"
    );
    let unread = routed(&Arc::new(Rings::default()));
    assert_eq!(asked(&unread, "/v1/assets/x", None).await.status, 503);
    let none = routed(&rings(&[]));
    assert_eq!(asked(&none, "/v1/assets/x", None).await.status, 404);
}

#[tokio::test]
async fn a_forged_ring_is_neither_in_use_nor_announced_nor_the_one_before() {
    let rings = moving();
    let before = get_json(&rings, "/v1/assets/x").await;
    let text = |epoch| format!("epoch: {epoch}\nclusters:\n- name: EVIL\n  servers: [nats://evil:4222]\n");
    let mut forged = map("a", &text(10));
    own(&mut forged, "AssetForwarder", "a", "another");
    see(&rings, &forged);
    let size = rings.size();
    for epoch in 11..20 {
        forged.data = map("a", &text(epoch)).data;
        see(&rings, &forged);
    }
    assert_eq!(
        rings.size(),
        size,
        "of a ring of nobody none is remembered but the last"
    );
    let mut elsewhere = map("a", &text(10));
    elsewhere.metadata.namespace = Some("other".to_owned());
    see(&rings, &elsewhere);
    assert_eq!(get_json(&rings, "/v1/assets/x").await, before);
    // Its own document comes back, and the ring before is still known.
    write(&rings, "a", 9, &["C1", "C2", "C3", "C4"]);
    assert_eq!(get_json(&rings, "/v1/assets/x").await, before);
}

#[tokio::test]
async fn rings_from_before_count_as_memory_and_go_before_any_written_one() {
    let one =
        |epoch| Summary::of(&RingConfig::from_yaml(&RING.replace("epoch: 7", &format!("epoch: {epoch}"))).unwrap());
    let with = |most| {
        let rings = Arc::new(Rings::with(Tables::default(), most));
        list(&rings, &["a", "b"]);
        for forwarder in ["a", "b"] {
            say(&rings, forwarder, Progress::All(7));
            rings.ring_seen(key(forwarder), uid(forwarder), Document::Ring(one(7)));
        }
        rings.rings_listed(&["a", "b"].map(key).into());
        rings
    };
    let (two, _) = with(usize::MAX).size();
    for (room, phase) in [(one(8).bytes(), "announced"), (one(8).bytes() - 1, "unknown")] {
        let rings = with(two + room);
        rings.ring_seen(key("a"), uid("a"), Document::Ring(one(8)));
        assert!(rings.size().0 <= two + room);
        let answered = get_json(&rings, "/v1/assets/x?forwarder=plant/a").await;
        assert_eq!(answered.1["ring"], json!({"epoch": 8, "phase": phase}));
        assert_eq!(get_json(&rings, "/v1/assets/x?forwarder=plant/b").await.0, 200);
        say(&rings, "a", Progress::All(8));
        assert_eq!(rings.size().0, two, "what is left is forgotten");
        rings.forwarder_gone(&key("b"));
        rings.ring_gone(&key("b"));
        rings.ring_seen(key("a"), uid("a"), Document::Ring(one(9)));
        rings.forwarder_gone(&key("a"));
        rings.ring_gone(&key("a"));
        assert_eq!(rings.size(), (0, 0));
    }
}
