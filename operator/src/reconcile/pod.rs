//! What the pods of forwarders and of managed servers have in common.

use std::collections::BTreeMap;

use crds::asset_forwarder::PodTemplate;
use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodSecurityContext,
    PodSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What all labels and annotations of ours begin with.
const PREFIX: &str = "fanout.openfactory.io/";

/// The user and group of the images, and the group of their volumes.
const USER: i64 = 65532;

/// Labels and annotations: those that are wished for, and ours over them.
pub(crate) fn metadata(
    wishes: &PodTemplate,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        labels: Some(over(&wishes.labels, labels)),
        annotations: Some(over(&wishes.annotations, annotations)),
        ..ObjectMeta::default()
    }
}

/// Our values go before those of a user, because only the operator knows them (an epoch, a version).
fn over(theirs: &BTreeMap<String, String>, ours: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = theirs.clone();
    all.retain(|key, _| !key.starts_with(PREFIX));
    all.extend(ours);
    all
}

/// A restricted pod without a token, scheduled as wished. The caller adds the containers. Without a wish, the pods of `selector` are spread.
/// `ids` as in [`security`].
pub(crate) fn spec(wishes: &PodTemplate, selector: &BTreeMap<String, String>, ids: bool) -> PodSpec {
    let secrets = wishes.image_pull_secrets.iter();
    let secrets = secrets.map(|secret| LocalObjectReference {
        name: secret.name.clone(),
    });
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(security(ids)),
        topology_spread_constraints: Some(
            wishes
                .topology_spread_constraints
                .clone()
                .unwrap_or_else(|| spread(selector)),
        ),
        node_selector: Some(wishes.node_selector.clone()).filter(|labels| !labels.is_empty()),
        affinity: wishes.affinity.clone(),
        tolerations: Some(wishes.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
        priority_class_name: wishes.priority_class_name.clone(),
        image_pull_secrets: Some(secrets.collect()).filter(|secrets: &Vec<_>| !secrets.is_empty()),
        ..PodSpec::default()
    }
}

/// No root, the runtime's filter of system calls. `ids`: whether pods name their user and group. Some platforms give each namespace
/// numbers of its own, and refuse pods that name others.
fn security(ids: bool) -> PodSecurityContext {
    let user = ids.then_some(USER);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        fs_group: user,
        // A volume of many files is not gone through at each start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// A container that cannot gain rights and writes to volumes alone.
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// Spreads the pods of this selector over zones and nodes, as far as there are any.
fn spread(selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector.clone()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

/// Asks a port, by its name, every `period` seconds; so many `failures` in a row count.
pub(crate) fn probe(port: &str, path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5.min(period)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// An environment variable from a field of the pod.
pub(crate) fn env_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: Some("v1".to_owned()),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// A little to begin with, no limit of the CPU, and at most so much memory.
pub(crate) fn resources(memory_mebibytes: u64) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), quantity("100m")),
            ("memory".to_owned(), quantity("128Mi")),
        ])),
        limits: Some(BTreeMap::from([(
            "memory".to_owned(),
            quantity(&format!("{memory_mebibytes}Mi")),
        )])),
        ..ResourceRequirements::default()
    }
}
