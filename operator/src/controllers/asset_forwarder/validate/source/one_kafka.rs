//! Whether two channels lead to one Kafka, with one login: then one consumer can read both.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::path::Path;

use forwarder_core::document::{KafkaConnection, Sasl, Tls};

use crate::reconcile::credentials::KafkaCredentials;

/// What differs, in words with the field of the channel; none: nothing does. Files are compared by what they hold, since each channel's have
/// names of their own.
pub(super) fn difference(one: &KafkaCredentials, other: &KafkaCredentials) -> Option<&'static str> {
    let KafkaConnection {
        bootstrap_servers,
        tls,
        sasl,
        // They come from the forwarder's own spec.
        properties: _,
    } = &one.connection;
    let set = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    if set(bootstrap_servers) != set(&other.connection.bootstrap_servers) {
        return Some("spec.connection.bootstrapServers");
    }
    let files = Both { one, other };
    match (tls, &other.connection.tls) {
        (None, None) => {}
        (Some(tls), Some(others)) => {
            if let Some(differs) = files.tls(tls, others) {
                return Some(differs);
            }
        }
        _ => return Some("spec.connection.tls"),
    }
    match (sasl, &other.connection.sasl) {
        (None, None) => None,
        (Some(sasl), Some(others)) => files.sasl(sasl, others),
        _ => Some("spec.connection.sasl"),
    }
}

struct Both<'a> {
    one: &'a KafkaCredentials,
    other: &'a KafkaCredentials,
}

impl Both<'_> {
    fn tls(&self, one: &Tls, other: &Tls) -> Option<&'static str> {
        let Tls {
            ca_file,
            cert_file,
            key_file,
        } = one;
        if !self.holds_the_same(ca_file.as_deref(), other.ca_file.as_deref()) {
            return Some("certificate authority (spec.connection.tls.caSecretRef)");
        }
        let is_same = self.holds_the_same(cert_file.as_deref(), other.cert_file.as_deref())
            && self.holds_the_same(key_file.as_deref(), other.key_file.as_deref());
        (!is_same).then_some("client certificate (spec.connection.tls.clientSecretRef)")
    }

    fn sasl(&self, one: &Sasl, other: &Sasl) -> Option<&'static str> {
        if discriminant(one) != discriminant(other) {
            return Some("spec.connection.sasl.mechanism");
        }
        if one.username() != other.username() {
            return Some("user (spec.connection.sasl.secretRef)");
        }
        let is_same = self.holds_the_same(Some(secret_file(one)), Some(secret_file(other)));
        (!is_same).then_some("password or token (spec.connection.sasl.secretRef)")
    }

    fn holds_the_same(&self, one: Option<&Path>, other: Option<&Path>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => content(self.one, one) == content(self.other, other),
            _ => false,
        }
    }
}

fn secret_file(sasl: &Sasl) -> &Path {
    match sasl {
        Sasl::Plain { password_file, .. }
        | Sasl::ScramSha256 { password_file, .. }
        | Sasl::ScramSha512 { password_file, .. } => password_file,
        Sasl::OAuthBearer { token_file } => token_file,
    }
}

fn content<'a>(credentials: &'a KafkaCredentials, file: &Path) -> Option<&'a [u8]> {
    credentials.files.get(file.file_name()?.to_str()?)
}
