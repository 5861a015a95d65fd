//! Every way to say who we are, to Kafka and to NATS; and what happens when it is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use e2e_rig::certificates::{Authority, self_signed};
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::{self, Door, Kafka, Mechanism};
use e2e_rig::nats::{Login, Nats, Operator, Options, User, user_nkey};
use e2e_rig::wait;
use forwarder_core::document::{Config, KafkaConnection, NatsAuth, PublishMode, Sasl, Tls};

use crate::stage::{PUBLISHED, SOON, Stage};

#[tokio::test]
async fn records_arrive_by_every_sasl_mechanism_of_kafka() {
    let stage = behind(Door {
        tls: false,
        sasl: Some(Mechanism::Plain),
    })
    .await;
    let secured = stage.kafka.secured().unwrap();
    for mechanism in Mechanism::ALL {
        let config = through(&stage, secured.connection_by(Some(mechanism)));
        arrives(&stage, &config).await;
    }
    let wrong = stage.clusters[0].1.dir().join("wrong-password");
    fs::write(&wrong, "let-me-out").unwrap();
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha512] {
        let mut connection = secured.connection_by(Some(mechanism));
        set_password_file(&mut connection, &wrong);
        refused(&stage, &through(&stage, connection), "Authentication failed").await;
    }
    let missing = stage.clusters[0].1.dir().join("missing");
    for mechanism in Mechanism::ALL {
        let mut connection = secured.connection_by(Some(mechanism));
        set_password_file(&mut connection, &missing);
        never_starts(&through(&stage, connection), &missing).await;
    }
    // After all of that nothing is lost.
    arrives(&stage, &through(&stage, secured.connection())).await;
}

#[tokio::test]
async fn records_arrive_with_a_client_certificate_of_kafka() {
    let stage = behind(Door { tls: true, sasl: None }).await;
    let secured = stage.kafka.secured().unwrap();
    arrives(&stage, &through(&stage, secured.connection())).await;

    let mut nameless = secured.connection();
    let tls = nameless.tls.as_mut().unwrap();
    (tls.cert_file, tls.key_file) = (None, None);
    refused(&stage, &through(&stage, nameless), "SSL").await;

    let missing = stage.clusters[0].1.dir().join("missing");
    let mut connection = secured.connection();
    connection.tls.as_mut().unwrap().key_file = Some(missing.clone());
    never_starts(&through(&stage, connection), &missing).await;
    arrives(&stage, &through(&stage, secured.connection())).await;
}

#[tokio::test]
async fn records_arrive_with_an_authority_and_a_password_of_kafka() {
    let stage = behind(Door {
        tls: true,
        sasl: Some(Mechanism::ScramSha256),
    })
    .await;
    let mut connection = stage.kafka.secured().unwrap().connection();
    let tls = connection.tls.as_mut().unwrap();
    (tls.cert_file, tls.key_file) = (None, None);
    arrives(&stage, &through(&stage, connection.clone())).await;

    let mut wrong = connection.clone();
    wrong.tls.as_mut().unwrap().ca_file = Some(other_authority(&stage));
    refused(&stage, &through(&stage, wrong), "certificate verify failed").await;
    arrives(&stage, &through(&stage, connection)).await;
}

#[tokio::test]
async fn core_records_arrive_by_every_login_of_nats() {
    every_login(PublishMode::Core).await;
}

#[tokio::test]
async fn jetstream_records_arrive_by_every_login_of_nats() {
    every_login(PublishMode::JetStream).await;
}

/// A cluster for each: password, token, NKEY, credentials file, TLS, TLS with a client certificate.
async fn every_login(mode: PublishMode) {
    let (nkey, seed) = user_nkey().unwrap();
    let operator = Operator::new().unwrap();
    let logins = [
        (Login::Users(vec![user()]), "UserPassword", PASSWORD.to_owned()),
        (Login::Token("a-token".to_owned()), "Token", "a-token".to_owned()),
        (
            Login::Users(vec![User {
                nkey: Some(nkey),
                ..User::default()
            }]),
            "NKey",
            seed,
        ),
        (Login::Operator(operator.clone()), "Creds", operator.creds().to_owned()),
    ];
    let (mut servers, mut auths) = (Vec::new(), Vec::new());
    for (login, kind, secret) in logins {
        let options = Options {
            login,
            ..Options::default()
        };
        let nats = Nats::start_with(options).await.unwrap();
        let file = nats.dir().join("secret");
        fs::write(&file, secret).unwrap();
        auths.push(match kind {
            "UserPassword" => NatsAuth::UserPassword {
                username: user().name,
                password_file: file,
            },
            "Token" => NatsAuth::Token { file },
            "NKey" => NatsAuth::NKey { seed_file: file },
            _ => NatsAuth::Creds { file },
        });
        servers.push(nats);
    }
    for client_certificate in [false, true] {
        servers.push(with_tls(client_certificate).await);
    }
    let stage = Stage::of(Kafka::shared().await.unwrap(), mode, servers).await;
    let mut config = stage.config();
    for (cluster, auth) in config.ring.clusters.iter_mut().zip(auths) {
        cluster.auth = Some(auth);
    }
    config.ring.clusters[4].tls = Some(trusting(&stage.clusters[4].1));
    let both = stage.clusters[5].1.tls().unwrap();
    config.ring.clusters[5].tls = Some(Tls {
        cert_file: Some(both.client.cert_file.clone()),
        key_file: Some(both.client.key_file.clone()),
        ..trusting(&stage.clusters[5].1)
    });
    let _forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(6_000).await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check_exactly_once().unwrap();
    let tally = stage.tally().await;
    for (cluster, (name, _)) in (0..).zip(&stage.clusters) {
        assert!(
            tally.of_cluster(cluster) > 0,
            "{name} has no asset, so it proves nothing"
        );
    }
}

