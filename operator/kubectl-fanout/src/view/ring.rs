//! A forwarder's ring: who is in it, and how far its pods have come.

use crds::asset_forwarder::ExcludedCluster;
use serde::Serialize;

use super::clusters::{self, ClusterView};
use super::declared::reason;
use super::pods::{PodView, Totals};
use super::snapshot::Snapshot;
use crate::fault::Gap;
use crate::table::{Table, known};
use crate::text::clean;

/// What the operator says of the ring in the forwarder's status.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperatorSays {
    /// The epoch that it is about.
    pub(crate) epoch: i64,
    /// How many of the pods use it, such as `2/3`.
    pub(crate) converged: Option<String>,
}

/// The ring of a forwarder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RingView {
    /// The namespace of the forwarder.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The declared epoch; none: not known, or there is no ring.
    pub(crate) epoch: Option<u64>,
    /// Whether the ring has no members now; none: not known.
    pub(crate) idle: Option<bool>,
    /// Virtual nodes of a cluster of weight 1.
    pub(crate) replicas: Option<u32>,
    /// Whether all pods use the declared ring and no asset waits; none: not known.
    pub(crate) converged: Option<bool>,
    /// The operator's word.
    pub(crate) operator_says: Option<OperatorSays>,
    /// The share that the last change moved, in percent with one decimal.
    pub(crate) moved_percent: Option<String>,
    /// What the status says of its being ready.
    pub(crate) ready: String,
    /// All pods together.
    #[serde(flatten)]
    pub(crate) totals: Totals,
    /// The clusters.
    pub(crate) clusters: Vec<ClusterView>,
    /// Clusters that the selector chooses and that are no members, by the word of the operator.
    pub(crate) excluded: Vec<ExcludedCluster>,
    /// The pods; none: they could not be listed.
    pub(crate) pods: Option<Vec<PodView>>,
    /// What could not be read.
    pub(crate) not_read: Vec<Gap>,
}

impl RingView {
    /// Of what was read.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let declared = snapshot.declared.as_ref().ok();
        let status = snapshot
            .forwarder
            .status
            .as_ref()
            .and_then(|status| status.ring.as_ref());
        let epoch = declared
            .map(|declared| declared.config.epoch)
            .or_else(|| status.and_then(|ring| u64::try_from(ring.epoch).ok()));
        Self {
            namespace: snapshot.namespace(),
            name: snapshot.forwarder.metadata.name.clone().unwrap_or_default(),
            epoch,
            idle: declared.map(|declared| declared.idle),
            replicas: declared.map(|declared| declared.config.replicas),
            converged: epoch.and_then(|epoch| snapshot.has_converged(epoch)),
            operator_says: status.map(|ring| OperatorSays {
                epoch: ring.epoch,
                converged: ring.converged.clone(),
            }),
            moved_percent: match declared {
                Some(declared) => declared.moved_percent.clone(),
                None => status.and_then(|ring| ring.moved_percent.clone()),
            },
            ready: reason(&snapshot.forwarder),
            totals: snapshot.totals(),
            clusters: clusters::clusters(snapshot),
            excluded: status.map(|ring| ring.excluded.clone()).unwrap_or_default(),
            pods: snapshot
                .pods
                .as_ref()
                .map(|pods| pods.iter().map(PodView::from).collect()),
            not_read: snapshot.all_gaps(),
        }
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { totals, .. } = self;
        let mut lines = vec![format!("{}/{}", self.namespace, self.name)];
        lines.push(format!(
            "epoch {}{}, converged: {}",
            known(self.epoch),
            if self.idle == Some(true) {
                " (no members now)"
            } else {
                ""
            },
            self.converged_words(),
        ));
        lines.push(format!(
            "waiting assets {}, parked records {}, pending records {}, lag {}",
            known(totals.waiting_assets),
            known(totals.parked_records),
            known(totals.pending_records),
            known(totals.lag),
        ));
        if let Some(moved) = &self.moved_percent {
            lines.push(format!("the last change moved {moved} % of the hash space"));
        }
        lines.push(self.ready.clone());
        for excluded in &self.excluded {
            let ExcludedCluster {
                namespace,
                name,
                reason,
                message,
            } = excluded;
            lines.push(format!("{namespace}/{name} is no member: {reason}: {message}"));
        }
        let mut lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
        let clusters = clusters::table(&self.clusters, None);
        if !clusters.is_empty() {
            lines.push(String::new());
            lines.extend(clusters.lines());
        }
        let pods = pods(self.pods.as_deref());
        if !pods.is_empty() {
            lines.push(String::new());
            lines.extend(pods.lines());
        }
        lines
    }

    fn converged_words(&self) -> String {
        let word = match self.converged {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        let mut parts: Vec<String> = self
            .totals
            .pods_by_epoch
            .iter()
            .map(|(epoch, pods)| format!("{pods} × epoch {epoch}"))
            .collect();
        match self.totals.silent_pods {
            Some(0) => {}
            Some(silent) => parts.push(format!("{silent} × not known")),
            None => parts.push("pods not known".to_owned()),
        }
        if let Some(OperatorSays { epoch, converged }) = &self.operator_says {
            parts.push(format!(
                "the operator says {} of epoch {epoch}",
                known(converged.as_ref())
            ));
        }
        if parts.is_empty() {
            return word.to_owned();
        }
        format!("{word} ({})", parts.join(", "))
    }
}

