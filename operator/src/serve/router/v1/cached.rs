//! How long an answer holds, and whether the client has it already.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::index::rings::{Phase, View};

/// Seconds for which an answer may be kept. A change is announced before it begins, and takes longer than this.
const MAX_AGE: u32 = 5;

/// The same where the ring is changing, or may be.
const MAX_AGE_IN_CHANGE: u32 = 1;

/// What says whether an answer is still the same: the rings that it is from. For one URL, the same rings give the same bytes.
#[derive(Debug)]
pub(super) struct Cached {
    /// In quotation marks.
    etag: String,
    max_age: u32,
}

impl Cached {
    /// For answers from these rings.
    pub(super) fn of(view: &View) -> Self {
        Self {
            etag: format!("\"{}\"", view.identity()),
            max_age: match view.phase {
                Phase::InUse => MAX_AGE,
                Phase::Announced | Phase::Unknown => MAX_AGE_IN_CHANGE,
            },
        }
    }

    /// Whether the client names this answer as one that it has.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let given = headers.get_all(header::IF_NONE_MATCH).iter();
        let given = given.filter_map(|value| value.to_str().ok());
        let mut tags = given.flat_map(|value| value.split(',')).map(str::trim);
        // A cache on the way may have made the tag a weak one.
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }

    /// The headers of an answer.
    pub(super) fn headers(&self) -> [(header::HeaderName, String); 2] {
        [
            (header::ETAG, self.etag.clone()),
            (header::CACHE_CONTROL, format!("max-age={}", self.max_age)),
        ]
    }

    /// The answer to a client that has it.
    pub(super) fn not_modified(&self) -> Response {
        (StatusCode::NOT_MODIFIED, self.headers()).into_response()
    }
}
