//! Changes of a topic, and its settings.
//!
//! Our library has no incremental change of settings: what it writes replaces all that was set on the topic. So everything that
//! is set there is read first and written again with ours. Who changes another setting in the moment between may lose that
//! change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::document::KafkaConnection;
use forwarder_kafka::client_config;
use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::decide::Step;
use super::refusals::{self, Refusal};
use super::seen::{Failure, Kind, Setting};

/// For one request, and for the brokers to carry it out.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// Carries out a step that changes a topic which is there. What is so already is no error. Blocks.
pub(super) fn change(
    connection: &KafkaConnection,
    topic: &str,
    step: &Step,
    declared: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let admin = client(connection)?;
    let options = options(WITHIN);
    match step {
        Step::Create { .. } => create(connection, topic, step, Intent::Do).map(drop),
        Step::AddPartitions { to, .. } => {
            let new = NewPartitions::new(topic, usize::try_from(*to).unwrap_or_default());
            let added = block_on(admin.create_partitions([&new], &options));
            outcome("add partitions to", topic, added, RDKafkaErrorCode::NoError).map(drop)
        }
        Step::Configure { all, .. } => {
            // Before: our library takes a refusal of a change for a success.
            let checked = check_settings(&admin, topic, all, WITHIN);
            let (declared, others) = apart(all, declared);
            let check = |some: &_, within| check_settings(&admin, topic, some, within);
            match named(checked, &declared, &others, check) {
                Err(failure) if failure.kind == Kind::Settings => Err(failure),
                // Whoever may not create topics cannot ask before.
                _ => alter(&admin, topic, all),
            }
        }
        Step::Delete => {
            let deleted = block_on(admin.delete_topics(&[topic], &options));
            outcome("delete", topic, deleted, RDKafkaErrorCode::UnknownTopicOrPartition).map(drop)
        }
    }
}

/// Whether a request is carried out, or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Do,
    Check,
}

/// Creates the topic as a step says. Whether this request has done so: false where it was there already. Blocks.
pub(super) fn create(connection: &KafkaConnection, topic: &str, step: &Step, intent: Intent) -> Result<bool, Failure> {
    let Step::Create {
        partitions,
        replication_factor,
        config,
    } = step
    else {
        return Ok(false);
    };
    let admin = client(connection)?;
    let ask = |config: &BTreeMap<String, String>, intent, within| {
        let replication = TopicReplication::Fixed(replication_factor.unwrap_or(-1));
        let new = NewTopic::new(topic, partitions.unwrap_or(-1), replication);
        let new = config.iter().fold(new, |new, (name, value)| new.set(name, value));
        let options = options(within).validate_only(intent == Intent::Check);
        let created = block_on(admin.create_topics([&new], &options));
        outcome("create", topic, created, RDKafkaErrorCode::TopicAlreadyExists)
    };
    named(ask(config, intent, WITHIN), config, &BTreeMap::new(), |some, within| {
        ask(some, Intent::Check, within).map(drop)
    })
}

