//! How far a cluster has come that is being drained.

use crds::NatsCluster;
use kube::ResourceExt as _;
use serde::Serialize;

use super::declared::ring_name;
use super::pods::sum;
use super::snapshot::Snapshot;
use crate::fault::Gap;
use crate::table::known;
use crate::text::clean;

/// A forwarder that may still publish to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Publishes {
    /// The forwarder, as `namespace/name`.
    pub(crate) forwarder: String,
    /// Records that it holds for the cluster: unconfirmed ones and parked ones. None: not known.
    pub(crate) records: Option<u64>,
    /// Its pods by the epoch of their ring, for people.
    pub(crate) pods: String,
}

/// A cluster that is being drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrainView {
    /// The namespace.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
    /// Whether no forwarder has anything for it any more, and none will.
    pub(crate) drained: bool,
    /// What the status says of its being ready.
    pub(crate) ready: String,
    /// Forwarders that may still publish to it, as far as the status lists them.
    pub(crate) forwarders: Vec<Publishes>,
    /// What could not be read.
    pub(crate) not_read: Vec<Gap>,
}

/// Whether the operator says of the present spec that the cluster is in no ring.
pub(crate) fn is_drained(cluster: &NatsCluster) -> bool {
    let Some(status) = &cluster.status else {
        return false;
    };
    let says_so = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True" && condition.reason == "Drained");
    cluster.spec.drain
        && says_so
        && status.member_of.is_empty()
        && status.observed_generation == cluster.metadata.generation
}

impl DrainView {
    /// Of a cluster, and what was read of the forwarders that its status names.
    pub(crate) fn of(cluster: &NatsCluster, forwarders: Vec<Publishes>, not_read: Vec<Gap>) -> Self {
        let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let ready = match ready {
            Some(ready) => format!("{}: {}", ready.reason, ready.message),
            None => "the operator has not looked at it yet".to_owned(),
        };
        Self {
            namespace: cluster.namespace().unwrap_or_default(),
            name: cluster.name_any(),
            drained: is_drained(cluster),
            ready,
            forwarders,
            not_read,
        }
    }

    /// How far it is, in one line.
    pub(crate) fn line(&self) -> String {
        let name = format!("{}/{}", self.namespace, self.name);
        if self.drained {
            return clean(&format!("{name} is drained: no forwarder has anything for it"));
        }
        if self.forwarders.is_empty() {
            return clean(&format!("{name} is not drained yet; {}", self.ready));
        }
        let forwarders = self.forwarders.iter().map(|publishes| {
            let Publishes {
                forwarder,
                records,
                pods,
            } = publishes;
            format!("{forwarder} holds {} records for it ({pods})", known(*records))
        });
        clean(&format!("{name} waits: {}", forwarders.collect::<Vec<_>>().join("; ")))
    }
}

impl Publishes {
    /// What the pods of a forwarder hold for a cluster.
    pub(crate) fn of(snapshot: &Snapshot, cluster: &NatsCluster) -> Self {
        let name = ring_name(cluster);
        let pods = snapshot.pods.as_deref();
        let records = pods.and_then(|pods| {
            sum(pods, |status| {
                let cluster = status.clusters.get(&name);
                Some(cluster.map_or(0, |cluster| cluster.pending_records + cluster.parked_records))
            })
        });
        let totals = snapshot.totals();
        let mut parts: Vec<String> = totals
            .pods_by_epoch
            .iter()
            .map(|(epoch, pods)| format!("{pods} × epoch {epoch}"))
            .collect();
        if totals.silent_pods != Some(0) {
            parts.push(format!("{} × not known", known(totals.silent_pods)));
        }
        Self {
            forwarder: snapshot.reference(),
            records,
            pods: if parts.is_empty() {
                "no pods".to_owned()
            } else {
                parts.join(", ")
            },
        }
    }

    /// A forwarder of which nothing could be read.
    pub(crate) fn unread(forwarder: &str) -> Self {
        Self {
            forwarder: forwarder.to_owned(),
            records: None,
            pods: "pods not known".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::samples::{cluster, declared, forwarder, pod, silent};

    fn drained(change: impl FnOnce(&mut NatsCluster)) -> NatsCluster {
        let mut cluster = cluster("c1", Some("C1"), 1);
        cluster.metadata.generation = Some(2);
        cluster.spec.drain = true;
        let status = json!({
            "observedGeneration": 2,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Drained", "message": "it is in no ring",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        cluster.status = Some(serde_json::from_value(status).unwrap());
        change(&mut cluster);
        cluster
    }

    #[test]
    fn a_cluster_is_drained_when_the_operator_says_so_of_the_present_spec() {
        assert!(is_drained(&drained(|_| {})));
        for not_yet in [
            drained(|cluster| cluster.status = None),
            drained(|cluster| cluster.metadata.generation = Some(3)),
            drained(|cluster| cluster.spec.drain = false),
            drained(|cluster| cluster.status.as_mut().unwrap().conditions[0].reason = "Connected".to_owned()),
            drained(|cluster| cluster.status.as_mut().unwrap().conditions[0].status = "False".to_owned()),
            drained(|cluster| cluster.status.as_mut().unwrap().member_of = vec!["plant/assets".to_owned()]),
        ] {
            assert!(!is_drained(&not_yet));
        }
    }

    #[test]
    fn who_still_holds_something_is_named_with_how_much() {
        let snapshot = |pods| Snapshot {
            forwarder: forwarder(),
            declared: Ok(declared(8, &["C2"])),
            pods: Some(pods),
            gaps: Vec::new(),
        };
        let waiting = drained(|cluster| cluster.status.as_mut().unwrap().member_of = vec!["plant/assets".to_owned()]);
        let line = |pods| {
            let publishes = Publishes::of(&snapshot(pods), &waiting);
            DrainView::of(&waiting, vec![publishes], Vec::new()).line()
        };
        assert_eq!(
            line(vec![pod("a", 7, 0), pod("b", 8, 0)]),
            "plant/c1 waits: plant/assets holds 14 records for it (1 × epoch 7, 1 × epoch 8)"
        );
        assert_eq!(
            line(vec![pod("a", 7, 0), silent("b")]),
            "plant/c1 waits: plant/assets holds ? records for it (1 × epoch 7, 1 × not known)"
        );
        let done = DrainView::of(&drained(|_| {}), Vec::new(), Vec::new());
        assert_eq!(done.line(), "plant/c1 is drained: no forwarder has anything for it");
    }
}
