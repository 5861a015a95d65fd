//! One server: restricted, read-only but for its volume, without a token, and ended so that its clients go before it does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, ContainerPort, ExecAction, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec,
    ResourceRequirements, SecretVolumeSource, Volume, VolumeMount,
};

use super::config;
use crate::controllers::nats_cluster::managed::names::{self, Identity};
use crate::controllers::nats_cluster::managed::validate::{Plan, shared_hash};
use crate::reconcile::pod;

/// What a server has beyond its clients' farewell: to write down what it has.
const MARGIN_SECONDS: u32 = 30;

pub(super) fn template(plan: &Plan) -> PodTemplateSpec {
    let (identity, wishes) = (&plan.identity, &plan.pod);
    let annotations = BTreeMap::from([
        (names::CONFIGURATION.to_owned(), config::config_hash(plan)),
        (names::PASSWORDS.to_owned(), shared_hash(plan)),
    ]);
    PodTemplateSpec {
        metadata: Some(pod::metadata(wishes, identity.labels(), annotations)),
        spec: Some(PodSpec {
            termination_grace_period_seconds: Some(i64::from(config::LAME_DUCK_SECONDS + MARGIN_SECONDS)),
            containers: vec![container(plan)],
            volumes: Some(volumes(identity)),
            ..pod::spec(wishes, &identity.selector(), plan.security_ids)
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
        env: Some(vec![pod::env_field("POD_NAME", "metadata.name")]),
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
        startup_probe: Some(pod::probe("monitor", "/healthz?js-enabled-only=true", 2, 1800)),
        liveness_probe: Some(pod::probe("monitor", "/healthz?js-enabled-only=true", 10, 6)),
        readiness_probe: Some(pod::probe("monitor", "/healthz?js-server-only=true", 2, 3)),
        resources: Some(plan.pod.resources.clone().unwrap_or_else(|| resources(plan))),
        security_context: Some(pod::container_security()),
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
    pod::resources(512 + streams)
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

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
