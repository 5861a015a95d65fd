//! From the spec and its channels to the configuration of the pods, checked by the forwarder's own code.

use std::path::Path;

use crds::AssetForwarderSpec;
use crds::asset_forwarder::{
    DeadLetter, DeadLetterType, GroupProtocol, Limits, LogFormat, LogLevel, MissingOffset, Publish, PublishMode,
    Source, StartFrom, StartFromType, Storage, Stream,
};
use forwarder_core::document::{self, Document, Fault, RingConfig};
use k8s_openapi::jiff::Timestamp;

use super::names;
use crate::reconcile::credentials::KafkaCredentials;

/// A topic, and how to reach it.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    /// `namespace/name` of its channel.
    pub channel: &'a str,
    /// The topic's name.
    pub name: &'a str,
    /// How to reach it.
    pub credentials: &'a KafkaCredentials,
}

/// The configuration for `topics`, the first source's first, all with the settings of `source`; with `ring`, where the pods do not watch
/// theirs.
///
/// Further topics are written only where there are some: a pod of an older image refuses a document with a field that it does not know.
///
/// # Errors
/// What can never work, by the path of the resource's field.
pub fn document(
    spec: &AssetForwarderSpec,
    source: &Source,
    topics: &[Topic<'_>],
    dead_letter: Option<Topic<'_>>,
    ring: Option<&RingConfig>,
) -> Result<Document, String> {
    let Some((topic, further)) = topics.split_first() else {
        return Err("spec.sources: has 0 entries; write at least one".to_owned());
    };
    let letters = spec.dead_letter.as_ref();
    let document = Document {
        source: document::Source {
            connection: document::KafkaConnection {
                properties: source.client_config.clone(),
                ..topic.credentials.connection.clone()
            },
            topic: topic.name.to_owned(),
            further_topics: further.iter().map(|topic| topic.name.to_owned()).collect(),
            group: source.group.clone(),
            start_from: start_from(source.start_from.as_ref())?,
            missing_offset: match source.missing_offset {
                None => document::MissingOffset::default(),
                Some(MissingOffset::Earliest) => document::MissingOffset::Earliest,
                Some(MissingOffset::Latest) => document::MissingOffset::Latest,
                Some(MissingOffset::Stop) => document::MissingOffset::Stop,
            },
            protocol: match source.protocol {
                None => document::GroupProtocol::default(),
                Some(GroupProtocol::Classic) => document::GroupProtocol::Classic,
                Some(GroupProtocol::Consumer) => document::GroupProtocol::Consumer,
            },
        },
        ring: ring.cloned(),
        publish: publish(&spec.publish),
        dead_letter: letters.map(|letters| dead_letters(letters, dead_letter)).transpose()?,
        engine: engine(spec.limits.as_ref()),
        admin: document::Admin {
            port: names::PORT,
            credentials_version_file: Some(Path::new(names::CREDENTIALS_FOLDER).join(names::VERSION_FILE)),
            ..document::Admin::default()
        },
        logging: logging(spec.logging.as_ref()),
        telemetry: spec.telemetry.as_ref().map(telemetry),
    };
    document.check().map_err(|faults| {
        let faults = faults.faults().iter();
        let lines = faults.map(|fault| told(fault, topics, dead_letter.map(|letter| letter.channel)));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(document)
}

fn start_from(start: Option<&StartFrom>) -> Result<document::StartFrom, String> {
    let Some(StartFrom { type_, timestamp }) = start else {
        return Ok(document::StartFrom::Latest);
    };
    match (type_, timestamp) {
        (StartFromType::Latest, _) => Ok(document::StartFrom::Latest),
        (StartFromType::Earliest, _) => Ok(document::StartFrom::Earliest),
        (StartFromType::Timestamp, Some(timestamp)) => match timestamp.parse::<Timestamp>() {
            Ok(timestamp) => Ok(document::StartFrom::Timestamp {
                millis: timestamp.as_millisecond(),
            }),
            Err(_) => Err(format!(
                "spec.sources[0].startFrom.timestamp: {timestamp:?} is not a valid time; write one such as 2026-01-31T06:00:00Z"
            )),
        },
        (StartFromType::Timestamp, None) => {
            Err("spec.sources[0].startFrom.timestamp: is missing; type Timestamp needs it".to_owned())
        }
    }
}

fn publish(publish: &Publish) -> document::Publish {
    let Publish {
        mode,
        subject,
        stream,
        headers,
        max_attempts,
        // It is in the ring's document, which running pods take up.
        mirror_moved_seconds: _,
    } = publish;
    let default = document::Publish::default();
    document::Publish {
        mode: match mode {
            PublishMode::Core => document::PublishMode::Core,
            PublishMode::JetStream => document::PublishMode::JetStream,
        },
        subject: subject.clone().unwrap_or(default.subject),
        stream: stream.as_ref().map(|declared| {
            let Stream {
                name,
                manage,
                subjects,
                replicas,
                storage,
                max_age_seconds,
                max_bytes,
                duplicate_window_seconds,
            } = declared;
            document::Stream {
                name: name.clone(),
                manage: *manage,
                subjects: subjects.clone(),
                replicas: replicas.map_or(1, |replicas| usize::try_from(replicas).unwrap_or(usize::MAX)),
                storage: match storage {
                    None | Some(Storage::File) => document::Storage::File,
                    Some(Storage::Memory) => document::Storage::Memory,
                },
                max_age_seconds: *max_age_seconds,
                max_bytes: *max_bytes,
                duplicate_window_seconds: duplicate_window_seconds.unwrap_or(120),
            }
        }),
        headers: document::Headers {
            origin: headers.as_ref().is_some_and(|headers| headers.origin),
        },
        retry: document::Retry {
            max_attempts: *max_attempts,
            ..default.retry
        },
    }
}

fn dead_letters(letters: &DeadLetter, topic: Option<Topic<'_>>) -> Result<document::DeadLetter, String> {
    match (letters.type_, topic) {
        (DeadLetterType::Channel, Some(topic)) => Ok(document::DeadLetter::Topic {
            topic: topic.name.to_owned(),
            connection: Some(topic.credentials.connection.clone()),
        }),
        (DeadLetterType::Channel, None) => {
            Err("spec.deadLetter.channelRef: is missing; type Channel needs it".to_owned())
        }
        (DeadLetterType::File, _) if letters.file.is_none() => {
            Err("spec.deadLetter.file: is missing; type File needs it".to_owned())
        }
        (DeadLetterType::File, _) => Ok(document::DeadLetter::File {
            path: Path::new(names::DEAD_LETTER_FOLDER).join(names::DEAD_LETTER_FILE),
        }),
    }
}

/// The caps in force. Where only one of a pair is given, the other one's default gives way.
#[must_use]
pub fn engine(limits: Option<&Limits>) -> document::Engine {
    let default = document::Engine::default();
    let Limits {
        max_pending_records_per_cluster,
        max_pending_bytes_per_cluster,
        max_pending_records,
        max_pending_bytes,
        max_record_bytes,
        drain_timeout_seconds,
    } = limits.cloned().unwrap_or_default();
    let (max_pending_records_per_cluster, max_pending_records) = caps(
        max_pending_records_per_cluster.map(u64::from),
        max_pending_records.map(u64::from),
        (default.max_pending_records_per_cluster, default.max_pending_records),
    );
    let (max_pending_bytes_per_cluster, max_pending_bytes) = caps(
        max_pending_bytes_per_cluster,
        max_pending_bytes,
        (default.max_pending_bytes_per_cluster, default.max_pending_bytes),
    );
    document::Engine {
        max_pending_records_per_cluster,
        max_pending_bytes_per_cluster,
        max_pending_records,
        max_pending_bytes,
        max_record_bytes: max_record_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        drain_timeout_ms: drain_timeout_seconds.map_or(default.drain_timeout_ms, |seconds| {
            u64::from(seconds).saturating_mul(1_000)
        }),
        ..default
    }
}

fn caps(each: Option<u64>, total: Option<u64>, default: (usize, usize)) -> (usize, usize) {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match (each.map(size), total.map(size)) {
        (None, None) => default,
        (Some(each), None) => (each, default.1.max(each)),
        (None, Some(total)) => (default.0.min(total), total),
        (Some(each), Some(total)) => (each, total),
    }
}

fn logging(logging: Option<&crds::asset_forwarder::Logging>) -> document::Logging {
    let logging = logging.cloned().unwrap_or_default();
    document::Logging {
        level: match logging.level {
            Some(LogLevel::Error) => document::LogLevel::Error,
            Some(LogLevel::Warn) => document::LogLevel::Warn,
            None | Some(LogLevel::Info) => document::LogLevel::Info,
            Some(LogLevel::Debug) => document::LogLevel::Debug,
            Some(LogLevel::Trace) => document::LogLevel::Trace,
        },
        format: match logging.format {
            Some(LogFormat::Text) => document::LogFormat::Text,
            None | Some(LogFormat::Json) => document::LogFormat::Json,
        },
        http_requests: false,
    }
}

fn telemetry(telemetry: &crds::asset_forwarder::Telemetry) -> document::Telemetry {
    let traces = telemetry.traces.as_ref().map(|traces| document::Traces {
        endpoint: traces.endpoint.clone(),
        samples_per_million: traces.samples_per_million.unwrap_or_default(),
        tls: None,
    });
    document::Telemetry { traces }
}

/// A fault at the field that the person wrote.
fn told(fault: &Fault, topics: &[Topic<'_>], dead_letter: Option<&str>) -> String {
    let path = &fault.path;
    let channel = topics.first().map_or("", |topic| topic.channel);
    let channel_field = |channel: &str, rest: &str| {
        let field = rest.replace("topic", "topic.name");
        format!("KafkaChannel {channel}: spec.{field}")
    };
    let renamed = |from: &str, to: &str| path.strip_prefix(from).map(|rest| format!("{to}{rest}"));
    let path = renamed("source.connection.properties", "spec.sources[0].clientConfig")
        .or_else(|| {
            let rest = path.strip_prefix("source.")?;
            (rest.starts_with("connection") || rest == "topic").then(|| channel_field(channel, rest))
        })
        .or_else(|| {
            let place = path.strip_prefix("source.furtherTopics[")?.strip_suffix(']')?;
            let topic = topics.get(place.parse::<usize>().ok()?.checked_add(1)?)?;
            Some(channel_field(topic.channel, "topic"))
        })
        .or_else(|| renamed("source.furtherTopics", "spec.sources"))
        .or_else(|| renamed("source.startFrom.millis", "spec.sources[0].startFrom.timestamp"))
        .or_else(|| renamed("source.", "spec.sources[0]."))
        .or_else(|| renamed("publish.retry.", "spec.publish."))
        .or_else(|| renamed("publish.", "spec.publish."))
        .or_else(|| {
            let rest = path.strip_prefix("deadLetter.")?;
            dead_letter.map(|channel| channel_field(channel, rest))
        })
        .or_else(|| renamed("engine.drainTimeoutMs", "spec.limits.drainTimeoutSeconds"))
        .or_else(|| renamed("engine.", "spec.limits."))
        .or_else(|| renamed("ring.handoverTimeoutMs", "spec.ring.handoverTimeoutSeconds"))
        .or_else(|| renamed("ring.replicas", "spec.ring.replicas"))
        .unwrap_or_else(|| path.clone());
    Fault { path, ..fault.clone() }.to_string()
}
