//! JetStream's API for one stream: JSON over request and reply.

use async_nats::{Client, Event, Request, RequestErrorKind};
use forwarder_core::config::{Cluster, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout_at};

use super::StreamError;
use super::client;
use crate::nats::protocol::ServerError;
use crate::nats::server::ServerAddress;

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
        let (cluster, stream) = (self.cluster.name.clone(), self.stream.name.clone());
        let answered = timeout_at(until.min(self.deadline), self.exchange(verb, body)).await;
        let payload = answered.map_err(|_| self.silent())??;
        let answer: Answer = serde_json::from_slice(&payload).map_err(|source| StreamError::Answer {
            cluster: cluster.clone(),
            source,
        })?;
        match answer {
            Answer {
                error: Some(Refusal { err_code, .. }),
                ..
            } if NOT_ENABLED.contains(&err_code) => Err(self.not_enabled()),
            Answer {
                error: Some(Refusal { err_code, description }),
                ..
            } if LEADERLESS.contains(&err_code) => Err(StreamError::NoLeader {
                cluster,
                stream,
                description,
            }),
            Answer {
                error: Some(Refusal { err_code, description }),
                ..
            } => Err(StreamError::Refused {
                cluster,
                stream,
                description,
                err_code,
            }),
            // Without a leader any server with a copy answers, and this is how it says so.
            Answer {
                cluster: Some(Group { leader }),
                ..
            } if leader.is_empty() => Err(StreamError::NoLeader {
                cluster,
                stream,
                description: "its servers have chosen none".to_owned(),
            }),
            Answer {
                config: Some(config), ..
            } => Ok(config),
            Answer { config: None, .. } => Err(StreamError::Answer {
                cluster,
                source: serde::de::Error::custom("neither a configuration nor an error"),
            }),
        }
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
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(self.not_enabled()),
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
            needed: self.needed(),
            source,
        }
    }

    fn silent(&self) -> StreamError {
        StreamError::Timeout {
            cluster: self.cluster.name.clone(),
            stream: self.stream.name.clone(),
            needed: self.needed(),
        }
    }

    fn not_enabled(&self) -> StreamError {
        StreamError::NotEnabled {
            cluster: self.cluster.name.clone(),
            api: self.cluster.jet_stream_api(),
        }
    }

    /// The permissions that a look needs, in words.
    fn needed(&self) -> String {
        let Self { cluster, stream, .. } = self;
        let api = format!("`{}.STREAM", cluster.jet_stream_api());
        let name = &stream.name;
        let publish = if stream.manage {
            format!("{api}.INFO.{name}`, {api}.CREATE.{name}` and {api}.UPDATE.{name}`")
        } else {
            format!("{api}.INFO.{name}`")
        };
        format!("publish to {publish} and subscribe to `{}.>`", cluster.inbox_prefix())
    }
}
