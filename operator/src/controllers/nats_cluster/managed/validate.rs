//! What a declared cluster comes to: every default filled in, every size a number.

use crds::NatsCluster;
use crds::asset_forwarder::PodTemplate;
use crds::nats_cluster::Managed;

use super::hashes::hash;
use super::names::Identity;

/// The largest message, as the server has it by default.
const MAX_PAYLOAD: u32 = 1 << 20;

/// What a server's streams may keep in memory by default.
const MAX_MEMORY: u64 = 64 << 20;

/// What is to be there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) identity: Identity,
    pub(super) replicas: u32,
    /// The resource's generation.
    pub(super) generation: i64,
    /// A hash of what servers depend upon in the spec.
    pub(super) declared: String,
    pub(super) image: String,
    /// The version that the image must turn out to have; none: an image of the user's own.
    pub(super) version: Option<String>,
    pub(super) jet_stream: Option<Storage>,
    pub(super) max_payload: u32,
    pub(super) pod: PodTemplate,
    pub(super) passwords: Passwords,
    /// The operator's namespace, from which servers are asked.
    pub(super) operator_namespace: String,
    /// Whether servers that roll now name their user and groups by number.
    pub(super) security_ids: bool,
}

/// What a server stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// As declared.
    pub(super) size: String,
    pub(super) class: Option<String>,
    /// Bytes of streams on the volume.
    pub(super) max_file: u64,
    /// Bytes of streams in memory.
    pub(super) max_memory: u64,
}

/// What was made up once and stays. Its debug form shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Passwords {
    pub(super) client: String,
    pub(super) system: String,
    pub(super) route: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(…)")
    }
}

/// The spec cannot be carried out, as every path says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub(super) struct Unusable {
    path: &'static str,
    problem: String,
}

/// Of a cluster that is managed.
pub(super) fn validate(
    cluster: &NatsCluster,
    managed: &Managed,
    passwords: Passwords,
    operator_namespace: &str,
) -> Result<Plan, Unusable> {
    let Managed {
        replicas,
        version,
        image,
        jet_stream,
        max_payload_bytes,
        pod_template,
    } = managed;
    let image = match (image, version) {
        (Some(image), _) => image.clone(),
        (None, Some(version)) => format!("nats:{version}"),
        (None, None) => {
            let problem = "names no server: write version or image".to_owned();
            return Err(Unusable {
                path: "spec.managed",
                problem,
            });
        }
    };
    let jet_stream = match jet_stream {
        None => None,
        Some(wanted) => {
            let size = bytes("spec.managed.jetStream.storage.size", &wanted.storage.size)?;
            Some(Storage {
                size: wanted.storage.size.clone(),
                class: wanted.storage.storage_class_name.clone(),
                // A full volume stops the whole server; a full store refuses a message.
                max_file: size / 10 * 9,
                max_memory: match &wanted.max_memory {
                    Some(text) => bytes("spec.managed.jetStream.maxMemory", text)?,
                    None => MAX_MEMORY,
                },
            })
        }
    };
    Ok(Plan {
        identity: Identity::of(cluster),
        replicas: *replicas,
        generation: cluster.metadata.generation.unwrap_or_default(),
        declared: declared(managed),
        version: managed.image.is_none().then(|| version.clone()).flatten(),
        image,
        jet_stream,
        max_payload: max_payload_bytes.unwrap_or(MAX_PAYLOAD),
        pod: pod_template.clone().unwrap_or_default(),
        passwords,
        operator_namespace: operator_namespace.to_owned(),
        security_ids: true,
    })
}

/// A hash of what servers must have in common to find each other.
pub(super) fn shared_hash(plan: &Plan) -> String {
    let Passwords { system, route, .. } = &plan.passwords;
    hash(&format!("{system}\n{route}"))
}

/// How many servers there are is no reason to restart one; whether there are others is.
fn declared(managed: &Managed) -> String {
    let managed = Managed {
        replicas: managed.replicas.min(2),
        ..managed.clone()
    };
    hash(&serde_json::json!(managed).to_string())
}

fn bytes(path: &'static str, text: &str) -> Result<u64, Unusable> {
    let parsed = [("Mi", 20), ("Gi", 30), ("Ti", 40)]
        .into_iter()
        .find_map(|(unit, shift)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(1 << shift)
        });
    parsed.ok_or_else(|| Unusable {
        path,
        problem: format!("{text:?} is not a valid size: use a number with Mi, Gi or Ti, such as 10Gi"),
    })
}
