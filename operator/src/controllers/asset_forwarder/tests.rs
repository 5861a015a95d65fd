//! The pure stages in a world of their own: what the API server would have, and what pods would say.

mod autoscaling;
mod beacon;
mod children;
mod claims;
mod configuration;
mod forged;
mod gone;
mod joining;
mod leaving;
mod members;
mod readers;
mod rings;
mod rivals;
mod sources;
mod statuses;
mod upgrades;
mod writes;

use std::collections::BTreeMap;
use std::path::Path;

use crds::{AssetForwarder, AssetForwarderStatus, KafkaChannel, NatsCluster};
use forwarder_core::document::{RING_DOCUMENT_VERSION, RingConfig};
use forwarder_core::status::{ClusterStatus, RingStatus, Status};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::core::PartialObjectMetaExt as _;
use serde::de::DeserializeOwned;

use super::beacon::Key;
use super::build::{Resources, Workload, build};
use super::candidates::{Access, Candidate};
use super::decide::Decided;
use super::dereference::{Channel, Dereferenced, Existing, Found, Reference};
use super::names;
use super::pods::{Observed, Process};
use super::rivals::Rival;
use super::validate::{self, Validated, measured};
use super::{status, upgrade};
use crate::context::Settings;
use crate::reconcile::apply::MANAGER;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::credentials::{self, Secrets};
use crate::reconcile::reason::Reason;

const FORWARDER: &str = "
metadata: {namespace: plant, name: assets, uid: u1, generation: 1}
spec:
  replicas: 2
  sources:
    - channelRef: {name: assets}
      group: fanout
  clusters: {selector: {matchLabels: {ring: plant}}}
";

const CHANNEL: &str = "
metadata: {namespace: plant, name: assets}
spec:
  connection: {bootstrapServers: ['kafka:9092']}
  topic: {name: assets}
";

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap()
}

/// A cluster without credentials, as old as it says in seconds since 1970.
fn cluster(name: &str, made: u32) -> NatsCluster {
    yaml(&format!(
        "
metadata:
  namespace: plant
  name: {name}
  creationTimestamp: '1970-01-01T00:00:{made:02}Z'
  labels: {{ring: plant}}
  finalizers: [{}]
spec: {{external: {{servers: ['nats://{name}:4222']}}}}
",
        crate::reconcile::cluster::DRAIN
    ))
}

/// The same with a token in the Secret `NAME-token`.
fn cluster_with_token(name: &str, made: u32) -> NatsCluster {
    let mut cluster = cluster(name, made);
    cluster.spec.auth = Some(yaml(&format!("{{type: Token, secretRef: {{name: {name}-token}}}}")));
    cluster
}

struct World {
    forwarder: AssetForwarder,
    channel: KafkaChannel,
    /// The channels of the sources after the first.
    further: Vec<KafkaChannel>,
    channel_not_ready: Option<String>,
    clusters: Vec<NatsCluster>,
    secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    existing: Existing,
    default_image: &'static str,
    rival: Option<Rival>,
    security_ids: bool,
}

/// What a pass over the pure stages came to.
struct Pass {
    validated: Validated,
    resources: Resources,
}

impl World {
    fn new(clusters: impl IntoIterator<Item = NatsCluster>) -> Self {
        Self {
            forwarder: yaml(FORWARDER),
            channel: yaml(CHANNEL),
            further: Vec::new(),
            channel_not_ready: None,
            clusters: clusters.into_iter().collect(),
            secrets: BTreeMap::new(),
            existing: Existing::default(),
            default_image: "forwarder:1",
            rival: None,
            security_ids: true,
        }
    }

    fn with_secret(mut self, name: &str, key: &str, value: &str) -> Self {
        self.put_secret(name, key, value);
        self
    }

    fn put_secret(&mut self, name: &str, key: &str, value: &str) {
        let data = BTreeMap::from([(key.to_owned(), value.as_bytes().to_owned())]);
        self.secrets.entry(name.to_owned()).or_default().extend(data);
    }

    fn dereferenced(&self) -> Dereferenced {
        let secrets = Secrets::new("plant", self.secrets.clone());
        let folder = Path::new(names::CREDENTIALS_FOLDER);
        let candidates = self.clusters.iter().map(|cluster| {
            let prefix = credentials::prefix("nats", "plant", &cluster.name_any());
            Candidate {
                cluster: cluster.clone(),
                access: Access::Granted(credentials::nats(
                    &crate::reconcile::credentials::ClusterAccess::of(cluster),
                    &secrets,
                    &prefix,
                    folder,
                )),
            }
        });
        let channel = |(place, channel): (usize, &KafkaChannel)| {
            let name = channel.name_any();
            let prefix = credentials::prefix("kafka", "plant", &name);
            let connection = &channel.spec.connection;
            let found = Channel {
                topic: channel.spec.topic.name.clone(),
                not_ready: self.channel_not_ready.clone().filter(|_| place == 0),
                revision: format!("c{}@{}", place + 1, channel.metadata.generation.unwrap_or(1)),
                partitions: Some(if place == 0 { 4 } else { 2 }),
                connection: connection.clone(),
                credentials: credentials::kafka(connection, &secrets, &prefix, folder),
            };
            Reference {
                name: format!("plant/{name}"),
                found: Found::Channel(Box::new(found)),
            }
        };
        let channels = std::iter::once(&self.channel).chain(&self.further);
        let declared = super::beacon::is_declared(&self.forwarder.spec.ring);
        let key = || Key::read(self.existing.beacon.as_ref()).unwrap_or_else(|| Key::make().unwrap());
        Dereferenced {
            beacon: declared.then(key),
            forwarder: self.forwarder.clone(),
            sources: channels.enumerate().map(channel).collect(),
            dead_letter: None,
            candidates: candidates.collect(),
            existing: self.existing.clone(),
            rival: self.rival.clone(),
            secrets: [].into(),
        }
    }