/// Each fault is told, none of them ends the process, and each is over as soon as its file is right.
#[tokio::test]
async fn wrong_credentials_of_nats_are_told_and_may_be_corrected_in_place() {
    let password = Nats::start_with(Options {
        login: Login::Users(vec![user()]),
        ..Options::default()
    });
    let token = Nats::start_with(Options {
        login: Login::Token("a-token".to_owned()),
        ..Options::default()
    });
    let servers = vec![password.await.unwrap(), with_tls(false).await, token.await.unwrap()];
    let stage = Stage::of(Kafka::shared().await.unwrap(), PublishMode::Core, servers).await;
    let dir = stage.clusters[0].1.dir();
    let (password_file, ca_file, token_file) = (dir.join("password"), dir.join("ca.pem"), dir.join("token"));
    fs::write(&password_file, "wrong").unwrap();
    fs::copy(other_authority(&stage), &ca_file).unwrap();
    let mut config = stage.config();
    config.ring.clusters[0].auth = Some(NatsAuth::UserPassword {
        username: user().name,
        password_file: password_file.clone(),
    });
    config.ring.clusters[1].tls = Some(Tls {
        ca_file: Some(ca_file.clone()),
        ..Tls::default()
    });
    config.ring.clusters[2].auth = Some(NatsAuth::Token {
        file: token_file.clone(),
    });
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(1_200).await.unwrap();
    for (cluster, said) in [
        ("C1", "does not accept our credentials"),
        ("C2", "the TLS handshake with the NATS server"),
        ("C3", "failed to read the credentials file"),
    ] {
        let error = stage.wait_last_error(&forwarder, cluster, said).await;
        let log = forwarder.process().log().unwrap();
        assert!(log.contains(said), "the log says it too: {log}");
        assert!(
            !error.contains("wrong") && !log.contains("a-token"),
            "no secret is told"
        );
    }
    let error = stage.wait_last_error(&forwarder, "C3", "token").await;
    assert!(error.contains(&*token_file.to_string_lossy()), "{error}");
    assert_eq!(forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]), 0.0);
    assert_eq!(stage.kafka.lag(&stage.group, &stage.topic).await.unwrap(), 1_200);

    fs::write(&password_file, PASSWORD).unwrap();
    fs::copy(&stage.clusters[1].1.tls().unwrap().authority.ca_file, &ca_file).unwrap();
    fs::write(&token_file, "a-token\n").unwrap();
    stage.verdict().await.check().unwrap();
    assert!(
        forwarder.process().try_exit().unwrap().is_none(),
        "still the same process"
    );
}

/// Whoever makes a certificate with `openssl req -x509` has an authority's, and gives it to the server and as `caFile`.
#[tokio::test]
async fn a_self_signed_certificate_is_told_what_it_lacks_to_be_a_servers() {
    let dir = tempfile::tempdir().unwrap();
    let (mut servers, mut files) = (Vec::new(), Vec::new());
    for ca in [true, false] {
        let pair = self_signed(dir.path(), if ca { "authority" } else { "server" }, ca).unwrap();
        let tls = format!(
            "tls {{cert_file: {:?}, key_file: {:?}}}\n",
            pair.cert_file, pair.key_file
        );
        servers.push(
            Nats::start_with(Options {
                config: tls,
                ..Options::default()
            })
            .await
            .unwrap(),
        );
        files.push(pair.cert_file);
    }
    let stage = Stage::unrecorded(Kafka::shared().await.unwrap(), PublishMode::Core, servers).await;
    let mut config = stage.config();
    for (cluster, file) in config.ring.clusters.iter_mut().zip(files) {
        cluster.tls = Some(Tls {
            ca_file: Some(file),
            ..Tls::default()
        });
    }
    let forwarder = stage.start("forwarder", &config).await;
    let error = stage.wait_last_error(&forwarder, "C1", "CA:TRUE").await;
    assert!(error.contains("basicConstraints=critical,CA:FALSE"), "{error}");
    // One that does as the sentence says is fine.
    wait::eventually(SOON, "the other one is connected", || async {
        Ok(forwarder.status().await?["clusters"]["C2"]["connected"] == true)
    })
    .await
    .unwrap();
}

