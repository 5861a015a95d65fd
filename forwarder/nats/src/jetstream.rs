//! What JetStream's API answers: JSON, whatever the question.

use async_nats::jetstream::ErrorCode;
use serde::Deserialize;

/// An answer: what was asked for, or a refusal. A field that is missing in `T` by a refusal must have a default.
#[derive(Debug, Deserialize)]
pub struct Answer<T> {
    /// Why not.
    #[serde(default)]
    pub error: Option<ApiError>,
    /// What was asked for.
    #[serde(flatten)]
    pub content: T,
}

/// A refusal by JetStream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ApiError {
    /// Like an HTTP status.
    #[serde(default)]
    pub code: u16,
    /// JetStream's own number; 0 where it gave none.
    #[serde(default)]
    pub err_code: u16,
    /// JetStream's words.
    #[serde(default)]
    pub description: String,
}

impl ApiError {
    /// Whether JetStream is off, for the server or for the account.
    #[must_use]
    pub fn is_not_enabled(&self) -> bool {
        self.is_one_of(&[
            ErrorCode::JETSTREAM_NOT_ENABLED,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
        ])
    }

    /// Whether JetStream has no leader, or none of the servers with the stream's copies is there.
    #[must_use]
    pub fn is_leaderless(&self) -> bool {
        self.is_one_of(&[
            ErrorCode::CLUSTER_NOT_AVAILABLE,
            ErrorCode::STREAM_OFFLINE,
            ErrorCode::STREAM_OFFLINE_REASON,
        ])
    }

    /// Whether there is no such stream.
    #[must_use]
    pub fn is_stream_not_found(&self) -> bool {
        self.is_one_of(&[ErrorCode::STREAM_NOT_FOUND])
    }

    fn is_one_of(&self, codes: &[ErrorCode]) -> bool {
        codes.iter().any(|code| code.0 == u64::from(self.err_code))
    }
}
