//! The pods, and how they are replaced.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod;
use crate::controllers::asset_forwarder::names;
use crate::controllers::asset_forwarder::validate::{Configuration, Validated};
use crate::reconcile::child::pairs;

pub(super) fn deployment(validated: &Validated, config: &Configuration) -> Deployment {
    let identity = &validated.identity;
    let mut metadata = identity.child(identity.name.clone());
    let mut annotations = pairs([(names::SOURCE, &config.sources.to_string())]);
    if let Some(former) = &config.former_sources {
        annotations.insert(names::FORMER_SOURCE.to_owned(), former.to_string());
    }
    metadata.annotations = Some(annotations);
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(validated.replicas),
            selector: LabelSelector {
                match_labels: Some(identity.selector()),
                ..LabelSelector::default()
            },
            // One after the other, and no more than are wanted: each joining and leaving moves partitions, and a pod on top would have
            // some of them move twice.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            // The group has settled before the next one goes.
            min_ready_seconds: Some(3),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(600),
            template: pod::template(validated, config),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}
