//! `version`: which version this is.

use forwarder_core::document::RING_DOCUMENT_VERSION;
use serde::Serialize;

use crate::fault::{Code, Fault};
use crate::output::Format;

/// The version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    /// The newest version of a ring's document that is read.
    ring_document_version: u32,
}

pub(super) fn run(format: Format) -> Result<Code, Fault> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        ring_document_version: RING_DOCUMENT_VERSION,
    };
    format.show(&version, || vec![format!("kubectl-fanout {}", version.version)])?;
    Ok(Code::Fine)
}
