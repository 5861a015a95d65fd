//! The servers. Kubernetes starts them and keeps their volumes; when one of them is replaced, we say.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::pod;
use crate::controllers::nats_cluster::managed::names;
use crate::controllers::nats_cluster::managed::validate::{Plan, Storage};

pub(super) fn stateful_set(plan: &Plan, replicas: u32) -> StatefulSet {
    let identity = &plan.identity;
    StatefulSet {
        metadata: identity.child(identity.servers()),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(replicas).ok(),
            service_name: Some(identity.headless()),
            selector: LabelSelector {
                match_labels: Some(identity.selector()),
                ..LabelSelector::default()
            },
            // No server is ready before a majority is there, so they cannot wait for each other.
            pod_management_policy: Some("Parallel".to_owned()),
            // Kubernetes knows when a pod is ready, and not when each stream has all its copies.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            volume_claim_templates: plan.jet_stream.as_ref().map(|storage| vec![claim(plan, storage)]),
            revision_history_limit: Some(3),
            template: pod::template(plan),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(plan: &Plan, storage: &Storage) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA.to_owned()),
            labels: Some(plan.identity.selector()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
