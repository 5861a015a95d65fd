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

/// The servers of one round.
fn round(pool: &mut ServerPool) -> Vec<String> {
    (0..pool.len()).map(|_| pool.next_server().to_string()).collect()
}

#[test]
fn what_is_no_address_is_named_without_its_password() {
    for (text, wanted) in [
        ("ws://secret@h", r#"the server URL "ws://h" has a scheme other than"#),
        ("u:secret@h:0", r#"the server URL "h:0" names no valid port"#),
        (
            "nats://u:sec/ret@h:1",
            r#"the server URL "nats://h:1" has before the @"#,
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
    assert_eq!(pool.next_server().url.host, "a");
    assert_eq!(ServerPool::new(&[]).unwrap_err(), AddressError::None);
}

#[test]
fn learnt_servers_come_and_go_and_configured_ones_stay() {
    let mut pool = pool(&["a", "b"]);
    let teacher = pool.next_server();
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
    let teacher = pool.next_server();
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
    let teacher = pool.next_server();
    let many: Vec<String> = (0..10_000).map(|host| format!("h{host}:1")).collect();
    pool.learn(&teacher, &many);
    assert_eq!(pool.len(), 1 + MAX_LEARNT);
}
