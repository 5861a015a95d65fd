//! One server: restricted, read-only but for its volume, without a token, and ended so that its clients go before it does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction,
    Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config;
use crate::nats_cluster::managed::names::{self, Identity};
use crate::nats_cluster::managed::plan::{Plan, shared_hash};

/// Any user but root: the images name none, or another one each.
const USER: i64 = 65532;

/// What a server has beyond its clients' farewell: to write down what it has.
const MARGIN_SECONDS: u32 = 30;

pub(super) fn template(plan: &Plan) -> PodTemplateSpec {
    let (identity, wishes) = (&plan.identity, &plan.pod);
    let mut labels = ours_apart(&wishes.labels);
    labels.extend(identity.labels());
    let mut annotations = ours_apart(&wishes.annotations);
    annotations.insert(names::CONFIGURATION.to_owned(), config::config_hash(plan));
    annotations.insert(names::PASSWORDS.to_owned(), shared_hash(plan));
    // Some platforms give each namespace numbers of its own, and refuse pods that name others.
    let user = plan.security_ids.then_some(USER);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::from(config::LAME_DUCK_SECONDS + MARGIN_SECONDS)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: user,
                run_as_group: user,
                fs_group: user,
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(plan)],
            volumes: Some(volumes(identity)),
            topology_spread_constraints: Some(
                wishes
                    .topology_spread_constraints
                    .clone()
                    .unwrap_or_else(|| spread(identity)),
            ),
            node_selector: (!wishes.node_selector.is_empty()).then(|| wishes.node_selector.clone()),
            affinity: wishes.affinity.clone(),
            tolerations: (!wishes.tolerations.is_empty()).then(|| wishes.tolerations.clone()),
            priority_class_name: wishes.priority_class_name.clone(),
            image_pull_secrets: (!wishes.image_pull_secrets.is_empty()).then(|| {
                let secrets = wishes.image_pull_secrets.iter();
                secrets
                    .map(|secret| LocalObjectReference {
                        name: secret.name.clone(),
                    })
                    .collect()
            }),
            ..PodSpec::default()
        }),
    }
}

fn container(plan: &Plan) -> Container {
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(plan.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(words(&[
            "nats-server",
            "--config",
            &format!("{}/{}", config::FOLDER, config::FILE),
        ])),
        env: Some(vec![EnvVar {
            name: "POD_NAME".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.name".to_owned(),
                    api_version: Some("v1".to_owned()),
                }),
                ..EnvVarSource::default()
            }),
        }]),
        ports: Some(vec![
            port("client", names::CLIENT_PORT),
            port("cluster", names::ROUTE_PORT),
            port("monitor", names::MONITOR_PORT),
        ]),
        // It is the container's first process. It hands its streams to others and tells its clients to go; the SIGTERM that follows
        // finds this under way and changes nothing.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(words(&["nats-server", "--signal", "ldm=1"])),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // None of them asks for all streams: a restart in the middle of catching up helps nobody, and a server with one stream that is
        // behind serves all others. Whether all are complete, the operator asks before it touches the next server.
        // An hour: a large store is read through at the start, and who is killed in the middle of it begins anew.
        startup_probe: Some(probe("/healthz?js-enabled-only=true", 2, 1800)),
        liveness_probe: Some(probe("/healthz?js-enabled-only=true", 10, 6)),
        readiness_probe: Some(probe("/healthz?js-server-only=true", 2, 3)),
        resources: Some(plan.pod.resources.clone().unwrap_or_else(|| resources(plan))),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(plan)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// No limit of the CPU: a server that is throttled loses its leaderships. The memory's leaves room for streams that are kept there.
fn resources(plan: &Plan) -> ResourceRequirements {
    let streams = plan
        .jet_stream
        .as_ref()
        .map_or(0, |storage| storage.max_memory.div_ceil(1 << 20));
    let quantity = |text: &str| Quantity(text.to_owned());
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), quantity("100m")),
            ("memory".to_owned(), quantity("128Mi")),
        ])),
        limits: Some(BTreeMap::from([(
            "memory".to_owned(),
            quantity(&format!("{}Mi", 512 + streams)),
        )])),
        ..ResourceRequirements::default()
    }
}

fn mounts(plan: &Plan) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("config", config::FOLDER, true),
        mount("secret", config::SECRET_FOLDER, true),
    ];
    if plan.jet_stream.is_some() {
        mounts.push(mount(names::DATA, config::DATA_FOLDER, false));
    }
    mounts
}

fn volumes(identity: &Identity) -> Vec<Volume> {
    vec![
        Volume {
            name: "config".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: identity.config_map(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "secret".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(identity.server_secret()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

fn spread(identity: &Identity) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(identity.selector()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("monitor".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5.min(period)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// A person's labels or annotations, without those that only we give.
fn ours_apart(theirs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut theirs = theirs.clone();
    theirs.retain(|key, _| !key.starts_with("fanout.openfactory.io/"));
    theirs
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
