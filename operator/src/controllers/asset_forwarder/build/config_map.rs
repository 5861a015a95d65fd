//! The pods' configuration: immutable and named by its hash, so that what a running pod reads never changes under it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::controllers::asset_forwarder::names::{self, Identity};
use crate::controllers::asset_forwarder::validate::Configuration;

pub(super) fn config_map(identity: &Identity, config: &Configuration) -> ConfigMap {
    let mut metadata = identity.child(identity.config_map(&config.hash));
    metadata.labels = Some(identity.labels_of(names::CONFIG));
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(names::CONFIG_FILE.to_owned(), config.text.clone())])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}
