//! On which clusters what this pod announces is heard: its own digest comes back on the connection that it was sent through.

use std::collections::BTreeMap;

/// A cluster that does not bring the digest back for so long is not waited for.
pub(super) const PATIENCE: u64 = 10_000_000;

/// A cluster, as far as the beacon reaches it.
#[derive(Clone, Debug)]
pub(in crate::beacon) struct Reach {
    /// Why there is no connection; none: there is one.
    pub(super) away: Option<String>,
    /// Since when it is, or is not, connected.
    pub(super) since: u64,
    /// What is wrong there.
    pub(super) fault: Option<String>,
    /// The newest epoch whose digest came back.
    pub(super) echoed: Option<u64>,
    /// Since when there has been no digest of anybody.
    pub(super) told_at: u64,
    /// A digest and a statement are owed to it, whatever the rhythm says.
    pub(super) is_new: bool,
}

impl Reach {
    fn new(now: u64) -> Self {
        Self {
            away: Some("not connected yet".to_owned()),
            since: now,
            fault: None,
            echoed: None,
            told_at: now,
            is_new: false,
        }
    }

    /// Whether the announcement of this epoch was heard there, or cannot be.
    fn has_heard(&self, epoch: u64, now: u64) -> bool {
        self.echoed.is_some_and(|echoed| echoed >= epoch) || self.fault.is_some() || self.is_away(now)
    }

    /// Whether it is away for longer than anybody waits.
    fn is_away(&self, now: u64) -> bool {
        self.away.is_some() && now.saturating_sub(self.since) >= PATIENCE
    }

    pub(in crate::beacon) fn is_connected(&self) -> bool {
        self.away.is_none()
    }

    /// What is wrong, for people. A connection that is lost and soon made again is not.
    pub(in crate::beacon) fn shown_fault(&self, now: u64) -> Option<String> {
        let away = self.away.as_ref().filter(|_| self.is_away(now));
        self.fault.as_ref().or(away).cloned()
    }
}

/// All clusters on which the ring is announced.
#[derive(Debug, Default)]
pub(super) struct Reached(pub(super) BTreeMap<String, Reach>);

impl Reached {
    /// These are the clusters from now on.
    pub(super) fn keep<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone, now: u64) {
        self.0.retain(|name, _| names.clone().any(|kept| kept == name));
        for name in names {
            if !self.0.contains_key(name) {
                self.0.insert(name.to_owned(), Reach::new(now));
            }
        }
    }

    /// The connection has come, or gone for this reason.
    pub(super) fn connected(&mut self, cluster: &str, away: Option<String>, now: u64) {
        if let Some(reach) = self.0.get_mut(cluster) {
            if reach.is_connected() || away.is_none() {
                reach.since = now;
            }
            reach.is_new = away.is_none();
            reach.away = away;
        }
    }

    /// What is wrong there, or nothing any more.
    pub(super) fn fault(&mut self, cluster: &str, fault: Option<String>) {
        if let Some(reach) = self.0.get_mut(cluster) {
            reach.fault = fault;
        }
    }

    /// A digest of ours has come back.
    pub(super) fn echoed(&mut self, cluster: &str, epoch: u64) {
        if let Some(reach) = self.0.get_mut(cluster) {
            reach.echoed = reach.echoed.max(Some(epoch));
        }
    }

    /// Somebody's digest was heard.
    pub(super) fn told(&mut self, cluster: &str, now: u64) {
        if let Some(reach) = self.0.get_mut(cluster) {
            reach.told_at = now;
        }
    }

    /// Whether each cluster has heard of this epoch, which was announced then, or is not waited for.
    pub(super) fn have_heard(&self, epoch: u64, announced_at: u64, now: u64) -> bool {
        let waited = now.saturating_sub(announced_at) >= PATIENCE;
        waited || self.0.values().all(|reach| reach.has_heard(epoch, now))
    }
}
