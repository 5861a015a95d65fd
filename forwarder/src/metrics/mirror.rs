//! The metrics of copies for subscribers that stay at the previous owner of their asset.

use prometheus::{Error, IntCounter, IntCounterVec};

use super::builder::Builder;

/// Why a cluster may not have got a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorDrop {
    /// Too many copies waited for the cluster.
    Full,
    /// The server denied the subject.
    Denied,
    /// The connection ended before the server had accepted the copy, or may have ended over copies.
    Disconnected,
    /// With its header it is larger than the server takes.
    TooLarge,
    /// The cluster is no member of the ring any more.
    Left,
    /// The cluster owns the asset again.
    OwnedAgain,
    /// The partition was given up before the copy was written.
    Revoked,
}

impl MirrorDrop {
    const ALL: [Self; 7] = [
        Self::Full,
        Self::Denied,
        Self::Disconnected,
        Self::TooLarge,
        Self::Left,
        Self::OwnedAgain,
        Self::Revoked,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Denied => "denied",
            Self::Disconnected => "disconnected",
            Self::TooLarge => "too_large",
            Self::Left => "left",
            Self::OwnedAgain => "owned_again",
            Self::Revoked => "revoked",
        }
    }
}

/// The metrics of the copies for one cluster.
#[derive(Clone, Debug)]
pub struct MirrorMetrics {
    /// Copies that the cluster has accepted.
    pub mirrored: IntCounter,
    dropped: [IntCounter; MirrorDrop::ALL.len()],
}

impl MirrorMetrics {
    /// Copies that were dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: MirrorDrop) -> &IntCounter {
        &self.dropped[reason as usize]
    }
}

/// The metrics of the copies for all clusters.
#[derive(Clone, Debug)]
pub(super) struct MirrorVecs {
    mirrored: IntCounterVec,
    dropped: IntCounterVec,
}

impl MirrorVecs {
    /// Both metrics, without a cluster.
    pub(super) fn new(builder: &Builder) -> Result<Self, Error> {
        Ok(Self {
            mirrored: builder.counters(
                "asset_forwarder_mirrored_total",
                "Copies for subscribers of a previous owner that the cluster has accepted",
                &["cluster"],
            )?,
            dropped: builder.counters(
                "asset_forwarder_mirror_dropped_total",
                "Copies for subscribers of a previous owner that the cluster may not have got, by reason",
                &["cluster", "reason"],
            )?,
        })
    }

    /// Those of one cluster. All of them are there from the first call on.
    pub(super) fn of(&self, name: &str) -> MirrorMetrics {
        let dropped = |reason: MirrorDrop| self.dropped.with_label_values(&[name, reason.label()]);
        MirrorMetrics {
            mirrored: self.mirrored.with_label_values(&[name]),
            dropped: MirrorDrop::ALL.map(dropped),
        }
    }
}
