//! The key of the beacon, in a Secret of its own: it outlives what pods are given, and a beacon that is switched off for a while.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::controllers::asset_forwarder::beacon::Key;
use crate::controllers::asset_forwarder::names::{self, Identity};

pub(super) fn secret(identity: &Identity, key: &Key) -> Secret {
    let seed = ByteString(key.seed().as_bytes().to_owned());
    Secret {
        metadata: identity.child(identity.beacon()),
        data: Some(BTreeMap::from([(names::BEACON_SEED.to_owned(), seed)])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
