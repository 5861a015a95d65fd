//! The credentials of Kafka and of all members, in one Secret: a new member's own could not be mounted into running pods, nor one
//! of another namespace.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::controllers::asset_forwarder::names::{self, Identity};
use crate::reconcile::credentials::Files;

pub(super) fn secret(identity: &Identity, files: &Files) -> Secret {
    let version = (names::VERSION_FILE.to_owned(), files.hash().into_bytes());
    let data = files.clone().into_map().into_iter().chain([version]);
    Secret {
        metadata: identity.child(identity.credentials()),
        data: Some(data.map(|(name, bytes)| (name, ByteString(bytes))).collect()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
