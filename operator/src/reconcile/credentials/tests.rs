use std::collections::BTreeMap;
use std::path::Path;

use crds::NatsCluster;
use crds::kafka_channel::KafkaConnection;
use forwarder_core::document;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::*;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";

/// The Secret `s` of the namespace `plant`, with these keys.
fn secrets(data: &[(&str, &str)]) -> Secrets {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_owned()));
    Secrets::new("plant", BTreeMap::from([("s".to_owned(), data.collect())]))
}

fn cluster(more: Value) -> ClusterAccess {
    let mut spec = json!({"external": {"servers": ["nats://c1"]}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": "c1"}, "spec": spec});
    ClusterAccess::of(&serde_json::from_value::<NatsCluster>(object).unwrap())
}

fn auth(type_: &str) -> ClusterAccess {
    cluster(json!({"auth": {"type": type_, "secretRef": {"name": "s"}}}))
}

fn resolved(spec: &ClusterAccess, secrets: &Secrets) -> Result<NatsCredentials, CredentialsError> {
    nats(spec, secrets, "nats_plant_c1", Path::new("/etc/creds"))
}

fn creds_file(seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[test]
fn each_kind_of_credentials_becomes_a_file_that_the_configuration_names() {
    let seed = KeyPair::new_user().seed().unwrap();
    let creds = creds_file(&seed);
    let all = secrets(&[
        ("user.creds", &creds),
        ("seed", &format!("{seed}\n")),
        ("token", "t0ken"),
        ("username", "alice\n"),
        ("password", "secret"),
    ]);
    let file = Path::new("/etc/creds/nats_plant_c1_auth").to_owned();
    for (type_, wanted, content) in [
        (
            "Creds",
            document::NatsAuth::Creds { file: file.clone() },
            creds.as_str(),
        ),
        (
            "NKey",
            document::NatsAuth::NKey {
                seed_file: file.clone(),
            },
            &format!("{seed}\n"),
        ),
        ("Token", document::NatsAuth::Token { file: file.clone() }, "t0ken"),
        (
            "UserPassword",
            document::NatsAuth::UserPassword {
                username: "alice".to_owned(),
                password_file: file.clone(),
            },
            "secret",
        ),
    ] {
        let made = resolved(&auth(type_), &all).unwrap();
        assert_eq!(made.auth, Some(wanted));
        let files: Vec<_> = made.files.iter().collect();
        assert_eq!(files, [("nats_plant_c1_auth", content.as_bytes())]);
    }
}

#[test]
fn certificates_and_keys_become_files() {
    let spec =
        cluster(json!({"tls": {"caSecretRef": {"name": "s", "key": "ca.pem"}, "clientSecretRef": {"name": "s"}}}));
    assert_eq!(secrets_of_nats(&spec).into_iter().collect::<Vec<_>>(), ["s"]);
    let all = secrets(&[("ca.pem", CERTIFICATE), ("tls.crt", CERTIFICATE), ("tls.key", KEY)]);
    let made = resolved(&spec, &all).unwrap();
    let path = |part: &str| Some(Path::new("/etc/creds").join(format!("nats_plant_c1_{part}")));
    assert_eq!(
        made.tls,
        Some(document::Tls {
            ca_file: path("ca.crt"),
            cert_file: path("tls.crt"),
            key_file: path("tls.key"),
        })
    );
    assert_eq!(made.files.get("nats_plant_c1_tls.key"), Some(KEY.as_bytes()));
    let none = resolved(&cluster(json!({"tls": {}})), &secrets(&[])).unwrap();
    assert_eq!(
        none.tls,
        Some(document::Tls::default()),
        "TLS with the system's authorities"
    );
}

#[test]
fn a_channel_s_user_and_token_are_resolved() {
    let connection = |mechanism: &str| -> KafkaConnection {
        serde_json::from_value(json!({
            "bootstrapServers": ["k:9092"],
            "sasl": {"mechanism": mechanism, "secretRef": {"name": "s"}},
        }))
        .unwrap()
    };
    let all = secrets(&[("username", "u"), ("password", "p"), ("token", "a.b.c")]);
    let made = |mechanism| kafka(&connection(mechanism), &all, "kafka_plant_a", Path::new("/x")).unwrap();
    let file = Path::new("/x/kafka_plant_a_sasl").to_owned();
    let scram = made("SCRAM-SHA-512");
    assert_eq!(
        scram.connection.sasl,
        Some(document::Sasl::ScramSha512 {
            username: "u".to_owned(),
            password_file: file.clone(),
        })
    );
    assert_eq!(scram.files.get("kafka_plant_a_sasl"), Some(&b"p"[..]));
    let token = made("OAUTHBEARER");
    assert_eq!(
        token.connection.sasl,
        Some(document::Sasl::OAuthBearer { token_file: file })
    );
    assert_eq!(token.files.get("kafka_plant_a_sasl"), Some(&b"a.b.c"[..]));
}

#[test]
fn what_is_missing_or_something_else_is_named_and_never_shown() {
    let account = KeyPair::new_account().seed().unwrap();
    let in_creds = creds_file(&account);
    let tls = |part: &str| cluster(json!({"tls": {part: {"name": "s"}}}));
    for (spec, data, message) in [
        (auth("Token"), vec![("tok", "x")], "no key \"token\""),
        (auth("Token"), vec![("token", " \n")], "is empty"),
        (auth("Token"), vec![("token", "a\nb")], "several lines"),
        (auth("NKey"), vec![("seed", "SUsecret")], "no NKEY seed of a user"),
        (auth("NKey"), vec![("seed", &account)], "no NKEY seed of a user"),
        (auth("Creds"), vec![("user.creds", &in_creds)], "no credentials file"),
        (auth("UserPassword"), vec![("password", "p")], "no key \"username\""),
        (tls("caSecretRef"), vec![("ca.crt", "secret")], "no certificate in PEM"),
        (tls("caSecretRef"), vec![("ca.crt", KEY)], "no certificate in PEM"),
        (
            tls("clientSecretRef"),
            vec![("tls.crt", CERTIFICATE), ("tls.key", "x")],
            "no private key in PEM",
        ),
    ] {
        let error = resolved(&spec, &secrets(&data)).unwrap_err().to_string();
        assert!(error.contains("Secret plant/s") && error.contains(message), "{error}");
        for (_, value) in data.iter().filter(|(_, value)| value.len() > 2) {
            assert!(!error.contains(value), "{error}");
        }
    }
    let missing = resolved(&auth("Token"), &Secrets::new("plant", BTreeMap::new())).unwrap_err();
    assert_eq!(missing.reason(), "SecretMissing");
}

#[test]
fn a_prefix_is_part_of_a_key_and_of_one_resource_alone() {
    assert_eq!(prefix("nats", "plant", "c1"), "nats_plant_c1");
    let long = |last: &str| prefix("nats", &"n".repeat(63), &format!("{}{last}", "x".repeat(252)));
    assert_eq!(long("a").len(), 200);
    assert_ne!(long("a"), long("b"));
}

#[test]
fn the_hash_tells_files_apart() {
    let files = |pairs: &[(&str, &str)]| -> Files {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_owned()));
        Files::from(pairs.collect::<BTreeMap<_, _>>())
    };
    let one = files(&[("a", "bc"), ("d", "")]);
    assert_eq!(one.hash(), files(&[("d", ""), ("a", "bc")]).hash());
    for other in [&[("ab", "c"), ("d", "")][..], &[("a", "bcd")], &[("a", "bc")]] {
        assert_ne!(one.hash(), files(other).hash());
    }
    assert_eq!(format!("{one:?}"), r#"{"a", "d"}"#, "contents are never shown");
}

#[test]
fn written_files_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    Files::from(BTreeMap::from([("a".to_owned(), b"x".to_vec())]))
        .write(folder.path())
        .unwrap();
    let path = folder.path().join("a");
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_user_s_name_is_not_taken_from_a_key_that_must_stay_secret() {
    let all = secrets(&[
        ("login", "alice"),
        ("password", "hunter2"),
        ("token", "t0ken"),
        ("pass", "s3cret"),
    ]);
    let refused = |reference: Value| {
        let spec = cluster(json!({"auth": {"type": "UserPassword", "secretRef": reference}}));
        resolved(&spec, &all).map(|_| ())
    };
    assert_eq!(refused(json!({"name": "s", "usernameKey": "login"})), Ok(()));
    for reference in [
        json!({"name": "s", "usernameKey": "password"}),
        json!({"name": "s", "usernameKey": "token"}),
        json!({"name": "s", "usernameKey": "pass", "key": "pass"}),
        json!({"name": "s", "key": "login", "usernameKey": "password"}),
    ] {
        let error = refused(reference.clone()).unwrap_err();
        assert_eq!(error.reason(), "SecretInvalid", "{reference}");
        let said = error.to_string();
        assert!(said.contains("usernameKey"), "{said}");
        assert!(
            !["hunter2", "t0ken", "s3cret"].iter().any(|value| said.contains(value)),
            "{said}"
        );
    }
    let sasl = json!({"mechanism": "PLAIN", "secretRef": {"name": "s", "usernameKey": "pass", "key": "pass"}});
    let connection: KafkaConnection =
        serde_json::from_value(json!({"bootstrapServers": ["k:9092"], "sasl": sasl})).unwrap();
    let error = kafka(&connection, &all, "kafka_plant_a", Path::new("/x")).unwrap_err();
    assert_eq!(error.reason(), "SecretInvalid");
}

#[test]
fn all_credentials_of_one_resource_are_bounded_together() {
    let many = |kib: usize| {
        let certificate = format!(
            "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
            format!("{}\n", "A".repeat(64)).repeat(15)
        );
        certificate.repeat(kib)
    };
    let tls = json!({"caSecretRef": {"name": "s"}, "clientSecretRef": {"name": "s"}});
    let connection: KafkaConnection =
        serde_json::from_value(json!({"bootstrapServers": ["k:9092"], "tls": tls})).unwrap();
    for (of_client, fits) in [(100, true), (200, false)] {
        let all = secrets(&[("ca.crt", &many(200)), ("tls.crt", &many(of_client)), ("tls.key", KEY)]);
        let of_nats = resolved(&cluster(json!({"tls": tls})), &all).map(|_| ());
        let of_kafka = kafka(&connection, &all, "kafka_plant_a", Path::new("/x")).map(|_| ());
        assert_eq!(of_nats, of_kafka);
        assert_eq!(of_nats.is_ok(), fits, "{of_client}");
        if let Err(error) = of_nats {
            assert_eq!(error.reason(), "SecretInvalid");
            assert!(error.to_string().contains("384 KiB"), "{error}");
        }
    }
}
