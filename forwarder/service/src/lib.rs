//! What the forwarder and the operator need around their work.

pub mod clock;
pub mod heartbeat;
pub mod http;
pub mod log_limit;
pub mod logging;
pub mod shutdown;

/// An error with its sources, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
