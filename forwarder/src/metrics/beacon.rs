//! The metrics of the beacon, by which subscribers learn of the ring.

use std::time::Duration;

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::builder::{Builder, forget};

/// The metrics of the beacon at one cluster.
#[derive(Clone, Debug)]
pub struct BeaconMetrics {
    /// Requests that were answered with the announcement.
    pub announcements: IntCounter,
    /// Proofs of readiness that were handed to the publisher.
    pub readies: IntCounter,
    /// Requests and words of pods that were dropped, because there were too many.
    pub dropped: IntCounter,
    /// Bodies that another key, or none, has signed.
    pub forged: IntCounter,
    /// Digests that were published.
    pub digests: IntCounter,
    /// 1 while something is wrong.
    pub faulty: IntGauge,
}

/// The metrics of the beacon at all clusters.
#[derive(Clone, Debug)]
pub(super) struct BeaconVecs {
    announcements: IntCounterVec,
    readies: IntCounterVec,
    dropped: IntCounterVec,
    forged: IntCounterVec,
    digests: IntCounterVec,
    faulty: IntGaugeVec,
    grace: IntGauge,
}

impl BeaconVecs {
    /// Every metric, without a cluster.
    pub(super) fn new(builder: &Builder) -> Result<Self, Error> {
        let counter = |name, help| builder.counters(name, help, &["cluster"]);
        Ok(Self {
            announcements: counter(
                "fanout_beacon_announcements_total",
                "Requests of subscribers that were answered with the ring",
            )?,
            readies: counter(
                "fanout_beacon_ready_answers_total",
                "Proofs of readiness for subscribers that were handed to the publisher",
            )?,
            dropped: counter(
                "fanout_beacon_dropped_total",
                "Requests of subscribers and messages of pods that were dropped, because there were too many",
            )?,
            forged: counter(
                "fanout_beacon_forged_total",
                "Messages below the beacon's subject that are not signed by the beacon's key",
            )?,
            digests: counter("fanout_beacon_digests_total", "Digests that were published")?,
            faulty: builder.gauges(
                "fanout_beacon_fault",
                "1 while the beacon is at fault on the cluster: subscribers there learn of the ring late or not at all",
                &["cluster"],
            )?,
            grace: builder.add(IntGauge::new(
                "fanout_beacon_grace_seconds",
                "Seconds until the announced ring may be used, as far as the grace for subscribers goes",
            )?)?,
        })
    }

    /// Those of one cluster. All of them are there from the first call on.
    pub(super) fn of(&self, name: &str) -> BeaconMetrics {
        let Self {
            announcements,
            readies,
            dropped,
            forged,
            digests,
            faulty,
            grace: _,
        } = self;
        let name = &[name];
        BeaconMetrics {
            announcements: announcements.with_label_values(name),
            readies: readies.with_label_values(name),
            dropped: dropped.with_label_values(name),
            forged: forged.with_label_values(name),
            digests: digests.with_label_values(name),
            faulty: faulty.with_label_values(name),
        }
    }

    /// Takes the gauge of a cluster away.
    pub(super) fn forget(&self, name: &str) {
        forget(&self.faulty, &[name]);
    }

    pub(super) fn show_grace(&self, left: Duration) {
        // The last part of a second counts: 0 says that there is none left.
        let seconds = left.as_millis().div_ceil(1_000);
        self.grace.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
