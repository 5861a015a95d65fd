//! A record, as a program reads it.

use std::sync::Arc;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

use crate::origin::Origin;

/// A record. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whose record it is.
    pub asset: Arc<str>,
    /// The name of the cluster that it came from.
    pub cluster: Arc<str>,
    /// Its subject.
    pub subject: Subject,
    /// Its value.
    pub payload: Bytes,
    /// Its headers.
    pub headers: Option<HeaderMap>,
    /// Its place in Kafka; none: the forwarder does not say.
    pub origin: Option<Origin>,
    /// It was there before: see [`Repeats::Deliver`](crate::Repeats::Deliver).
    pub is_repeat: bool,
}

/// What a message costs beside its bytes, about.
const OVERHEAD: usize = 256;

impl Message {
    /// How many bytes of memory it takes, about.
    pub(crate) fn size(&self) -> usize {
        OVERHEAD + self.payload.len() + self.subject.len()
    }
}
