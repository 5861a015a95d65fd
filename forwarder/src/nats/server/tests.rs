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
fn addresses_in_every_spelling() {
    for (text, shown) in [
        ("nats://a.example:4223", "nats://a.example:4223"),
        ("NATS://a", "nats://a:4222"),
        ("tls://a:1/", "tls://a:1"),
        (" a_b-c.d:1 ", "nats://a_b-c.d:1"),
        ("10.0.0.1", "nats://10.0.0.1:4222"),
        ("nats://[::1]:1", "nats://[::1]:1"),
        ("[fd00::1]", "nats://[fd00::1]:4222"),
        ("nats://user:secret@a:1", "nats://a:1"),
    ] {
        assert_eq!(parse(text).to_string(), shown, "{text}");
    }
    assert_eq!(parse("[::1]").host, "::1");
}

#[test]
fn credentials_in_a_url() {
    let info = |text: &str| parse(text).user_info;
    let user = |user: &str, password: &str| Some(UserInfo::UserPassword(user.to_owned(), password.to_owned()));
    assert_eq!(info("nats://tok%20en@h"), Some(UserInfo::Token("tok en".to_owned())));
    assert_eq!(info("nats://u:p@h"), user("u", "p"));
    assert_eq!(info("u:p%40%3a:x@h:1"), user("u", "p@::x"));
    assert_eq!(info("u:@h"), user("u", ""));
    assert_eq!(
        info("u:a@b@h"),
        user("u", "a@b"),
        "an @ that was not encoded still belongs to the password"
    );
}

#[test]
fn what_is_no_address_is_named_without_its_password() {
    let cases = [
        ("ws://secret@h", "the scheme must be"),
        ("http://h", "the scheme must be"),
        ("", "the host must be"),
        ("nats://secret@", "the host must be"),
        ("nats://a b", "the host must be"),
        ("nats://::1", "the host must be"),
        ("nats://[::1", "the host must be"),
        ("nats://[x]:1", "the host must be"),
        ("nats://[::1]x", "the host must be"),
        ("nats://u:secret@h:0", "the port must be"),
        ("h:65536", "the port must be"),
        ("h:+1", "the port must be"),
        ("h:", "the port must be"),
        ("h:1/x", "nothing may follow"),
        ("nats://u:sec/ret@h:1?x", "nothing may follow"),
        ("h:1,i:2", "nothing may follow"),
        ("nats://secret%2@h", "what stands before the @"),
        ("nats://%ff:secret@h", "what stands before the @"),
        ("nats://:secret@h", "what stands before the @"),
        ("nats://@h", "what stands before the @"),
    ];
    for (text, wanted) in cases {
        let message = ServerAddress::parse(text).unwrap_err().to_string();
        assert!(message.contains(wanted), "{text}: {message}");
        assert!(!message.contains("sec"), "{message}");
    }
    assert!(!format!("{:?}", parse("u:secret@h")).contains("secret"));
    assert!(!format!("{:?}", parse("u:secret@h").user_info).contains("secret"));
}

#[test]
fn servers_take_turns() {
    let mut pool = pool(&["a", "b", "c", "A:4222"]);
    assert_eq!(
        round(&mut pool),
        ["nats://a:4222", "nats://b:4222", "nats://c:4222"],
        "the same server counts once"
    );
    assert_eq!(pool.next_server().host, "a");
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
    pool.learn(&teacher, &texts(&["10.0.0.2:1", "c:2"]));
    assert_eq!(
        round(&mut pool),
        ["nats://b:4222", "nats://a:4222", "nats://10.0.0.2:1", "nats://c:2"]
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
            .find(|entry| entry.address.host == "other.example")
            .unwrap()
            .address
            .clone(),
    );
    assert_eq!(
        (ip.tls, &ip.user_info, ip.certificate_name()),
        (true, &teacher.user_info, "nats.example")
    );
    assert_eq!((named.tls, named.certificate_name()), (true, "other.example"));
    // The name is handed on from one learnt server to the next.
    pool.learn(&ip, &texts(&["10.0.0.1:1", "10.0.0.3:1"]));
    let third = pool
        .servers
        .iter()
        .find(|entry| entry.address.host == "10.0.0.3")
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
