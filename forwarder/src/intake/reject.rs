//! Records that can never be forwarded: counted, and logged at a limited rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::record::Invalid;
use tracing::warn;

use crate::metrics::Metrics;
use crate::parcel::Letter;

/// A line per reason and interval; what is in between is counted and named in the next line.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rejects {
    /// By reason: when the last line was, and how many were not named since.
    logged: BTreeMap<&'static str, (Instant, u64)>,
    kafka_error_logged: Option<Instant>,
}

impl Rejects {
    /// Counts a record that can never be forwarded, and says so.
    pub(super) fn note(&mut self, letter: &Letter, metrics: &Metrics) {
        metrics.invalid(letter.reason);
        self.log(letter);
    }

    /// Whether an error of Kafka's may be logged: an outage brings hundreds a second.
    pub(super) fn may_log_kafka_error(&mut self) -> bool {
        let may = self
            .kafka_error_logged
            .is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if may {
            self.kafka_error_logged = Some(Instant::now());
        }
        may
    }

    fn log(&mut self, letter: &Letter) {
        let reason: Invalid = letter.reason;
        let now = Instant::now();
        let unnamed = match self.logged.get_mut(reason.reason()) {
            Some((logged, unnamed)) if now.duration_since(*logged) < LOG_INTERVAL => {
                *unnamed += 1;
                return;
            }
            Some((_, unnamed)) => *unnamed,
            None => 0,
        };
        self.logged.insert(reason.reason(), (now, 0));
        let (partition, offset) = (letter.origin.partition, letter.origin.offset);
        warn!(
            partition,
            offset,
            reason = reason.reason(),
            not_logged_since_the_last = unnamed,
            "invalid record: {reason}"
        );
    }
}
