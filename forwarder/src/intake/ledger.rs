//! How much waits for confirmation, against the caps.

use forwarder_core::config::Engine;

/// Counts what was handed out and has not come back.
#[derive(Debug)]
pub(super) struct Ledger {
    total: Load,
    /// The clusters in the order of the ring, then the dead letter.
    outlets: Vec<Load>,
    /// How many of `outlets` are at their cap: asked for every record, and there may be hundreds of clusters.
    full: usize,
    cap: Load,
    cap_per_outlet: Load,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Load {
    fn below(self, cap: Self) -> bool {
        self.records < cap.records && self.bytes < cap.bytes
    }

    fn half(self) -> Self {
        Self {
            records: self.records.div_ceil(2),
            bytes: self.bytes.div_ceil(2),
        }
    }
}

impl Ledger {
    pub(super) fn new(engine: &Engine, clusters: usize) -> Self {
        Self {
            total: Load::default(),
            outlets: vec![Load::default(); clusters + 1],
            full: 0,
            cap: Load {
                records: engine.max_pending_records,
                bytes: engine.max_pending_bytes,
            },
            cap_per_outlet: Load {
                records: engine.max_pending_records_per_cluster,
                bytes: engine.max_pending_bytes_per_cluster,
            },
        }
    }

    /// The dead letter's place.
    pub(super) fn dead_letter(&self) -> usize {
        self.outlets.len() - 1
    }

    pub(super) fn enter(&mut self, outlet: usize, weight: usize) {
        self.change(outlet, |load| {
            load.records += 1;
            load.bytes += weight;
        });
    }

    pub(super) fn leave(&mut self, outlet: usize, weight: usize) {
        self.change(outlet, |load| {
            load.records -= 1;
            load.bytes -= weight;
        });
    }

    fn change(&mut self, outlet: usize, change: impl Fn(&mut Load)) {
        change(&mut self.total);
        let load = &mut self.outlets[outlet];
        self.full -= usize::from(!load.below(self.cap_per_outlet));
        change(load);
        self.full += usize::from(!load.below(self.cap_per_outlet));
    }

    /// Whether another record may be taken. It may go to any cluster, so the fullest one decides.
    pub(super) fn has_room(&self) -> bool {
        self.full == 0 && self.total.below(self.cap)
    }

    /// Whether so much is free that a pause is worth ending.
    pub(super) fn has_plenty(&self) -> bool {
        self.total.below(self.cap.half()) && self.outlets.iter().all(|load| load.below(self.cap_per_outlet.half()))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.total.records == 0
    }

    pub(super) fn records(&self) -> usize {
        self.total.records
    }

    /// The clusters' loads, in the order of the ring.
    pub(super) fn clusters(&self) -> &[Load] {
        &self.outlets[..self.outlets.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(records_per_cluster: usize, bytes: usize) -> Ledger {
        let engine = Engine {
            max_pending_records_per_cluster: records_per_cluster,
            max_pending_bytes_per_cluster: 1_000,
            max_pending_records: 10,
            max_pending_bytes: bytes,
            ..Engine::default()
        };
        Ledger::new(&engine, 2)
    }

    #[test]
    fn one_full_cluster_is_enough() {
        let mut ledger = ledger(2, 1_000);
        ledger.enter(0, 1);
        ledger.enter(1, 1);
        assert!(ledger.has_room());
        ledger.enter(1, 1);
        assert!(!ledger.has_room());
        ledger.leave(1, 1);
        assert!(ledger.has_room());
        assert!(!ledger.is_idle());
    }

    #[test]
    fn bytes_count_as_well_as_records() {
        let mut ledger = ledger(5, 100);
        ledger.enter(0, 60);
        ledger.enter(1, 60);
        assert!(!ledger.has_room());
        ledger.leave(0, 60);
        assert!(ledger.has_room());
        assert!(!ledger.has_plenty(), "60 of 100 bytes are still out");
        ledger.leave(1, 60);
        assert!(ledger.has_plenty() && ledger.is_idle());
    }

    #[test]
    fn the_dead_letter_has_a_place_of_its_own() {
        let mut ledger = ledger(1, 100);
        ledger.enter(ledger.dead_letter(), 5);
        assert!(!ledger.has_room());
        assert!(ledger.clusters().iter().all(|load| load.records == 0));
    }
}
