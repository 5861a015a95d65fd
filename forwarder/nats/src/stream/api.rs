//! JetStream's API for one stream: JSON over request and reply.

use forwarder_core::document::{Cluster, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::StreamError;
use crate::client::{Client, ClientError};
use crate::jetstream::{Answer, ApiError};
use crate::server::ServerAddress;

/// For a question. JetStream answers at once or, without a leader, not at all.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// JetStream's API for one stream, through one client, one request at a time.
pub(super) struct Api<'a> {
    cluster: &'a Cluster,
    stream: &'a Stream,
    client: Client,
    deadline: Instant,
}

/// What JetStream tells of a stream.
#[derive(Deserialize)]
struct Told {
    config: Option<Value>,
    cluster: Option<Group>,
}

/// The servers that keep a stream's copies.
#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    leader: String,
}

impl<'a> Api<'a> {
    /// Logs in at `server`.
    pub(super) async fn open(
        cluster: &'a Cluster,
        stream: &'a Stream,
        server: &ServerAddress,
        deadline: Instant,
    ) -> Result<Self, StreamError> {
        let client = Client::connect(cluster, server, "fanout-forwarder stream", deadline).await;
        Ok(Self {
            cluster,
            stream,
            client: client.map_err(|error| unanswered(cluster, stream, error))?,
            deadline,
        })
    }

    /// The stream's configuration; `None`: there is no such stream.
    pub(super) async fn info(&mut self) -> Result<Option<Value>, StreamError> {
        let answer = self.ask("INFO", &json!({}), Instant::now() + QUESTION_TIMEOUT).await?;
        if answer.error.as_ref().is_some_and(ApiError::is_stream_not_found) {
            return Ok(None);
        }
        judge_answer(self.cluster, self.stream, answer).map(Some)
    }

    /// One change of the stream; the answer's configuration.
    pub(super) async fn change(&mut self, verb: &str, config: &Value) -> Result<Value, StreamError> {
        let answer = self.ask(verb, config, self.deadline).await?;
        judge_answer(self.cluster, self.stream, answer)
    }

    async fn ask(&mut self, verb: &str, body: &Value, until: Instant) -> Result<Answer<Told>, StreamError> {
        let subject = format!("{}.STREAM.{verb}.{}", self.cluster.jet_stream_api(), self.stream.name);
        let asked = self
            .client
            .request(subject, body.to_string().into(), until.min(self.deadline));
        let payload = asked
            .await
            .map_err(|error| unanswered(self.cluster, self.stream, error))?;
        read_answer(self.cluster, &payload)
    }
}

/// Why there was no answer about the stream.
fn unanswered(cluster: &Cluster, stream: &Stream, error: ClientError) -> StreamError {
    let name = cluster.name.clone();
    match error {
        ClientError::Prepare(source) => StreamError::Connect { cluster: name, source },
        ClientError::LogIn { server, problem } => StreamError::Client {
            cluster: name,
            server,
            problem,
        },
        ClientError::Lost => StreamError::Lost { cluster: name },
        ClientError::Ended(source) => StreamError::Said { cluster: name, source },
        ClientError::Denied(source) => StreamError::Permission {
            cluster: name,
            stream: stream.name.clone(),
            needed: needed(cluster, stream),
            source,
        },
        ClientError::NoResponders => not_enabled(cluster),
        ClientError::Request(problem) => StreamError::Request { cluster: name, problem },
        ClientError::Silent => silent(cluster, stream),
    }
}

/// No answer in time.
pub(super) fn silent(cluster: &Cluster, stream: &Stream) -> StreamError {
    StreamError::Timeout {
        cluster: cluster.name.clone(),
        stream: stream.name.clone(),
        needed: needed(cluster, stream),
    }
}

