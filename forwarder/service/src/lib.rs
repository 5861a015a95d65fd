//! What every process of ours needs around its work.

pub mod clock;
pub mod heartbeat;
pub mod http;
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