/// Which of the declared settings among `all` the brokers refuse for a topic that is there. Blocks.
pub(super) fn refused_settings(
    connection: &KafkaConnection,
    topic: &str,
    all: &BTreeMap<String, String>,
    declared: &BTreeMap<String, String>,
) -> Result<Vec<Refusal>, Failure> {
    let admin = client(connection)?;
    let (declared, others) = apart(all, declared);
    let deadline = Instant::now() + refusals::WITHIN;
    let check = |some: &_, within| check_settings(&admin, topic, some, within);
    match refusals::refused(&declared, &others, deadline, check) {
        Ok(refusals) => Ok(refusals.unwrap_or_default()),
        // Whoever may not create topics cannot ask, and is told of what is known without.
        Err(failure) if failure.kind != Kind::Unreachable => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// The settings that are declared, and those that others have set.
fn apart(
    all: &BTreeMap<String, String>,
    declared: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let all = all.clone().into_iter();
    all.partition(|(name, _)| declared.contains_key(name))
}

/// Asks about settings without writing them. Brokers check a change of a topic's settings only when it is written, so they are asked about a
/// topic that is not there.
fn check_settings(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    some: &BTreeMap<String, String>,
    within: Duration,
) -> Result<(), Failure> {
    const SUFFIX: &str = ".settings-check";
    // Names have 249 characters at most, all of one byte.
    let name: String = topic.chars().take(249 - SUFFIX.len()).chain(SUFFIX.chars()).collect();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    let new = some.iter().fold(new, |new, (name, value)| new.set(name, value));
    let checked = block_on(admin.create_topics([&new], &options(within).validate_only(true)));
    outcome(
        "check the settings of",
        topic,
        checked,
        RDKafkaErrorCode::TopicAlreadyExists,
    )
    .map(drop)
}

fn alter(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    all: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let alter = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let alter = all.iter().fold(alter, |alter, (name, value)| alter.set(name, value));
    let altered = block_on(admin.alter_configs([&alter], &options(WITHIN)));
    let altered = altered.map(|results| {
        let name = || topic.to_owned();
        let plain = |result: Result<_, (_, RDKafkaErrorCode)>| match result {
            Ok(_) => Ok(name()),
            Err((_, code)) => Err((name(), code)),
        };
        results.into_iter().map(plain).collect()
    });
    outcome("configure", topic, altered, RDKafkaErrorCode::NoError).map(drop)
}

/// A refusal of settings with the names of those that are declared, as far as the brokers can be asked in time.
fn named<T>(
    result: Result<T, Failure>,
    declared: &BTreeMap<String, String>,
    others: &BTreeMap<String, String>,
    check: impl FnMut(&BTreeMap<String, String>, Duration) -> Result<(), Failure>,
) -> Result<T, Failure> {
    match result {
        Err(failure) if failure.kind == Kind::Settings => {
            let deadline = Instant::now() + refusals::WITHIN;
            match refusals::refused(declared, others, deadline, check) {
                Ok(Some(refusals)) if !refusals.is_empty() => {
                    Err(Failure::new(Kind::Settings, refusals::told(&refusals)))
                }
                _ => Err(failure),
            }
        }
        other => other,
    }
}

/// All settings of a topic. Blocks.
pub(super) fn describe(connection: &KafkaConnection, topic: &str) -> Result<BTreeMap<String, Setting>, Failure> {
    let admin = client(connection)?;
    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options(WITHIN)));
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
                "the brokers do not return the settings of the topic {topic:?}; allow DescribeConfigs and AlterConfigs on it"
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

fn options(within: Duration) -> AdminOptions {
    let within = within.min(WITHIN);
    AdminOptions::new()
        .request_timeout(Some(within))
        .operation_timeout(Some(within))
}

/// The result of a request about one topic. The error that says that it is so already is none: then the answer is false.
fn outcome(
    verb: &'static str,
    topic: &str,
    result: Result<Vec<TopicResult>, KafkaError>,
    already: RDKafkaErrorCode,
) -> Result<bool, Failure> {
    let results = result.map_err(|error| failed(verb, topic, &error))?;
    let mut done = true;
    for result in results {
        match result {
            Ok(_) => {}
            Err((_, code)) if code == already => done = false,
            Err((_, code)) => return Err(refused(verb, topic, code)),
        }
    }
    Ok(done)
}

/// A request that has come to nothing.
pub(super) fn failed(verb: &str, topic: &str, error: &KafkaError) -> Failure {
    error.rdkafka_error_code().map_or_else(
        || Failure::new(Kind::Client, format!("failed to {verb} the topic {topic:?}: {error}")),
        |code| refused(verb, topic, code),
    )
}

/// What a broker's refusal means.
pub(super) fn refused(verb: &str, topic: &str, code: RDKafkaErrorCode) -> Failure {
    let (kind, remedy) = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            (Kind::Authorization, "; allow this to the user in Kafka's ACLs")
        }
        RDKafkaErrorCode::InvalidConfig => (Kind::Settings, "; correct spec.topic.config"),
        RDKafkaErrorCode::InvalidPartitions => (Kind::Invalid, "; correct spec.topic.partitions"),
        RDKafkaErrorCode::InvalidTopic => (Kind::Invalid, "; correct spec.topic.name"),
        RDKafkaErrorCode::PolicyViolation => (
            Kind::Invalid,
            "; ask the administrators of the brokers what their policy allows",
        ),
        RDKafkaErrorCode::InvalidReplicationFactor => (
            Kind::Refused,
            "; spec.topic.replicationFactor needs at least that many brokers",
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
