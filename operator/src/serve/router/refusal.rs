//! An answer that is none, as JSON with a message.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::index::rings::NoAnswer;
use crate::index::rings::tables::NoTable;

/// An answer that is none, as JSON with a message.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    /// Those to choose from.
    forwarders: Vec<String>,
    /// In how many seconds it is worth asking again, where that is known.
    retry_after: Option<u64>,
}

/// Seconds after which a table is asked for again that could not be begun: about as long as the largest ones in front of it take.
const RETRY_AFTER: u64 = 2;

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            forwarders: Vec::new(),
            retry_after: None,
        }
    }

    /// The server is busy. It is worth asking again after so many seconds.
    pub(super) fn busy(message: impl Into<String>, retry_after: u64) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

impl From<NoAnswer> for Refusal {
    fn from(why: NoAnswer) -> Self {
        let status = match &why {
            NoAnswer::NotRead
            | NoAnswer::NoRing(_)
            | NoAnswer::Idle(_)
            | NoAnswer::NoRoom(_)
            | NoAnswer::NoTable(..) => StatusCode::SERVICE_UNAVAILABLE,
            NoAnswer::Unknown(_) | NoAnswer::None => StatusCode::NOT_FOUND,
            NoAnswer::Several(_) => StatusCode::CONFLICT,
        };
        let mut refusal = Self::new(status, why.to_string());
        match why {
            NoAnswer::Several(forwarders) => {
                refusal.forwarders = forwarders.iter().map(ToString::to_string).collect();
            }
            NoAnswer::NoTable(_, NoTable::Busy { .. }) => refusal.retry_after = Some(RETRY_AFTER),
            _ => {}
        }
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            message,
            forwarders,
            retry_after,
        } = self;
        let mut body = serde_json::json!({ "error": message });
        if !forwarders.is_empty() {
            body["forwarders"] = forwarders.into();
        }
        let retry_after = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (status, retry_after, Json(body)).into_response()
    }
}
