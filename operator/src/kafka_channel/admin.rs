//! Changes of a topic, and its settings.
//!
//! Our library has no incremental change of settings: what it writes replaces all that was set on the topic. So everything that
//! is set there is read first and written again with ours. Who changes another setting in the moment between may lose that
//! change.

use std::collections::BTreeMap;
use std::time::Duration;

use forwarder::kafka::client_config;
use forwarder_core::config::KafkaConnection;
use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::inspect::{Failure, Kind, Setting};
use super::plan::Step;

/// For one request, and for the brokers to carry it out.
const WITHIN: Duration = Duration::from_secs(10);

/// Carries out a step. What is so already is no error. Blocks.
pub(super) fn change(connection: &KafkaConnection, topic: &str, step: &Step) -> Result<(), Failure> {
    let admin = client(connection)?;
    let options = options();
    match step {
        Step::Create {
            partitions,
            replication_factor,
            config,
        } => {
            let replication = TopicReplication::Fixed(replication_factor.unwrap_or(-1));
            let new = NewTopic::new(topic, partitions.unwrap_or(-1), replication);
            let new = config.iter().fold(new, |new, (name, value)| new.set(name, value));
            let created = block_on(admin.create_topics([&new], &options));
            outcome("create", topic, created, RDKafkaErrorCode::TopicAlreadyExists)
        }
        Step::AddPartitions { to, .. } => {
            let new = NewPartitions::new(topic, usize::try_from(*to).unwrap_or_default());
            let added = block_on(admin.create_partitions([&new], &options));
            outcome("add partitions to", topic, added, RDKafkaErrorCode::NoError)
        }
        Step::Configure { all, .. } => {
            let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
            let alter = all.iter().fold(alter, |alter, (name, value)| alter.set(name, value));
            let altered = block_on(admin.alter_configs([&alter], &options));
            let altered = altered.map(|results| {
                let name = || topic.to_owned();
                let plain = |result: Result<_, (_, RDKafkaErrorCode)>| match result {
                    Ok(_) => Ok(name()),
                    Err((_, code)) => Err((name(), code)),
                };
                results.into_iter().map(plain).collect()
            });
            outcome("configure", topic, altered, RDKafkaErrorCode::NoError)
        }
        Step::Delete => {
            let deleted = block_on(admin.delete_topics(&[topic], &options));
            outcome("delete", topic, deleted, RDKafkaErrorCode::UnknownTopicOrPartition)
        }
    }
}

/// All settings of a topic. Blocks.
pub(super) fn describe(connection: &KafkaConnection, topic: &str) -> Result<BTreeMap<String, Setting>, Failure> {
    let admin = client(connection)?;
    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()));
    let resources = described.map_err(|error| failed("read the settings of", topic, &error))?;
    let mut settings = BTreeMap::new();
    for resource in resources {
        let entries = resource
            .map_err(|code| refused("read the settings of", topic, code))?
            .entries;
        for entry in entries {
            let own = entry.source == ConfigSource::DynamicTopic;
            let value = entry.value;
            settings.insert(entry.name, Setting { value, own });
        }
    }
    if settings.is_empty() {
        // A refusal comes as an empty answer. Taken for a topic without settings, it would make us reset them all.
        return Err(Failure::new(
            Kind::Authorization,
            format!(
                "the brokers do not tell the settings of the topic {topic:?}; allow DescribeConfigs and AlterConfigs on it"
            ),
        ));
    }
    Ok(settings)
}

fn client(connection: &KafkaConnection) -> Result<AdminClient<DefaultClientContext>, Failure> {
    let mut config = client_config::admin(connection)?;
    config.set("client.id", "fanout-operator");
    config.create().map_err(|error| Failure::client(&error))
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(WITHIN))
        .operation_timeout(Some(WITHIN))
}

/// The result of a request about one topic; the error that says that it is so already is none.
fn outcome(
    verb: &'static str,
    topic: &str,
    result: Result<Vec<TopicResult>, KafkaError>,
    already: RDKafkaErrorCode,
) -> Result<(), Failure> {
    let results = result.map_err(|error| failed(verb, topic, &error))?;
    for result in results {
        match result {
            Ok(_) => {}
            Err((_, code)) if code == already => {}
            Err((_, code)) => return Err(refused(verb, topic, code)),
        }
    }
    Ok(())
}

fn failed(verb: &str, topic: &str, error: &KafkaError) -> Failure {
    error.rdkafka_error_code().map_or_else(
        || Failure::new(Kind::Client, format!("failed to {verb} the topic {topic:?}: {error}")),
        |code| refused(verb, topic, code),
    )
}

/// What a broker's refusal means.
pub(super) fn refused(verb: &str, topic: &str, code: RDKafkaErrorCode) -> Failure {
    let (kind, remedy) = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            (Kind::Authorization, "; allow it to the user in Kafka's ACLs")
        }
        RDKafkaErrorCode::InvalidConfig => (Kind::Invalid, "; correct spec.topic.config"),
        RDKafkaErrorCode::InvalidPartitions => (Kind::Invalid, "; correct spec.topic.partitions"),
        RDKafkaErrorCode::InvalidTopic => (Kind::Invalid, "; correct spec.topic.name"),
        RDKafkaErrorCode::PolicyViolation => (Kind::Invalid, "; ask who runs the brokers what their policy allows"),
        RDKafkaErrorCode::InvalidReplicationFactor => (
            Kind::Refused,
            "; there must be as many brokers as spec.topic.replicationFactor says",
        ),
        RDKafkaErrorCode::TopicDeletionDisabled => (Kind::Refused, "; set delete.topic.enable on the brokers"),
        RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown => (Kind::Unreachable, ""),
        _ => (Kind::Refused, ""),
    };
    Failure::new(kind, format!("failed to {verb} the topic {topic:?}: {code}{remedy}"))
}
