//! The ring: mutable, since running pods take it up. Also there where pods do not watch it, for the router.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::BuildError;
use crate::controllers::asset_forwarder::names::{self, Identity};
use crate::controllers::asset_forwarder::recorded::Recorded;

pub(super) fn config_map(identity: &Identity, ring: Option<&Recorded>) -> Result<Option<ConfigMap>, BuildError> {
    let Some((ring, document)) = ring.and_then(|ring| Some((ring, ring.document.as_ref()?))) else {
        return Ok(None);
    };
    let mut metadata = identity.child(identity.ring_map());
    metadata.labels = Some(identity.labels_of(names::RING));
    metadata.annotations = Some(ring.annotations());
    let text = document.to_yaml().map_err(BuildError::Ring)?;
    Ok(Some(ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(names::RING_FILE.to_owned(), text)])),
        ..ConfigMap::default()
    }))
}
