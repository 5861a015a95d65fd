use super::*;

fn parse(text: &str) -> ServerAddress {
    ServerAddress::parse(text).unwrap()
}

fn pool(servers: &[&str]) -> ServerPool {
    ServerPool::new(&texts(servers)).unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The server whose turn it is; the next call gives another one.
fn next_server(pool: &mut ServerPool) -> ServerAddress {
    let server = pool.in_turn()[0].clone();
    pool.used(&server);
    server
}

/// The servers of one round.
fn round(pool: &mut ServerPool) -> Vec<String> {
    (0..pool.len()).map(|_| next_server(pool).to_string()).collect()
}

#[test]
fn what_is_no_address_is_named_without_its_password() {
    for (text, wanted) in [
        ("ws://secret@h", r#"the server URL "ws://h" has a scheme other than"#),
        ("u:secret@h:0", r#"the server URL "h:0" names no valid port"#),
        (
            "nats://u:sec/ret@h:1",
            r#"the server URL "nats://h:1" must have a token or user:password before the @"#,
        ),
        ("", r#"the server URL "" is empty"#),
    ] {
        let message = ServerAddress::parse(text).unwrap_err().to_string();
        assert!(message.starts_with(wanted), "{text}: {message}");
    }
    let address = parse("u:secret@h");
    assert_eq!(format!("{address} {address:?}"), "nats://h:4222 nats://h:4222");
}

#[test]
fn servers_take_turns() {
    let mut pool = pool(&["a", "b", "c", "A:4222"]);
    assert_eq!(
        round(&mut pool),
        ["nats://a:4222", "nats://b:4222", "nats://c:4222"],
        "the same server counts once"
    );
    assert_eq!(next_server(&mut pool).url.host, "a");
    assert_eq!(ServerPool::new(&[]).unwrap_err(), AddressError::None);
}

#[test]
fn learnt_servers_come_and_go_and_configured_ones_stay() {
    let mut pool = pool(&["a", "b"]);
    let teacher = next_server(&mut pool);
    pool.learn(&teacher, &texts(&["a:4222", "10.0.0.1:1", "10.0.0.2:1", "bad host"]));
    assert_eq!(
        round(&mut pool),
        [
            "nats://b:4222",
            "nats://a:4222",
            "nats://10.0.0.1:1",
            "nats://10.0.0.2:1"
        ]
    );
    pool.learn(&teacher, &texts(&["10.0.0.2:1", "c:2", "[fd00::2]:3"]));
    assert_eq!(
        round(&mut pool),
        [
            "nats://b:4222",
            "nats://a:4222",
            "nats://10.0.0.2:1",
            "nats://c:2",
            "nats://[fd00::2]:3"
        ]
    );
    pool.learn(&teacher, &[]);
    assert_eq!(round(&mut pool), ["nats://b:4222", "nats://a:4222"]);
}

#[test]
fn learnt_servers_inherit_how_to_talk_to_them() {
    let mut pool = pool(&["tls://u:p@nats.example"]);
    let teacher = next_server(&mut pool);
    pool.learn(&teacher, &texts(&["10.0.0.1:1", "other.example:1"]));
    let (ip, named) = (
        pool.servers
            .iter()
            .find(|entry| entry.address.is_ip())
            .unwrap()
            .address
            .clone(),
        pool.servers
            .iter()
            .find(|entry| entry.address.url.host == "other.example")
            .unwrap()
            .address
            .clone(),
    );
    assert_eq!(
        (ip.url.tls, &ip.url.userinfo, ip.certificate_name()),
        (true, &teacher.url.userinfo, "nats.example")
    );
    assert_eq!((named.url.tls, named.certificate_name()), (true, "other.example"));
    // The name is handed on from one learnt server to the next.
    pool.learn(&ip, &texts(&["10.0.0.1:1", "10.0.0.3:1"]));
    let third = pool
        .servers
        .iter()
        .find(|entry| entry.address.url.host == "10.0.0.3")
        .unwrap();
    assert_eq!(third.address.certificate_name(), "nats.example");
}

#[test]
fn an_info_cannot_fill_the_memory() {
    let mut pool = pool(&["a"]);
    let teacher = next_server(&mut pool);
    let many: Vec<String> = (0..10_000).map(|host| format!("h{host}:1")).collect();
    pool.learn(&teacher, &many);
    assert_eq!(pool.len(), 1 + MAX_LEARNT);
}

#[test]
fn who_was_used_last_is_tried_last_also_when_it_has_named_others() {
    let mut pool = pool(&["a"]);
    let a = parse("a");
    pool.learn(&a, &texts(&["10.0.0.1:1", "10.0.0.2:1"]));
    pool.used(&a);
    let in_turn = |pool: &ServerPool| pool.in_turn().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        in_turn(&pool),
        ["nats://10.0.0.1:1", "nats://10.0.0.2:1", "nats://a:4222"]
    );
    pool.used(&parse("10.0.0.1:1"));
    assert_eq!(
        in_turn(&pool),
        ["nats://10.0.0.2:1", "nats://a:4222", "nats://10.0.0.1:1"]
    );
    pool.used(&parse("no-longer-known:1"));
    assert_eq!(pool.len(), 3);
}

fn info(cluster: &str, connect_urls: &[&str]) -> ServerInfo {
    ServerInfo {
        cluster: cluster.to_owned(),
        connect_urls: texts(connect_urls),
        ..ServerInfo::default()
    }
}

/// Whether a learnt server that says `found` is taken, where the configured one has said `wanted`.
fn takes(wanted: &str, found: &str) -> bool {
    let mut pool = pool(&["a"]);
    let learnt = parse("10.0.0.1:1");
    pool.meet(&parse("a"), &info(wanted, &["10.0.0.1:1"])).unwrap();
    let met = pool.meet(&learnt, &info(found, &["10.0.0.1:1", "10.0.0.9:1"]));
    let known = pool.contains(&learnt);
    assert_eq!(known, met.is_ok(), "who is refused is forgotten");
    assert_eq!(
        known,
        pool.contains(&parse("10.0.0.9:1")),
        "who is refused teaches nothing"
    );
    known
}

#[test]
fn a_learnt_server_of_another_cluster_is_refused_where_names_prove_something() {
    const RANDOM: [&str; 2] = ["gXkPq0mB2r8yTz4WvN1sLd", "gXkPq0mB2r8yTz4WvN1sLe"];
    const ID: &str = "NBGRYKEIWRDLTYQLGWSNXVYNYQMBRUPIVAQLQFGKIBNLCBKBAAXZBJKF";
    for (wanted, found, taken) in [
        ("plant", "plant", true),
        ("plant", "other", false),
        // A server of a named cluster takes on its name, so these are of none, or of an unnamed one.
        ("plant", "", false),
        ("plant", RANDOM[0], false),
        // The configured server's name is by chance: it will have another one after the next start.
        (RANDOM[0], RANDOM[1], true),
        (RANDOM[0], "plant", true),
        (ID, "plant", true),
        ("", "plant", true),
        ("", "", true),
    ] {
        assert_eq!(
            takes(wanted, found),
            taken,
            "{wanted:?} announces a server of {found:?}"
        );
    }
}

#[test]
fn the_cluster_has_the_name_that_a_configured_server_said_last() {
    let mut pool = pool(&["a", "10.0.0.1:1"]);
    pool.meet(&parse("a"), &info("plant", &["10.0.0.2:1"])).unwrap();
    let error = pool
        .meet(&parse("10.0.0.2:1"), &info("renamed", &["10.0.0.2:1"]))
        .unwrap_err()
        .to_string();
    for part in ["nats://10.0.0.2:1", "\"plant\"", "\"renamed\"", "discoverServers"] {
        assert!(error.contains(part), "{error}");
    }
    pool.meet(&parse("10.0.0.1:1"), &info("renamed", &["10.0.0.2:1"]))
        .unwrap();
    pool.meet(&parse("10.0.0.2:1"), &info("renamed", &["10.0.0.2:1"]))
        .unwrap();
}

#[test]
fn a_cluster_may_say_that_only_configured_servers_count() {
    let mut cluster: Cluster = serde_json::from_str(r#"{"name": "c", "servers": ["a", "b"]}"#).unwrap();
    let mut all = ServerPool::of(&cluster).unwrap();
    cluster.discover_servers = Some(false);
    let mut configured = ServerPool::of(&cluster).unwrap();
    for pool in [&mut all, &mut configured] {
        pool.meet(&parse("a"), &info("plant", &["10.0.0.1:1"])).unwrap();
    }
    assert_eq!((all.len(), configured.len()), (3, 2));
}
