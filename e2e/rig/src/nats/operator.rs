//! An operator, its account and the account's user: who signs what where clients log in with a credentials file.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use async_nats::{AuthError, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Everything that a server and its clients need.
#[derive(Clone)]
pub struct Operator {
    config: String,
    user: Arc<KeyPair>,
    user_jwt: String,
    creds: String,
}

impl Operator {
    /// Makes one, with an account for all that JetStream has and a user that may do everything in it.
    pub fn new() -> Result<Self> {
        let operator = KeyPair::new_operator();
        let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
        let user = KeyPair::new_user();
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut with_jetstream = limits.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            with_jetstream[limit] = json!(-1);
        }
        let system_account = json!({"system_account": system.public_key()});
        let operator_jwt = sign(&operator, &operator, "operator", system_account)?;
        let account_jwt = sign(&operator, &account, "account", json!({"limits": with_jetstream}))?;
        let system_jwt = sign(&operator, &system, "account", json!({"limits": limits}))?;
        let all = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let user_jwt = sign(&account, &user, "user", all)?;
        let config = format!(
            "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{\n  {account}: {account_jwt}\n  {system}: {system_jwt}\n}}\n",
            account = account.public_key(),
            system = system.public_key(),
        );
        let seed = user.seed().context("failed to read the seed of a new NKEY")?;
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Ok(Self {
            config,
            user: Arc::new(user),
            user_jwt,
            creds,
        })
    }

    /// The user's credentials, as `nsc generate creds` writes them into a file.
    pub fn creds(&self) -> &str {
        &self.creds
    }

    /// The server's lines.
    pub(super) fn config(&self) -> &str {
        &self.config
    }

    pub(super) fn connect_options(&self) -> ConnectOptions {
        let user = Arc::clone(&self.user);
        ConnectOptions::with_jwt(self.user_jwt.clone(), move |nonce| {
            let user = Arc::clone(&user);
            async move { user.sign(&nonce).map_err(AuthError::new) }
        })
    }
}

// Not derived: keys and seeds are no text for a log.
impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

/// A JWT about `subject` by `issuer`.
fn sign(issuer: &KeyPair, subject: &KeyPair, kind: &str, mut claims: Value) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    claims["type"] = json!(kind);
    claims["version"] = json!(2);
    let claims = json!({
        "jti": subject.public_key(),
        "iat": now.as_secs(),
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": kind,
        "nats": claims,
    });
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = issuer
        .sign(text.as_bytes())
        .with_context(|| format!("failed to sign the JWT of a {kind}"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
