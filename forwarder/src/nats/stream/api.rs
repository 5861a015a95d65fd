//! JetStream's API: JSON over request and reply.

use bytes::{Bytes, BytesMut};
use forwarder_core::config::Cluster;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::StreamError;
use crate::nats::connection::{Connection, Login, connect};
use crate::nats::protocol::{Op, Parser, encode_ping, encode_pong, encode_pub, encode_sub};
use crate::nats::server::ServerAddress;

/// A connection to this server of the cluster.
pub(super) async fn open(
    cluster: &Cluster,
    server: &ServerAddress,
    deadline: Instant,
) -> Result<Connection, StreamError> {
    let left = deadline.saturating_duration_since(Instant::now());
    connect(server, Login::of(cluster, "fanout-forwarder stream"), left)
        .await
        .map_err(|source| StreamError::Connect {
            cluster: cluster.name.clone(),
            source: Box::new(source),
        })
}

/// JetStream's API for one stream, over one connection, one request at a time.
pub(super) struct Api<'a> {
    cluster: &'a str,
    stream: &'a str,
    connection: Connection,
    parser: Parser,
    deadline: Instant,
    /// Where answers come: no other connection of the cluster has the same server and number.
    inbox: String,
    requests: u64,
}

#[derive(Deserialize)]
struct Answer {
    config: Option<Value>,
    error: Option<Refusal>,
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

impl<'a> Api<'a> {
    pub(super) fn new(cluster: &'a Cluster, stream: &'a str, connection: Connection, deadline: Instant) -> Self {
        let inbox = format!("_INBOX.{}.{}", connection.info.server_id, connection.info.client_id);
        Self {
            cluster: &cluster.name,
            stream,
            connection,
            parser: Parser::default(),
            deadline,
            inbox,
            requests: 0,
        }
    }

    /// The stream's configuration; `None`: there is no such stream.
    pub(super) async fn info(&mut self) -> Result<Option<Value>, StreamError> {
        match self.request("INFO", &json!({})).await {
            Ok(config) => Ok(Some(config)),
            Err(StreamError::Refused {
                err_code: STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One request about the stream; the answer's configuration.
    pub(super) async fn request(&mut self, verb: &str, body: &Value) -> Result<Value, StreamError> {
        let (cluster, stream) = (self.cluster.to_owned(), self.stream.to_owned());
        let answered = timeout_at(self.deadline, self.exchange(verb, body)).await;
        let payload = answered.map_err(|_| StreamError::Timeout {
            cluster: cluster.clone(),
            stream: stream.clone(),
        })??;
        let answer: Answer = serde_json::from_slice(&payload).map_err(|source| StreamError::Answer {
            cluster: cluster.clone(),
            source,
        })?;
        match (answer.error, answer.config) {
            (Some(Refusal { err_code, .. }), _) if NOT_ENABLED.contains(&err_code) => {
                Err(StreamError::NotEnabled { cluster })
            }
            (Some(Refusal { err_code, description }), _) => Err(StreamError::Refused {
                cluster,
                stream,
                description,
                err_code,
            }),
            (None, Some(config)) => Ok(config),
            (None, None) => Err(StreamError::Answer {
                cluster,
                source: serde::de::Error::custom("neither a configuration nor an error"),
            }),
        }
    }

    async fn exchange(&mut self, verb: &str, body: &Value) -> Result<Bytes, StreamError> {
        self.requests += 1;
        let reply = format!("{}.{}", self.inbox, self.requests);
        let subject = format!("$JS.API.STREAM.{verb}.{}", self.stream);
        let mut out = Vec::new();
        encode_sub(&mut out, reply.as_bytes(), self.requests);
        encode_pub(
            &mut out,
            subject.as_bytes(),
            Some(reply.as_bytes()),
            b"",
            body.to_string().as_bytes(),
        );
        // Violations come before its PONG: without one, the request has reached the server's JetStream.
        encode_ping(&mut out);
        self.write(&out).await?;
        loop {
            match self.next_op().await? {
                Op::Message(message) if message.subject == reply.as_bytes() => {
                    // 503: nobody listens to JetStream's API in our account.
                    return match message.payload.is_empty() {
                        true => Err(StreamError::NotEnabled {
                            cluster: self.cluster.to_owned(),
                        }),
                        false => Ok(message.payload),
                    };
                }
                Op::Error(error) if error.closes_connection() => {
                    let source = std::io::Error::other(error);
                    return Err(StreamError::Io {
                        cluster: self.cluster.to_owned(),
                        source,
                    });
                }
                Op::Error(source) => {
                    let (cluster, stream) = (self.cluster.to_owned(), self.stream.to_owned());
                    return Err(StreamError::Permission {
                        cluster,
                        stream,
                        source,
                    });
                }
                Op::Ping => {
                    out.clear();
                    encode_pong(&mut out);
                    self.write(&out).await?;
                }
                Op::Message(_) | Op::Info(_) | Op::Pong | Op::Ok => {}
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let io = &mut self.connection.io;
        let written = async {
            io.write_all(bytes).await?;
            io.flush().await
        };
        written.await.map_err(|source| StreamError::Io {
            cluster: self.cluster.to_owned(),
            source,
        })
    }

    async fn next_op(&mut self) -> Result<Op, StreamError> {
        let Connection { info: _, io, leftover } = &mut self.connection;
        let buffer: &mut BytesMut = leftover;
        loop {
            let parsed = self.parser.next_op(buffer);
            if let Some(op) = parsed.map_err(|source| StreamError::Protocol {
                cluster: self.cluster.to_owned(),
                source,
            })? {
                return Ok(op);
            }
            let read = match io.read_buf(buffer).await {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            read.map_err(|source| StreamError::Io {
                cluster: self.cluster.to_owned(),
                source,
            })?;
        }
    }
}
