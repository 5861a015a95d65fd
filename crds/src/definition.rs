//! The CustomResourceDefinitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;
use serde_json::json;

use crate::{AssetForwarder, KafkaChannel, NatsCluster};

/// All three, ready to be applied.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        not_yet_observed(NatsCluster::crd()),
        not_yet_observed(KafkaChannel::crd()),
        not_yet_observed(AssetForwarder::crd()),
    ]
}

/// Gives a new object's status a generation that is not its own: who judges health by `observedGeneration` (kstatus does)
/// would otherwise call an object current that nobody has looked at.
fn not_yet_observed(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let properties = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    definition
}