    fn validate(&self) -> Result<Validated, Verdict> {
        validate(&self.dereferenced(), &self.settings()).and_then(measured)
    }

    fn settings(&self) -> Settings {
        Settings {
            forwarder_image: self.default_image.to_owned(),
            forwarder_image_pull_policy: "IfNotPresent",
            require_secret_opt_in: false,
            pod_security_ids: self.security_ids,
            namespace: "operators".to_owned(),
            concurrency: 1,
        }
    }

    /// Judges and builds.
    fn look(&self) -> Pass {
        let validated = self.validate().unwrap();
        let resources = upgrade::build(&validated, &self.existing).unwrap();
        Pass { validated, resources }
    }

    /// Judges, builds, and has what was built, as after all writes.
    fn step(&mut self) -> Pass {
        let pass = self.look();
        let Resources {
            beacon,
            credentials,
            ring,
            workload,
            ..
        } = pass.resources.clone();
        self.existing.credentials = Some(credentials);
        self.existing.beacon = beacon.or(self.existing.beacon.take());
        self.existing.ring = ring.or(self.existing.ring.take());
        if let Workload::Configured { config, .. } = &workload {
            let metadata = config.metadata.clone();
            self.existing.configs.push(metadata.into_response_partial());
        }
        if let Workload::Configured { deployment, .. } | Workload::Kept { deployment } = workload {
            self.existing.deployment = Some(rolled_out(managed(*deployment, MANAGER)));
        }
        let (status, _) = status::status(
            &self.status(),
            &pass.validated,
            self.existing.deployment.as_ref(),
            &self.existing,
        );
        self.forwarder.status = Some(status);
        pass
    }

    fn status(&self) -> AssetForwarderStatus {
        self.forwarder.status.clone().unwrap_or_default()
    }

    /// Two pods that run the ring which is declared.
    fn pods_follow(&mut self) {
        let ring = self.ring();
        self.existing.pods = ["a", "b"].map(|name| pod(name, &ring)).into();
    }

    /// The ring that is written.
    fn ring(&self) -> RingConfig {
        ring_in(self.existing.ring.as_ref().unwrap())
    }

    /// Epoch and names of the ring that is written.
    fn brief(&self) -> (u64, Vec<String>) {
        let ring = self.ring();
        (
            ring.epoch,
            ring.clusters.into_iter().map(|cluster| cluster.name).collect(),
        )
    }

    /// Who is leaving, as written.
    fn leaving(&self) -> Vec<String> {
        self.status().ring.unwrap_or_default().leaving
    }

    /// Every cluster that is chosen and no member, with the reason.
    fn excluded(&self) -> Vec<(String, String)> {
        let excluded = self.validate().unwrap().members.excluded;
        excluded.into_iter().map(|e| (e.name, e.reason.to_string())).collect()
    }

    fn remove(&mut self, name: &str) {
        self.clusters.retain(|cluster| cluster.name_any() != name);
    }

    fn files(&self) -> Vec<String> {
        let data = self.existing.credentials.clone().unwrap().data.unwrap();
        data.into_keys().filter(|name| name != names::VERSION_FILE).collect()
    }
}

/// Judges what was read, with as many pods as the spec says.
fn validate(found: &Dereferenced, settings: &Settings) -> Result<Validated, Verdict> {
    validate::validate(&Decided::as_declared(found.clone()), settings)
}

/// The Deployment with a note of who has written its template down, and its replicas.
fn managed(mut deployment: Deployment, manager: &str) -> Deployment {
    let fields = format!(
        "{{'f:metadata': {{'f:annotations': {{'f:{}': {{}}}}}}, 'f:spec': {{'f:replicas': {{}}}}}}",
        names::TEMPLATE
    );
    deployment.metadata.managed_fields = Some(vec![yaml(&format!("{{manager: {manager}, fieldsV1: {fields}}}"))]);
    deployment
}

fn ring_in(map: &ConfigMap) -> RingConfig {
    RingConfig::from_yaml(&map.data.as_ref().unwrap()[names::RING_FILE]).unwrap()
}

/// A pod that runs a ring, with nothing waiting.
fn pod(name: &str, ring: &RingConfig) -> Observed {
    let clusters = ring.clusters.iter();
    let report = Status {
        ring: RingStatus {
            epoch: ring.epoch,
            ..RingStatus::default()
        },
        clusters: clusters
            .map(|cluster| (cluster.name.clone(), ClusterStatus::default()))
            .collect(),
        document_version: Some(RING_DOCUMENT_VERSION),
        ..Status::default()
    };
    Observed {
        name: name.to_owned(),
        address: Some("10.0.0.1".to_owned()),
        terminating: false,
        process: Process::Running,
        trouble: None,
        credentials_asked: None,
        config_maps: [].into(),
        image: "forwarder:1".to_owned(),
        watches_ring: true,
        not_ready_since: None,
        report: Some(report),
        beacon_faults: [].into(),
        overdue: false,
    }
}

fn report(pod: &mut Observed) -> &mut Status {
    pod.report.as_mut().unwrap()
}

/// As Kubernetes has it when all pods are there.
fn rolled_out(mut deployment: Deployment) -> Deployment {
    let replicas = deployment.spec.as_ref().unwrap().replicas;
    deployment.metadata.generation = Some(1);
    deployment.status = Some(DeploymentStatus {
        observed_generation: Some(1),
        replicas,
        updated_replicas: replicas,
        ready_replicas: replicas,
        available_replicas: replicas,
        ..DeploymentStatus::default()
    });
    deployment
}
