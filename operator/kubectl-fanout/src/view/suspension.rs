//! Whether a forwarder has stopped, or goes on again.

use crds::AssetForwarder;
use kube::ResourceExt as _;
use serde::Serialize;

use super::declared::reason;
use crate::text::clean;

/// A forwarder that is to stop or to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SuspensionView {
    /// The namespace.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
    /// Whether it is to stop.
    pub(crate) suspend: bool,
    /// Whether that is done: no pods run, or it is ready.
    pub(crate) done: bool,
    /// Pods that are there; none: not known.
    pub(crate) pods: Option<usize>,
    /// What the status says of its being ready.
    pub(crate) ready: String,
}

impl SuspensionView {
    /// Of a forwarder with so many pods; none: they could not be listed.
    pub(crate) fn of(forwarder: &AssetForwarder, pods: Option<usize>) -> Self {
        Self {
            namespace: forwarder.namespace().unwrap_or_default(),
            name: forwarder.name_any(),
            suspend: forwarder.spec.suspend,
            done: is_done(forwarder, pods),
            pods,
            ready: reason(forwarder),
        }
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let name = format!("{}/{}", self.namespace, self.name);
        clean(&match (self.suspend, self.done) {
            (true, true) => format!("{name} is suspended: no pods run, and offsets stay"),
            (true, false) => format!("{name} is being suspended. {}", self.ready),
            (false, true) => format!("{name} goes on and is ready"),
            (false, false) => format!("{name} goes on and is not ready yet. {}", self.ready),
        })
    }
}

/// Whether the operator says of the present spec that all is as declared. Pods that still end may commit offsets, so they count.
fn is_done(forwarder: &AssetForwarder, pods: Option<usize>) -> bool {
    let Some(status) = &forwarder.status else {
        return false;
    };
    let is_ready = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let has_stopped = status.replicas == 0 && pods.is_none_or(|pods| pods == 0);
    status.observed_generation == forwarder.metadata.generation && is_ready && (!forwarder.spec.suspend || has_stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::forwarder;

    fn done(pods: Option<usize>, change: impl FnOnce(&mut AssetForwarder)) -> bool {
        let mut forwarder = forwarder();
        change(&mut forwarder);
        SuspensionView::of(&forwarder, pods).done
    }

    #[test]
    fn a_forwarder_has_stopped_when_no_pod_is_left() {
        let stopped = |forwarder: &mut AssetForwarder| {
            forwarder.spec.suspend = true;
            forwarder.status.as_mut().unwrap().replicas = 0;
        };
        assert!(done(Some(0), stopped));
        assert!(
            done(None, stopped),
            "the operator's word counts where pods cannot be listed"
        );
        assert!(!done(Some(1), stopped), "a pod still ends");
        assert!(
            !done(Some(0), |forwarder| forwarder.spec.suspend = true),
            "the status tells of pods"
        );
        assert!(!done(Some(0), |forwarder| {
            stopped(forwarder);
            forwarder.metadata.generation = Some(4);
        }));
    }

    #[test]
    fn a_forwarder_goes_on_when_it_is_ready_as_declared() {
        assert!(done(Some(2), |_| {}));
        assert!(!done(Some(2), |forwarder| forwarder.metadata.generation = Some(4)));
        assert!(!done(Some(2), |forwarder| forwarder.status = None));
        let conditions = |forwarder: &mut AssetForwarder| {
            forwarder.status.as_mut().unwrap().conditions[0].status = "False".to_owned();
        };
        assert!(!done(Some(2), conditions));
        let view = SuspensionView::of(&forwarder(), None);
        assert_eq!(view.line(), "plant/assets goes on and is ready");
    }
}
