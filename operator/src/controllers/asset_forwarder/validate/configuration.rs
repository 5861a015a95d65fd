//! The configuration of the pods, and for what it was made. Pure.

use crds::asset_forwarder::{RingUpdate, Source};
use forwarder_core::document::{RingConfig, Sasl};
use sha2::{Digest as _, Sha256};

use super::source::{topics, usable};
use super::{Configuration, invalid};
use crate::controllers::asset_forwarder::config::{self, Topic};
use crate::controllers::asset_forwarder::dereference::{Dereferenced, Reference};
use crate::controllers::asset_forwarder::rollout_trigger::RolloutTrigger;
use crate::controllers::asset_forwarder::sources::Sources;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::credentials::{Files, KafkaCredentials};
use crate::reconcile::reason::Reason;

pub(super) fn configuration(
    found: &Dereferenced,
    source: &Source,
    ring: Option<&RingConfig>,
) -> Result<Configuration, Verdict> {
    let spec = &found.forwarder.spec;
    let own = found.forwarder.metadata.namespace.as_deref().unwrap_or_default();
    let topics = topics(&found.sources, own)?;
    let letters = found.dead_letter.as_ref();
    let letters = letters
        .map(|reference| {
            let (name, credentials) = usable(reference, own, "spec.deadLetter.channelRef")?;
            Ok(Topic {
                channel: &reference.name,
                name,
                credentials,
            })
        })
        .transpose()?;
    let ring = match spec.ring.update {
        RingUpdate::Live => None,
        RingUpdate::Roll => match ring {
            Some(ring) => Some(ring),
            None => {
                return Err(Verdict::reconciling(
                    Reason::NoClusters,
                    "there is no ring yet for pods to run",
                ));
            }
        },
    };
    let document = config::document(spec, source, &topics, letters, ring).map_err(invalid)?;
    let text = document
        .to_yaml()
        .map_err(|error| invalid(format!("the configuration cannot be serialized: {error}")))?;
    // All sources have those of the first one.
    let read_first = topics.first().into_iter().chain(&letters);
    let logins: Vec<&KafkaCredentials> = read_first.map(|topic| topic.credentials).collect();
    let kafka_credentials = read_at_start(&logins).hash();
    let ring_epoch = ring.map(|ring| ring.epoch);
    let references = found.sources.iter().chain(&found.dead_letter);
    let channels: Vec<_> = references.filter_map(Reference::channel).collect();
    let generation = found.forwarder.metadata.generation.unwrap_or_default();
    // A user's name is in the document, and comes from a Secret.
    let users = logins.iter();
    let users: Vec<_> = users
        .filter_map(|credentials| credentials.connection.sasl.as_ref()?.username())
        .collect();
    let epoch = ring_epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
    let read = format!("{kafka_credentials} {} {epoch}", hash(&users.join("\n")));
    let trigger = RolloutTrigger::of(generation, spec, &channels, read)
        .map_err(|error| invalid(format!("spec: cannot be serialized: {error}")))?;
    Ok(Configuration {
        hash: hash(&text),
        sources: Sources::new(topics.iter().map(|topic| (topic.channel, topic.name)), &source.group),
        former_sources: None,
        kafka_credentials,
        ring_epoch,
        trigger,
        max_pending_bytes: document.engine.max_pending_bytes,
        drain_timeout_ms: document.engine.drain_timeout_ms,
        text,
    })
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// The files that a change of rolls the pods for. A token is read whenever one is wanted.
fn read_at_start(logins: &[&KafkaCredentials]) -> Files {
    let mut files = Files::default();
    for credentials in logins {
        let mut read = credentials.files.clone();
        if let Some(Sasl::OAuthBearer { token_file }) = &credentials.connection.sasl {
            read.retain(|name| token_file.file_name().is_none_or(|token| token != name));
        }
        files.merge(read);
    }
    files
}