/// The server's password changes first and the file later, as a rotation may have it.
#[tokio::test]
async fn a_password_of_nats_is_rotated_under_traffic() {
    let nats = Nats::start_with(Options {
        login: Login::Users(vec![user()]),
        ..Options::default()
    })
    .await
    .unwrap();
    let mut stage = Stage::of(
        Kafka::shared().await.unwrap(),
        PublishMode::JetStream,
        vec![nats, Nats::start().await.unwrap()],
    )
    .await;
    let password_file = stage.clusters[0].1.dir().join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    let mut config = stage.config();
    config.ring.clusters[0].auth = Some(NatsAuth::UserPassword {
        username: user().name,
        password_file: password_file.clone(),
    });
    let forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(2_000);
    stage.wait_published(&forwarder, 2_000.0).await;
    stage.clusters[0].1.reconfigure(PASSWORD, "another-one").unwrap();
    stage
        .wait_last_error(&forwarder, "C1", "does not accept our credentials")
        .await;
    // The other cluster's assets flow on.
    stage.wait_published(&forwarder, 1_000.0).await;
    fs::write(&password_file, "another-one").unwrap();
    wait::eventually(SOON, "it is connected again", || async {
        Ok(forwarder.status().await?["clusters"]["C1"]["connected"] == true)
    })
    .await
    .unwrap();
    stage.wait_published(&forwarder, 2_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

const PASSWORD: &str = "forwards-all";

fn user() -> User {
    User {
        name: "forwarder".to_owned(),
        password: PASSWORD.to_owned(),
        ..User::default()
    }
}

async fn with_tls(client_certificate: bool) -> Nats {
    Nats::start_with(Options {
        tls: true,
        client_certificate,
        ..Options::default()
    })
    .await
    .unwrap()
}

fn trusting(nats: &Nats) -> Tls {
    Tls {
        ca_file: Some(nats.tls().unwrap().authority.ca_file.clone()),
        ..Tls::default()
    }
}

/// The certificate of an authority that has signed nothing.
fn other_authority(stage: &Stage) -> PathBuf {
    Authority::new(&stage.clusters[0].1.dir().join("other"))
        .unwrap()
        .ca_file
}

/// A stage whose broker has this door.
async fn behind(door: Door) -> Stage {
    let options = kafka::Options {
        door: Some(door),
        ..kafka::Options::default()
    };
    Stage::with(Kafka::start_with(options).await.unwrap(), PublishMode::Core, 1).await
}

/// The stage's configuration with another way into Kafka.
fn through(stage: &Stage, connection: KafkaConnection) -> Config {
    let mut config = stage.config();
    let properties = config.source.connection.properties;
    config.source.connection = KafkaConnection {
        properties,
        ..connection
    };
    config
}

fn set_password_file(connection: &mut KafkaConnection, file: &Path) {
    match connection.sasl.as_mut().unwrap() {
        Sasl::Plain { password_file, .. }
        | Sasl::ScramSha256 { password_file, .. }
        | Sasl::ScramSha512 { password_file, .. } => *password_file = file.to_owned(),
        Sasl::OAuthBearer { token_file } => *token_file = file.to_owned(),
    }
}

/// What is sent arrives, together with all that was sent before.
async fn arrives(stage: &Stage, config: &Config) {
    let mut forwarder = stage.start("forwarder", config).await;
    stage.traffic.send(600).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
    assert!(forwarder.terminate(SOON).await.unwrap().success());
}

/// The broker lets nobody in: the log says why, the process lives on and is not ready, and nothing moves.
async fn refused(stage: &Stage, config: &Config, said: &str) {
    let before = stage.kafka.lag(&stage.group, &stage.topic).await.unwrap();
    let mut forwarder = Forwarder::start(config).unwrap();
    wait::eventually(SOON, &format!("the log says {said:?}"), || {
        let log = forwarder.process().log();
        async move {
            let log = log?;
            anyhow::ensure!(log.contains(said), "{log}");
            Ok(true)
        }
    })
    .await
    .unwrap();
    assert_ne!(forwarder.page("/readyz").await.unwrap().0, 200);
    assert_eq!(forwarder.page("/healthz").await.unwrap().0, 200);
    assert!(forwarder.process().try_exit().unwrap().is_none());
    assert!(forwarder.terminate(SOON).await.unwrap().success());
    assert_eq!(stage.kafka.lag(&stage.group, &stage.topic).await.unwrap(), before);
}

/// A file that is not there cannot become right for a process that reads it once.
async fn never_starts(config: &Config, missing: &Path) {
    let mut forwarder = Forwarder::start(config).unwrap();
    let status = forwarder.wait_exit(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = forwarder.process().log().unwrap();
    assert!(log.contains(&*missing.to_string_lossy()), "{log}");
}
