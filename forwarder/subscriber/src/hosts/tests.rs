use super::*;

fn policy(urls: &[&str], allowed: Option<&[&str]>, has_login: bool) -> Policy {
    let allowed: Option<Vec<String>> = allowed.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect());
    let login_of: LoginOf = Arc::new(move |cluster| has_login.then(|| Login::user(cluster, "secret")));
    Policy::new(urls, allowed.as_deref(), login_of).unwrap()
}

/// Whether the client connects to this server, and logs in if it has a login.
fn uses(policy: &Policy, url: &str) -> bool {
    let route = policy.route("C2", &[url.to_owned()]);
    assert_eq!(route.servers.len() + route.refused.len(), 1);
    !route.servers.is_empty()
}

#[test]
fn a_login_goes_to_named_hosts_only_and_by_tls() {
    let plain = policy(&["nats://c1.example:4222"], None, true);
    let given = policy(&["tls://c1.example"], Some(&["*.plant.example", "nats://lab"]), true);
    for (policy, url, used) in [
        (&plain, "nats://c1.example:4222", true),
        (&plain, "tls://c1.example:4333", true),
        (&plain, "nats://c1.example:4333", false),
        (&plain, "tls://c2.example", false),
        (&plain, "nats://c2.example:4222", false),
        (&given, "tls://C1.example", true),
        (&given, "nats://c1.example", false),
        (&given, "tls://c2.plant.example", true),
        (&given, "nats://c2.plant.example", false),
        (&given, "tls://plant.example", false),
        (&given, "tls://evilplant.example", false),
        (&given, "tls://c2.plant.example.evil", false),
        (&given, "nats://lab:4999", true),
    ] {
        assert_eq!(uses(policy, url), used, "{url} by {policy:?}");
    }
    assert!(given.route("C2", &["tls://c1.example".to_owned()]).servers[0].needs_tls);
}

#[test]
fn without_a_login_a_client_goes_anywhere_unless_hosts_are_listed() {
    let anywhere = policy(&["nats://c1"], None, false);
    assert!(uses(&anywhere, "nats://c9"));
    let listed = policy(&["nats://c1"], Some(&["c2"]), false);
    assert!(uses(&listed, "nats://c2") && uses(&listed, "nats://c1:1") && !uses(&listed, "nats://c9"));
}

#[test]
fn what_is_no_address_is_refused_and_no_password_is_shown() {
    let no_login: LoginOf = Arc::new(|_| None);
    let none: [&str; 0] = [];
    assert!(matches!(
        Policy::new(&none, None, Arc::clone(&no_login)),
        Err(ConnectError::NoServer)
    ));
    for url in ["ws://c1", "http://c1", "nats://u:secret@c1", "nats://"] {
        let error = Policy::new(&[url], None, Arc::clone(&no_login))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("secret"), "{error}");
    }
    for host in ["", "*", "*.", "*x", "a b", "c1/x"] {
        assert!(
            Policy::new(&["c1"], Some(&[host.to_owned()]), Arc::clone(&no_login)).is_err(),
            "{host}"
        );
    }
    let route = policy(&["c1"], None, false).route("C2", &["nats://u:secret@c2".to_owned()]);
    assert!(route.reasons().starts_with("nats://c2: ") && !route.reasons().contains("secret"));
}
