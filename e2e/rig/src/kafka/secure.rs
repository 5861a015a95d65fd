//! A listener that asks for credentials: TLS with client certificates, SASL, or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::broker::{Listener, Setup};
use forwarder_core::document;

use crate::certificates::{Authority, Pair};

pub(super) const LISTENER: &str = "SECURED";

const USER: &str = "forwarder";
const PASSWORD: &str = "let-me-in";

/// What the listener asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Door {
    /// TLS. A client certificate is required, unless SASL says who the client is.
    pub tls: bool,
    /// SASL, with this mechanism in [`Secured::connection`]; the listener takes the others too.
    pub sasl: Option<Mechanism>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
    /// OAUTHBEARER; the broker takes unsigned tokens.
    OAuthBearer,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OAuthBearer];

    /// Its name in Kafka.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    fn server_login(self) -> String {
        match self {
            Self::Plain => {
                format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";")
            }
            Self::ScramSha256 | Self::ScramSha512 => {
                "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned()
            }
            // The claim is the broker's own name, which its login wants although it never logs in.
            Self::OAuthBearer => "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                                  unsecuredLoginStringClaim_sub=\"broker\";"
                .to_owned(),
        }
    }
}

/// How to come in through the listener.
#[derive(Debug)]
pub struct Secured {
    /// Its address, `host:port`.
    pub bootstrap: String,
    /// What it asks for.
    pub door: Door,
    /// The authority of its certificate, with TLS.
    pub authority: Option<Authority>,
    /// A client certificate that it accepts, with TLS.
    pub client: Option<Pair>,
    /// The user's name, with SASL.
    pub username: String,
    /// File of the user's password: PLAIN and SCRAM.
    pub password_file: PathBuf,
    /// File of a token good for an hour: OAUTHBEARER.
    pub token_file: PathBuf,
}

impl Secured {
    /// The connection as the forwarder's configuration declares it.
    pub fn connection(&self) -> document::KafkaConnection {
        self.connection_by(self.door.sasl)
    }

    /// As [`Secured::connection`], by another mechanism.
    pub fn connection_by(&self, mechanism: Option<Mechanism>) -> document::KafkaConnection {
        let tls = self.authority.as_ref().map(|authority| document::Tls {
            ca_file: Some(authority.ca_file.clone()),
            cert_file: self.client.as_ref().map(|pair| pair.cert_file.clone()),
            key_file: self.client.as_ref().map(|pair| pair.key_file.clone()),
        });
        let (username, password_file) = (self.username.clone(), self.password_file.clone());
        let sasl = mechanism.map(|mechanism| match mechanism {
            Mechanism::Plain => document::Sasl::Plain {
                username,
                password_file,
            },
            Mechanism::ScramSha256 => document::Sasl::ScramSha256 {
                username,
                password_file,
            },
            Mechanism::ScramSha512 => document::Sasl::ScramSha512 {
                username,
                password_file,
            },
            Mechanism::OAuthBearer => document::Sasl::OAuthBearer {
                token_file: self.token_file.clone(),
            },
        });
        document::KafkaConnection {
            bootstrap_servers: vec![self.bootstrap.clone()],
            tls,
            sasl,
            properties: std::collections::BTreeMap::new(),
        }
    }
}

/// An OAUTHBEARER token without a signature, for `subject`, good for `lifetime` from now.
pub fn unsecured_token(subject: &str, lifetime: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = serde_json::json!({
        "sub": subject,
        "scope": "kafka",
        "iat": now.as_secs(),
        "exp": (now + lifetime).as_secs(),
    });
    format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

/// Everything about the listener but its address.
pub(super) struct Prepared(Secured);

impl Prepared {
    pub(super) fn at(self, bootstrap: String) -> Secured {
        Secured { bootstrap, ..self.0 }
    }
}

pub(super) fn prepare(door: Door, dir: &Path, setup: &mut Setup) -> Result<Prepared> {
    let protocol = match (door.tls, door.sasl) {
        (true, Some(_)) => "SASL_SSL",
        (true, None) => "SSL",
        (false, Some(_)) => "SASL_PLAINTEXT",
        (false, None) => "PLAINTEXT",
    };
    setup.listeners.push(Listener {
        name: LISTENER.to_owned(),
        protocol: protocol.to_owned(),
        advertised: None,
    });
    let mut set = |name: &str, value: String| {
        setup
            .properties
            .push((format!("listener.name.{}.{name}", LISTENER.to_lowercase()), value));
    };
    let mut secured = Secured {
        bootstrap: String::new(),
        door,
        authority: None,
        client: None,
        username: USER.to_owned(),
        password_file: dir.join("password"),
        token_file: dir.join("token"),
    };
    if door.tls {
        let authority = Authority::new(&dir.join("certificates"))?;
        let server = authority.server("kafka")?;
        secured.client = Some(authority.client("forwarder")?);
        set("ssl.keystore.type", "PEM".to_owned());
        set("ssl.keystore.location", text(&server.both_file));
        set("ssl.truststore.type", "PEM".to_owned());
        set("ssl.truststore.location", text(&authority.ca_file));
        let client_auth = if door.sasl.is_some() { "requested" } else { "required" };
        set("ssl.client.auth", client_auth.to_owned());
        secured.authority = Some(authority);
    }
    if door.sasl.is_some() {
        let names = Mechanism::ALL.map(Mechanism::name);
        set("sasl.enabled.mechanisms", names.join(","));
        for mechanism in Mechanism::ALL {
            set(
                &format!("{}.sasl.jaas.config", mechanism.name().to_lowercase()),
                mechanism.server_login(),
            );
        }
        for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
            setup
                .scram
                .push((mechanism.name().to_owned(), USER.to_owned(), PASSWORD.to_owned()));
        }
        fs::write(&secured.password_file, PASSWORD).context("failed to write the password's file")?;
        fs::write(&secured.token_file, unsecured_token(USER, Duration::from_secs(3600)))
            .context("failed to write the token's file")?;
    }
    Ok(Prepared(secured))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
