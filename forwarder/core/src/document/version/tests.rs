use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::document::Beacon;

/// A ring as the first release reads it. These types are a copy that never changes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct FirstRing {
    epoch: u64,
    replicas: u32,
    handover_timeout_ms: u64,
    clusters: Vec<FirstCluster>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct FirstCluster {
    name: String,
    servers: Vec<String>,
    weight: u32,
    auth: Option<FirstAuth>,
    tls: Option<FirstTls>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
enum FirstAuth {
    Creds { file: PathBuf },
    NKey { seed_file: PathBuf },
    Token { file: PathBuf },
    UserPassword { username: String, password_file: PathBuf },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct FirstTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

fn first_reads(ring: &RingConfig) -> Result<FirstRing, String> {
    serde_saphyr::from_str(&ring.to_yaml().unwrap()).map_err(|error| error.to_string())
}

/// A cluster with every field that there is.
fn everything() -> Cluster {
    Cluster {
        name: "C1".to_owned(),
        servers: vec!["tls://c1:4222".to_owned()],
        weight: 2,
        auth: Some(NatsAuth::UserPassword {
            username: "plant".to_owned(),
            password_file: "/etc/nats/password".into(),
        }),
        tls: Some(Tls {
            ca_file: Some("/etc/nats/ca.pem".into()),
            cert_file: Some("/etc/nats/tls.pem".into()),
            key_file: Some("/etc/nats/key.pem".into()),
        }),
        discover_servers: Some(false),
        jet_stream: Some(JetStreamApi {
            domain: Some("leaf".to_owned()),
            api_prefix: None,
        }),
        inbox_prefix: Some("_INBOX_plant".to_owned()),
        client_servers: vec!["tls://nats.plant.example:443".to_owned()],
    }
}

fn ring(cluster: Cluster) -> RingConfig {
    RingConfig {
        epoch: 7,
        replicas: 128,
        handover_timeout_ms: 60_000,
        clusters: vec![cluster],
        beacon: None,
        mirror: None,
    }
}

#[test]
fn a_form_for_older_readers_is_what_the_first_release_reads() {
    let newest = everything();
    assert!(
        first_reads(&ring(newest.clone()))
            .unwrap_err()
            .contains("unknown field")
    );
    let first = newest.as_read_by(FIRST_RING_DOCUMENT_VERSION);
    first_reads(&ring(first.clone())).unwrap();
    let auths = [
        NatsAuth::Creds { file: "/f".into() },
        NatsAuth::NKey { seed_file: "/f".into() },
        NatsAuth::Token { file: "/f".into() },
    ];
    for auth in auths {
        let auth = Some(auth);
        first_reads(&ring(Cluster { auth, ..first.clone() })).unwrap();
    }
    // Nothing else is lost on the way.
    let back = Cluster {
        discover_servers: newest.discover_servers,
        jet_stream: newest.jet_stream.clone(),
        inbox_prefix: newest.inbox_prefix.clone(),
        client_servers: newest.client_servers.clone(),
        ..first
    };
    assert_eq!(back, newest);
    assert_eq!(newest.as_read_by(RING_DOCUMENT_VERSION), newest);
}

#[test]
fn the_version_is_that_of_the_newest_field_which_is_declared() {
    let newest = everything();
    let first = newest.as_read_by(FIRST_RING_DOCUMENT_VERSION);
    assert_eq!(ring(first.clone()).document_version(), FIRST_RING_DOCUMENT_VERSION);
    assert_eq!(first.newer_than(FIRST_RING_DOCUMENT_VERSION).count(), 0);
    for (one, field, version) in [
        (
            Cluster {
                discover_servers: Some(true),
                ..first.clone()
            },
            "discoverServers",
            2,
        ),
        (
            Cluster {
                jet_stream: newest.jet_stream.clone(),
                ..first.clone()
            },
            "jetStream",
            2,
        ),
        (
            Cluster {
                inbox_prefix: newest.inbox_prefix.clone(),
                ..first.clone()
            },
            "inboxPrefix",
            2,
        ),
        (
            Cluster {
                client_servers: newest.client_servers.clone(),
                ..first.clone()
            },
            "clientServers",
            3,
        ),
    ] {
        assert_eq!(one.newer_than(FIRST_RING_DOCUMENT_VERSION).collect::<Vec<_>>(), [field]);
        assert!(first_reads(&ring(one.clone())).unwrap_err().contains(field));
        let mut both = ring(first.clone());
        both.clusters.push(one);
        assert_eq!(both.document_version(), version);
    }
    assert_eq!(newest.newer_than(RING_DOCUMENT_VERSION).count(), 0);
    assert_eq!(newest.document_version(), 3, "or raise it with the newest field");
}

#[test]
fn the_beacon_is_left_out_for_readers_that_do_not_know_it() {
    let first = everything().as_read_by(FIRST_RING_DOCUMENT_VERSION);
    let with = RingConfig {
        beacon: Some(Beacon {
            subject: "_FANOUT.plant.assets".to_owned(),
            ring: "2f6c".to_owned(),
            key_file: "/etc/nats/beacon.seed".into(),
            grace_ms: 30_000,
        }),
        ..ring(first)
    };
    assert_eq!(with.document_version(), 3);
    assert!(first_reads(&with).unwrap_err().contains("unknown field"));
    let without = with.as_read_by(2);
    first_reads(&without).unwrap();
    assert_eq!(without.document_version(), FIRST_RING_DOCUMENT_VERSION);
    assert_eq!(with.as_read_by(3), with);
}

#[test]
fn copies_are_left_out_for_readers_that_do_not_know_them() {
    let first = ring(everything().as_read_by(FIRST_RING_DOCUMENT_VERSION));
    let with = RingConfig {
        mirror: Some(MirrorConfig {
            moved_ms: 600_000,
            previous: Some(PreviousRing::of(&first)),
        }),
        ..first
    };
    assert_eq!(with.document_version(), RING_DOCUMENT_VERSION);
    assert!(first_reads(&with).unwrap_err().contains("unknown field"));
    let without = with.as_read_by(RING_DOCUMENT_VERSION - 1);
    first_reads(&without).unwrap();
    assert_eq!(without.mirror, None);
    assert_eq!(with.as_read_by(RING_DOCUMENT_VERSION), with);
}
