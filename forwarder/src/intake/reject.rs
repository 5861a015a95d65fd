//! Records that can never be forwarded: counted, and logged at a limited rate.

use std::time::Duration;

use forwarder_core::delivery::partition::Inputs;
use forwarder_core::record::Invalid;
use forwarder_service::log_limit::LogLimit;
use tracing::warn;

use crate::message::DeadLetter;
use crate::metrics::Metrics;

/// A line per reason and interval; what is in between is counted and named in the next line.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Rejects {
    by_reason: LogLimit<String>,
}

impl Default for Rejects {
    fn default() -> Self {
        Self {
            by_reason: LogLimit::new(LOG_INTERVAL),
        }
    }
}

impl Rejects {
    /// Counts a record that can never be forwarded, and says so.
    pub(super) fn note(&mut self, letter: &DeadLetter, inputs: &Inputs, metrics: &Metrics) {
        metrics.invalid(letter.reason);
        self.log(letter, inputs);
    }

    fn log(&mut self, letter: &DeadLetter, inputs: &Inputs) {
        let reason: Invalid = letter.reason;
        let Some(unnamed) = self.by_reason.pass(reason.reason()) else {
            return;
        };
        let (partition, offset) = (letter.origin.partition, letter.origin.offset);
        warn!(
            topic = inputs.topic_to_log(partition),
            partition = partition.number(),
            offset,
            reason = reason.reason(),
            not_logged_since_the_last = unnamed,
            "invalid record: {reason}"
        );
    }
}
