//! All that was read of a forwarder at one time.

use crds::AssetForwarder;
use kube::ResourceExt as _;

use super::declared::Declared;
use super::pods::{PodSeen, Totals};
use crate::fault::{Fault, Gap};

/// What was read of a forwarder.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The forwarder.
    pub(crate) forwarder: AssetForwarder,
    /// Its ring, or why there is none to see.
    pub(crate) declared: Result<Declared, Fault>,
    /// Its pods; none: they could not be listed.
    pub(crate) pods: Option<Vec<PodSeen>>,
    /// What could not be read besides the ring.
    pub(crate) gaps: Vec<Gap>,
}

impl Snapshot {
    /// `namespace/name` of the forwarder.
    pub(crate) fn reference(&self) -> String {
        format!("{}/{}", self.namespace(), self.forwarder.name_any())
    }

    /// The namespace of the forwarder.
    pub(crate) fn namespace(&self) -> String {
        self.forwarder.namespace().unwrap_or_default()
    }

    /// All pods together.
    pub(crate) fn totals(&self) -> Totals {
        Totals::of(self.pods.as_deref())
    }

    /// All that could not be read.
    pub(crate) fn all_gaps(&self) -> Vec<Gap> {
        let mut gaps = self.gaps.clone();
        if let Err(fault) = &self.declared {
            gaps.push(fault.gap());
        }
        gaps
    }

    /// Whether all pods use the ring of this epoch, with nothing waiting: by their own word, or else by that of the operator. None: nobody
    /// has told.
    pub(crate) fn has_converged(&self, epoch: u64) -> Option<bool> {
        self.totals().has_converged(epoch).or_else(|| {
            let ring = self.forwarder.status.as_ref()?.ring.as_ref()?;
            if u64::try_from(ring.epoch) != Ok(epoch) {
                // The operator has not looked at the pods since it wrote the ring.
                return None;
            }
            let (converged, all) = ring.converged.as_ref()?.split_once('/')?;
            Some(converged == all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{declared, forwarder, pod, silent};

    #[test]
    fn where_pods_do_not_tell_the_operators_word_counts_for_its_own_epoch() {
        let seen = |pods: Option<Vec<PodSeen>>, epoch: u64| {
            let snapshot = Snapshot {
                forwarder: forwarder(),
                declared: Ok(declared(epoch, &["C1"])),
                pods,
                gaps: Vec::new(),
            };
            snapshot.has_converged(epoch)
        };
        assert_eq!(seen(None, 7), Some(true), "the status says 2/2");
        assert_eq!(seen(None, 8), None, "the status is about epoch 7");
        assert_eq!(seen(Some(vec![silent("a")]), 7), Some(true));
        assert_eq!(seen(Some(vec![pod("a", 6, 0)]), 7), Some(false), "pods know better");
    }
}
