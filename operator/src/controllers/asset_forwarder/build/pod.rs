//! One pod: restricted, read-only but for its dead letters, and with a token only where it watches its ring.

use std::collections::BTreeMap;

use crds::asset_forwarder::{DeadLetterType, PodTemplate, RingUpdate};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIProjection, DownwardAPIVolumeFile,
    KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, ProjectedVolumeSource,
    ResourceRequirements, SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::controllers::asset_forwarder::names;
use crate::controllers::asset_forwarder::validate::{Configuration, Validated};
use crate::reconcile::pod;

/// What a pod has beyond its drain before it is killed: to leave the group, and to be told of the end in the first place.
const MARGIN_SECONDS: i64 = 20;

pub(super) fn template(validated: &Validated, config: &Configuration) -> PodTemplateSpec {
    let Validated { identity, spec, .. } = validated;
    let wishes = spec.pod_template.clone().unwrap_or_default();
    let mut annotations = BTreeMap::from([(names::KAFKA_CREDENTIALS.to_owned(), config.kafka_credentials.clone())]);
    if let Some(epoch) = config.ring_epoch {
        annotations.insert(names::RING_EPOCH.to_owned(), epoch.to_string());
    }
    let drain = i64::try_from(config.drain_timeout_ms / 1_000).unwrap_or(i64::MAX);
    PodTemplateSpec {
        metadata: Some(pod::metadata(&wishes, identity.labels(), annotations)),
        spec: Some(PodSpec {
            service_account_name: Some(identity.name.clone()),
            termination_grace_period_seconds: Some(drain.saturating_add(MARGIN_SECONDS).max(30)),
            containers: vec![container(validated, config, &wishes)],
            volumes: Some(volumes(validated, config)),
            ..pod::spec(&wishes, &identity.selector(), validated.security_ids)
        }),
    }
}

fn container(validated: &Validated, config: &Configuration, wishes: &PodTemplate) -> Container {
    let Validated { identity, spec, .. } = validated;
    let mut args = vec![
        "run".to_owned(),
        "--config".to_owned(),
        format!("{}/{}", names::CONFIG_FOLDER, names::CONFIG_FILE),
    ];
    if spec.ring.update == RingUpdate::Live {
        args.extend([
            "--ring-file".to_owned(),
            format!("{}/{}", names::RING_FOLDER, names::RING_FILE),
            "--ring-config-map".to_owned(),
            format!("{}/{}", identity.namespace, identity.ring_map()),
        ]);
    }
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(validated.image.clone()),
        image_pull_policy: Some(validated.image_pull_policy.to_owned()),
        args: Some(args),
        env: Some(vec![
            pod::env_field("POD_NAME", "metadata.name"),
            pod::env_field("NODE_HOSTNAME", "spec.nodeName"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some(names::PORT_NAME.to_owned()),
            container_port: i32::from(names::PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // A start waits for nobody outside, so it is short; the first look at the ring may take its seconds.
        startup_probe: Some(pod::probe(names::PORT_NAME, "/healthz", 2, 30)),
        // A restart helps against a stuck loop alone, and costs a rebalance.
        liveness_probe: Some(pod::probe(names::PORT_NAME, "/healthz", 10, 6)),
        readiness_probe: Some(pod::probe(names::PORT_NAME, "/readyz", 2, 3)),
        resources: Some(
            wishes
                .resources
                .clone()
                .unwrap_or_else(|| resources(config.max_pending_bytes)),
        ),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts(validated)),
        // What it says at its end is shown in the status of the resource.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// No limit of the CPU: being throttled in the middle of a batch costs a membership. The memory's leaves room for what waits for
/// confirmation twice (records are copied once on their way), and for what librdkafka reads ahead.
fn resources(max_pending_bytes: usize) -> ResourceRequirements {
    pod::resources(384 + 2 * (max_pending_bytes as u64).div_ceil(1 << 20))
}

/// The claim of the dead letters' volume.
fn claim(validated: &Validated) -> Option<&str> {
    let letters = validated.spec.dead_letter.as_ref()?;
    let file = letters
        .file
        .as_ref()
        .filter(|_| letters.type_ == DeadLetterType::File)?;
    Some(&file.claim_name)
}

fn mounts(validated: &Validated) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount("config", names::CONFIG_FOLDER),
        // The whole volume: a file mounted by itself is never refreshed.
        mount("credentials", names::CREDENTIALS_FOLDER),
    ];
    if validated.spec.ring.update == RingUpdate::Live {
        mounts.push(mount("ring", names::RING_FOLDER));
        mounts.push(mount("token", "/var/run/secrets/kubernetes.io/serviceaccount"));
    }
    if claim(validated).is_some() {
        mounts.push(VolumeMount {
            read_only: None,
            // The configuration is shared: each pod has a folder of its own there.
            sub_path_expr: Some("$(POD_NAME)".to_owned()),
            ..mount("dead-letter", names::DEAD_LETTER_FOLDER)
        });
    }
    mounts
}

fn volumes(validated: &Validated, config: &Configuration) -> Vec<Volume> {
    let Validated { identity, spec, .. } = validated;
    let config_map = |volume: &str, name: String, optional| Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name,
            optional,
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut volumes = vec![
        config_map("config", identity.config_map(&config.hash), None),
        Volume {
            name: "credentials".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(identity.credentials()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    ];
    if spec.ring.update == RingUpdate::Live {
        volumes.push(config_map("ring", identity.ring_map(), Some(true)));
        volumes.push(token());
    }
    if let Some(claim) = claim(validated) {
        volumes.push(Volume {
            name: "dead-letter".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    volumes
}

/// What a service account's token is usually mounted as, for the one who needs it.
fn token() -> Volume {
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some(vec![
                VolumeProjection {
                    service_account_token: Some(ServiceAccountTokenProjection {
                        path: "token".to_owned(),
                        expiration_seconds: Some(3_607),
                        audience: None,
                    }),
                    ..VolumeProjection::default()
                },
                VolumeProjection {
                    config_map: Some(ConfigMapProjection {
                        name: "kube-root-ca.crt".to_owned(),
                        items: Some(vec![KeyToPath {
                            key: "ca.crt".to_owned(),
                            path: "ca.crt".to_owned(),
                            mode: None,
                        }]),
                        optional: None,
                    }),
                    ..VolumeProjection::default()
                },
                VolumeProjection {
                    downward_api: Some(DownwardAPIProjection {
                        items: Some(vec![DownwardAPIVolumeFile {
                            path: "namespace".to_owned(),
                            field_ref: Some(ObjectFieldSelector {
                                field_path: "metadata.namespace".to_owned(),
                                api_version: Some("v1".to_owned()),
                            }),
                            ..DownwardAPIVolumeFile::default()
                        }]),
                    }),
                    ..VolumeProjection::default()
                },
            ]),
        }),
        ..Volume::default()
    }
}
