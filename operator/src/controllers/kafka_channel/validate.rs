//! Whether a channel's spec can work at all, judged by the forwarder's own rules.

use std::path::Path;

use crds::KafkaChannel;
use crds::kafka_channel::SaslMechanism;
use forwarder_core::document::{
    Admin, Document, Engine, GroupProtocol, KafkaConnection, Logging, MissingOffset, Publish, Source, StartFrom,
};
use kube::ResourceExt as _;

use crate::reconcile::credentials::{self, Files, KafkaCredentials, Secrets, prefix};
use crate::reconcile::invalid_spec::InvalidSpec;

/// A connection that the forwarder's rules take.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// How to reach Kafka.
    pub connection: KafkaConnection,
    /// The files that it names.
    pub files: Files,
}

/// The channel's connection, its files named in `folder`.
///
/// # Errors
/// [`InvalidSpec`]; faults of the spec go before those of Secrets.
pub fn validate(channel: &KafkaChannel, secrets: &Secrets, folder: &Path) -> Result<Validated, InvalidSpec> {
    let spec = &channel.spec;
    check(
        KafkaConnection {
            bootstrap_servers: spec.connection.bootstrap_servers.clone(),
            tls: None,
            sasl: None,
            properties: std::collections::BTreeMap::new(),
        },
        &spec.topic.name,
    )?;
    let token = |sasl: &crds::kafka_channel::Sasl| sasl.mechanism == SaslMechanism::OAuthBearer;
    if spec.topic.managed && spec.connection.sasl.as_ref().is_some_and(token) {
        // The admin client of our library has no way to be given a token.
        return Err(InvalidSpec::Spec(
            "spec.topic.managed: the operator cannot manage topics with OAUTHBEARER; remove it and create the topic by \
             other means, or use SCRAM or a client certificate"
                .to_owned(),
        ));
    }
    let prefix = prefix("kafka", &channel.namespace().unwrap_or_default(), &channel.name_any());
    let KafkaCredentials { connection, files } = credentials::kafka(&spec.connection, secrets, &prefix, folder)?;
    Ok(Validated { connection, files })
}

/// The checks of a document with this source and otherwise nothing to find fault with.
fn check(connection: KafkaConnection, topic: &str) -> Result<(), InvalidSpec> {
    let document = Document {
        source: Source {
            connection,
            topic: topic.to_owned(),
            further_topics: Vec::new(),
            group: "group".to_owned(),
            start_from: StartFrom::default(),
            missing_offset: MissingOffset::default(),
            protocol: GroupProtocol::default(),
        },
        ring: None,
        publish: Publish::default(),
        dead_letter: None,
        engine: Engine::default(),
        admin: Admin::default(),
        logging: Logging::default(),
        telemetry: None,
    };
    document.check().map_err(|errors| {
        let faults = errors.faults().iter().map(|fault| {
            let path = match fault.path.strip_prefix("source.") {
                Some("topic") => "spec.topic.name".to_owned(),
                Some(path) => format!("spec.{path}"),
                None => fault.path.clone(),
            };
            format!("{path}: {}; {}", fault.problem, fault.remedy)
        });
        InvalidSpec::Spec(faults.collect::<Vec<_>>().join(". "))
    })
}