fn pods(pods: Option<&[PodView]>) -> Table {
    let mut table = Table::new(["POD", "STATE", "EPOCH", "LAG", "WAITING", "PROBLEM"]);
    for pod in pods.into_iter().flatten() {
        table.row([
            pod.name.clone(),
            pod.state.clone(),
            known(pod.epoch),
            known(pod.lag),
            known(pod.waiting_assets),
            pod.problem.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Right};
    use crate::view::samples::{declared, forwarder, pod, silent};

    fn snapshot(pods: Option<Vec<crate::view::pods::PodSeen>>) -> Snapshot {
        Snapshot {
            forwarder: forwarder(),
            declared: Ok(declared(7, &["C1", "C2"])),
            pods,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn a_ring_is_shown_with_its_members_and_pods() {
        let view = RingView::of(&snapshot(Some(vec![pod("a", 7, 0), pod("b", 6, 3)])));
        assert_eq!(view.converged, Some(false));
        let text = view.lines().join("\n");
        for line in [
            "plant/assets",
            "epoch 7, converged: no (1 × epoch 6, 1 × epoch 7, the operator says 2/2 of epoch 7)",
            "waiting assets 3, parked records 8, pending records 20, lag 200",
            "the last change moved 12.5 % of the hash space",
            "Its status says Forwarding: all is well",
            "plant/c9 is no member: Draining: drained",
            "CLUSTER  SHARE   WEIGHT  CONNECTED  PENDING  PARKED  HELD  OBJECT",
            "POD  STATE      EPOCH  LAG  WAITING  PROBLEM",
            "b    consuming  6      100  3",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing:\n{text}");
        }
        let c1 = text.lines().find(|line| line.starts_with("C1 ")).unwrap();
        assert!(
            c1.ends_with("1       2          10       4       2     plant/c1"),
            "{c1}"
        );
        let value = serde_json::to_value(&view).unwrap();
        assert_eq!(value["podsByEpoch"], serde_json::json!({"6": 1, "7": 1}));
        assert_eq!(value["clusters"][0]["weight"], 1);
    }

    #[test]
    fn what_a_silent_pod_holds_is_not_known() {
        let view = RingView::of(&snapshot(Some(vec![pod("a", 7, 0), silent("b")])));
        let text = view.lines().join("\n");
        assert!(
            text.contains("waiting assets ?, parked records ?, pending records ?, lag ?"),
            "{text}"
        );
        assert!(text.contains("1 × epoch 7, 1 × not known"), "{text}");
        let value = serde_json::to_value(&view).unwrap();
        assert_eq!(value["waitingAssets"], serde_json::Value::Null);
        assert_eq!(value["clusters"][0]["pendingRecords"], serde_json::Value::Null);
    }

    #[test]
    fn without_rights_the_status_of_the_forwarder_is_shown() {
        let right = Right {
            verbs: "get",
            resource: "configmaps",
            namespace: "plant".to_owned(),
        };
        let mut snapshot = snapshot(None);
        snapshot.declared = Err(Fault::Forbidden {
            what: "read the ConfigMap assets-ring".to_owned(),
            right: right.clone(),
        });
        let view = RingView::of(&snapshot);
        assert_eq!(view.epoch, Some(7));
        assert_eq!(view.converged, Some(true), "the operator says so");
        assert_eq!(view.not_read[0].missing_right, Some(right));
        let text = view.lines().join("\n");
        let c1 = text.lines().find(|line| line.starts_with("C1 ")).unwrap();
        assert_eq!(c1, "C1       ?      ?       ?          ?        ?       ?     ?");
        assert!(text.contains("pods not known"), "{text}");
    }
}