/// The permissions that a look needs, in words.
fn needed(cluster: &Cluster, stream: &Stream) -> String {
    let api = format!("`{}.STREAM", cluster.jet_stream_api());
    let name = &stream.name;
    let publish = if stream.manage {
        format!("{api}.INFO.{name}`, {api}.CREATE.{name}` and {api}.UPDATE.{name}`")
    } else {
        format!("{api}.INFO.{name}`")
    };
    format!("publish to {publish} and subscribe to `{}.>`", cluster.inbox_prefix())
}

fn read_answer(cluster: &Cluster, payload: &[u8]) -> Result<Answer<Told>, StreamError> {
    serde_json::from_slice(payload).map_err(|source| StreamError::Answer {
        cluster: cluster.name.clone(),
        source,
    })
}

/// The configuration that an answer holds.
fn judge_answer(cluster: &Cluster, stream: &Stream, answer: Answer<Told>) -> Result<Value, StreamError> {
    let (name, stream) = (cluster.name.clone(), stream.name.clone());
    if let Some(error) = answer.error {
        return Err(if error.is_not_enabled() {
            not_enabled(cluster)
        } else if error.is_leaderless() {
            StreamError::NoLeader {
                cluster: name,
                stream,
                description: error.description,
            }
        } else {
            StreamError::Refused {
                cluster: name,
                stream,
                description: error.description,
                err_code: error.err_code,
            }
        });
    }
    let answer = answer.content;
    // Without a leader any server with a copy answers, and this is how it says so.
    if answer.cluster.is_some_and(|group| group.leader.is_empty()) {
        return Err(StreamError::NoLeader {
            cluster: name,
            stream,
            description: "its servers have not elected one".to_owned(),
        });
    }
    answer.config.ok_or_else(|| StreamError::Answer {
        cluster: name,
        source: serde::de::Error::custom("neither a configuration nor an error"),
    })
}

fn not_enabled(cluster: &Cluster) -> StreamError {
    StreamError::NotEnabled {
        cluster: cluster.name.clone(),
        api: cluster.jet_stream_api(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, declared};
    use super::*;

    fn read(answer: &Value) -> Result<Value, StreamError> {
        let cluster = cluster();
        let answer = read_answer(&cluster, answer.to_string().as_bytes())?;
        judge_answer(&cluster, &declared(true), answer)
    }

    #[test]
    fn a_configuration_comes_with_all_that_a_newer_server_says() {
        let config = json!({"name": "ASSETS", "allow_something_new": {"deep": [1, 2]}});
        for group in [json!(null), json!({"name": "x", "leader": "n1", "replicas": []})] {
            let answer =
                json!({"type": "io.nats.jetstream.api.v1.stream_info_response", "config": config, "cluster": group});
            assert_eq!(read(&answer).unwrap(), config);
        }
    }

    #[test]
    fn a_stream_without_a_leader_is_told_however_the_servers_say_it() {
        let config = json!({"name": "ASSETS"});
        for answer in [
            json!({"config": config, "cluster": {"name": "x", "replicas": [{"name": "n2"}]}}),
            json!({"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}),
            json!({"error": {"code": 500, "err_code": 10118, "description": "stream is offline"}}),
        ] {
            assert_eq!(read(&answer).unwrap_err().kind(), "no_leader", "{answer}");
        }
    }

    #[test]
    fn what_jetstream_refuses_is_told_in_its_words() {
        let answer = json!({"error": {"code": 400, "err_code": 10052, "description": "subjects overlap"}});
        let message = read(&answer).unwrap_err().to_string();
        assert!(
            message.contains("subjects overlap") && message.contains("10052"),
            "{message}"
        );
        let answer = json!({"error": {"code": 503, "err_code": 10076, "description": "JetStream not enabled"}});
        assert_eq!(read(&answer).unwrap_err().kind(), "not_enabled");
        for answer in [json!({}), json!([1])] {
            assert_eq!(read(&answer).unwrap_err().kind(), "protocol", "{answer}");
        }
    }
}
