//! Where log lines go, and which.

use std::io::IsTerminal as _;

use forwarder_core::document::{LogFormat, Logging};
use tracing_subscriber::EnvFilter;

/// Libraries that narrate at our own levels; `RUST_LOG` can ask for them. What kube says at each attempt, the ring's watch
/// says once.
const QUIET: &str = "async_nats=warn,librdkafka=warn,rdkafka=warn,hyper=warn,kube_client=off,kube_runtime=off";

/// Writes log lines to standard error, in the declared format. The variable `RUST_LOG` takes precedence over the level.
///
/// # Errors
/// `RUST_LOG` cannot be read, or logging was set up before.
pub fn init(logging: &Logging) -> anyhow::Result<()> {
    let Logging {
        level,
        format,
        http_requests: _,
    } = logging;
    let declared = format!("{},{QUIET}", level.as_str());
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::try_new(directives)?,
        Ok(_) | Err(_) => EnvFilter::try_new(declared)?,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Colours are for a person's terminal, not for what collects logs.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let done = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("failed to set up logging: {error}"))
}
