//! Why the engine ends by itself.

use std::time::Duration;

use forwarder_core::subject::TemplateError;

use crate::intake::{IntakeError, RingChangeError};
use crate::outputs::dead_letter::DeadLetterError;
use crate::traces::ExporterError;
use forwarder_service::heartbeat::Panicked;
use forwarder_service::http::HttpError;

/// Why the forwarder could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingChangeError),
    /// The subject's template cannot be used.
    #[error("failed to read the subject template")]
    Subject(#[from] TemplateError),
    /// The dead letter cannot be opened.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The HTTP server cannot be started.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The metrics cannot be registered.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// Spans cannot be exported.
    #[error(transparent)]
    Traces(#[from] ExporterError),
    /// The intake ended by itself.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A task has panicked. What was confirmed is committed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The intake's thread could not be started or died.
    #[error("failed to run the intake's thread: {0}")]
    Thread(String),
    /// Closing took longer than its bound. Everything confirmed in time was committed.
    #[error("closing took longer than {0:?}; the process exits at once")]
    CloseTimeout(Duration),
}
