//! JetStream's API for one stream: JSON over request and reply.

use async_nats::{Client, Event, Request, RequestErrorKind};
use forwarder_core::document::{Cluster, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout_at};

use super::StreamError;
use super::client;
use crate::protocol::ServerError;
use crate::server::ServerAddress;

/// For a question. JetStream answers at once or, without a leader, not at all.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// JetStream's API for one stream, through one client, one request at a time.
pub(super) struct Api<'a> {
    cluster: &'a Cluster,
    stream: &'a Stream,
    client: Client,
    /// What the server says out of turn.
    events: mpsc::UnboundedReceiver<Event>,
    deadline: Instant,
}

#[derive(Deserialize)]
struct Answer {
    config: Option<Value>,
    cluster: Option<Group>,
    error: Option<Refusal>,
}

/// The servers that keep a stream's copies.
#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    leader: String,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

const STREAM_NOT_FOUND: u64 = 10059;
const NOT_ENABLED: [u64; 2] = [10076, 10039];

/// JetStream has no leader, or none of the servers with the stream's copies is there.
const LEADERLESS: [u64; 3] = [10008, 10118, 10194];

impl<'a> Api<'a> {
    /// Logs in at `server`.
    pub(super) async fn open(
        cluster: &'a Cluster,
        stream: &'a Stream,
        server: &ServerAddress,
        deadline: Instant,
    ) -> Result<Self, StreamError> {
        let (heard, events) = mpsc::unbounded_channel();
        let client = client::connect(cluster, server, heard, deadline).await?;
        Ok(Self {
            cluster,
            stream,
            client,
            events,
            deadline,
        })
    }

    /// The stream's configuration; `None`: there is no such stream.
    pub(super) async fn info(&mut self) -> Result<Option<Value>, StreamError> {
        match self.ask("INFO", &json!({}), Instant::now() + QUESTION_TIMEOUT).await {
            Ok(config) => Ok(Some(config)),
            Err(StreamError::Refused {
                err_code: STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One change of the stream; the answer's configuration.
    pub(super) async fn change(&mut self, verb: &str, config: &Value) -> Result<Value, StreamError> {
        self.ask(verb, config, self.deadline).await
    }

    async fn ask(&mut self, verb: &str, body: &Value, until: Instant) -> Result<Value, StreamError> {
        let answered = timeout_at(until.min(self.deadline), self.exchange(verb, body)).await;
        let payload = answered.map_err(|_| silent(self.cluster, self.stream))??;
        read_answer(self.cluster, self.stream, &payload)
    }

    async fn exchange(&mut self, verb: &str, body: &Value) -> Result<bytes::Bytes, StreamError> {
        let subject = format!("{}.STREAM.{verb}.{}", self.cluster.jet_stream_api(), self.stream.name);
        // How long it may take is ours to say.
        let request = Request::new().payload(body.to_string().into()).timeout(None);
        let answering = self.client.send_request(subject, request);
        let mut answering = std::pin::pin!(answering);
        loop {
            tokio::select! {
                answer = &mut answering => return match answer {
                    // The status 503: nobody listens there.
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(not_enabled(self.cluster)),
                    Err(problem) => Err(StreamError::Request { cluster: self.cluster.name.clone(), problem }),
                    Ok(message) => Ok(message.payload),
                },
                // What is denied gets no answer at all.
                event = self.events.recv() => match event {
                    Some(Event::ServerError(error)) => return Err(self.said(&error)),
                    Some(Event::Disconnected | Event::Closed) | None => {
                        return Err(StreamError::Lost { cluster: self.cluster.name.clone() });
                    }
                    Some(_) => {}
                },
            }
        }
    }

    fn said(&self, error: &async_nats::ServerError) -> StreamError {
        let cluster = self.cluster.name.clone();
        let text = match error {
            async_nats::ServerError::Other(text) => text.clone(),
            error => error.to_string(),
        };
        let source = ServerError::parse(text.as_bytes());
        if source.closes_connection() {
            return StreamError::Said { cluster, source };
        }
        StreamError::Permission {
            cluster,
            stream: self.stream.name.clone(),
            needed: needed(self.cluster, self.stream),
            source,
        }
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

/// The configuration that an answer holds.
fn read_answer(cluster: &Cluster, stream: &Stream, payload: &[u8]) -> Result<Value, StreamError> {
    let answer: Answer = serde_json::from_slice(payload).map_err(|source| StreamError::Answer {
        cluster: cluster.name.clone(),
        source,
    })?;
    let (name, stream) = (cluster.name.clone(), stream.name.clone());
    if let Some(Refusal { err_code, description }) = answer.error {
        return Err(if NOT_ENABLED.contains(&err_code) {
            not_enabled(cluster)
        } else if LEADERLESS.contains(&err_code) {
            StreamError::NoLeader {
                cluster: name,
                stream,
                description,
            }
        } else {
            StreamError::Refused {
                cluster: name,
                stream,
                description,
                err_code,
            }
        });
    }
    // Without a leader any server with a copy answers, and this is how it says so.
    if answer.cluster.is_some_and(|group| group.leader.is_empty()) {
        return Err(StreamError::NoLeader {
            cluster: name,
            stream,
            description: "its servers have chosen none".to_owned(),
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
        read_answer(&cluster(), &declared(true), answer.to_string().as_bytes())
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
