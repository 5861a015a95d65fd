//! The stream that a JetStream forwarder publishes to: created, kept as declared, or only checked.
//!
//! The API is JSON over request and reply, asked through async-nats: one client for one check, on the server that the records go to. It
//! proves nothing about a record. Configurations are kept as JSON, since a typed one would drop, and by an update switch off, what a
//! newer server knows and others have set.

mod api;
mod error;

use std::time::Duration;

use forwarder_core::document::{Cluster, Publish, Storage, Stream};
use forwarder_core::subject::{Template, covers};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub use error::{StreamError, StreamFault};

use super::server::ServerAddress;
use api::Api;

/// For connecting and all requests together.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A restart of the forwarder or of its server should fit in the stream's memory of message ids.
const SHORT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The stream that was found or created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// The stream's name.
    pub name: String,
    /// What was done about it.
    pub change: Change,
    /// Its subjects.
    pub subjects: Vec<String>,
    /// How long it remembers message ids.
    pub duplicate_window: Duration,
}

/// What was done about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is as it should be.
    None,
    /// It was missing.
    Created,
    /// It differed from what is declared.
    Updated,
}

/// Creates the stream, updates it as declared, or only checks that it takes and confirms what we publish.
/// Asks `server` by a client of its own, which ends with the check; bounded by 15 s.
///
/// # Errors
/// [`StreamError`], with what to do about it.
pub async fn ensure_stream(
    cluster: &Cluster,
    publish: &Publish,
    server: &ServerAddress,
) -> Result<StreamState, StreamError> {
    let deadline = Instant::now() + TIMEOUT;
    let declared = publish.stream.as_ref().ok_or(StreamError::NotDeclared)?;
    let template = Template::parse(&publish.subject)?;
    let prefix = template.literal_prefix();
    if prefix.is_empty() {
        return Err(StreamError::NoPrefix {
            subject: publish.subject.clone(),
        });
    }
    let mut api = Api::open(cluster, declared, server, deadline).await?;
    let found = api.info().await?;
    let (change, config) = match (found, declared.manage) {
        (None, false) => {
            return Err(StreamError::Missing {
                cluster: cluster.name.clone(),
                stream: declared.name.clone(),
            });
        }
        (None, true) => (
            Change::Created,
            api.change("CREATE", &new_config(declared, prefix)).await?,
        ),
        (Some(found), false) => (Change::None, found),
        (Some(found), true) => match updated(&found, declared, prefix) {
            None => (Change::None, found),
            Some(config) => (Change::Updated, api.change("UPDATE", &config).await?),
        },
    };
    let state = judge(cluster, declared, prefix, change, &config)?;
    if state.change != Change::None {
        tracing::info!(
            cluster = cluster.name,
            stream = state.name,
            change = ?state.change,
            "created or updated the stream as declared"
        );
    }
    if state.duplicate_window < SHORT_DUPLICATE_WINDOW {
        tracing::warn!(
            cluster = cluster.name,
            stream = state.name,
            seconds = state.duplicate_window.as_secs_f64(),
            "the stream's duplicate window is short: a record that is published again after a longer outage is stored twice"
        );
    }
    Ok(state)
}

/// The error of a check that got no answer in its time.
#[must_use]
pub fn silent(cluster: &Cluster, publish: &Publish) -> StreamError {
    let declared = publish.stream.as_ref();
    declared.map_or(StreamError::NotDeclared, |declared| api::silent(cluster, declared))
}

/// The fields that we declare. All others are left to the server, or as they were found.
fn declared_fields(declared: &Stream, prefix: &str) -> Map<String, Value> {
    let Stream {
        name: _,
        manage: _,
        subjects: _,
        replicas,
        storage,
        max_age_seconds,
        max_bytes,
        duplicate_window_seconds,
    } = declared;
    let subjects = declared.managed_subjects(prefix);
    let storage = match storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    };
    let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    let mut fields = Map::new();
    fields.insert("subjects".to_owned(), json!(subjects));
    fields.insert("num_replicas".to_owned(), json!(replicas));
    fields.insert("storage".to_owned(), json!(storage));
    fields.insert("duplicate_window".to_owned(), json!(nanos(*duplicate_window_seconds)));
    // Absent means no bound, which is what the server makes of a field that nobody has set.
    fields.insert("max_age".to_owned(), json!(nanos(max_age_seconds.unwrap_or(0))));
    fields.insert("max_bytes".to_owned(), json!(max_bytes.unwrap_or(-1)));
    fields
}

fn new_config(declared: &Stream, prefix: &str) -> Value {
    let mut config = declared_fields(declared, prefix);
    config.insert("name".to_owned(), json!(declared.name));
    config.insert("retention".to_owned(), json!("limits"));
    config.insert("discard".to_owned(), json!("old"));
    Value::Object(config)
}

/// The found configuration with our fields in it; `None`: it has them already.
fn updated(found: &Value, declared: &Stream, prefix: &str) -> Option<Value> {
    let mut config = found.clone();
    let mut differs = false;
    for (field, value) in declared_fields(declared, prefix) {
        if config.get(&field) != Some(&value) {
            // The server leaves out what is zero.
            differs |= !(value == json!(0) && config.get(&field).is_none());
            config[field] = value;
        }
    }
    differs.then_some(config)
}

fn judge(
    cluster: &Cluster,
    declared: &Stream,
    prefix: &str,
    change: Change,
    config: &Value,
) -> Result<StreamState, StreamError> {
    let (cluster, stream) = (cluster.name.clone(), declared.name.clone());
    let is = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(false);
    let problem = if is("no_ack") {
        Some("has no_ack set, so it confirms nothing; clear no_ack")
    } else if is("sealed") {
        Some("is sealed and accepts no messages; use another stream")
    } else if config.get("mirror").is_some_and(|mirror| !mirror.is_null()) {
        Some("is a mirror and accepts no published messages; use another stream")
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(StreamError::Unfit {
            cluster,
            stream,
            problem,
        });
    }
    let listed = config.get("subjects").and_then(Value::as_array);
    let subjects: Vec<String> = listed
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if !subjects.iter().any(|subject| covers(subject, prefix)) {
        return Err(StreamError::NotCovered {
            cluster,
            stream,
            subjects,
            wanted: format!("{prefix}.>"),
        });
    }
    let window = config.get("duplicate_window").and_then(Value::as_u64).unwrap_or(0);
    Ok(StreamState {
        name: stream,
        change,
        subjects,
        duplicate_window: Duration::from_nanos(window),
    })
}

#[cfg(test)]
mod tests;
