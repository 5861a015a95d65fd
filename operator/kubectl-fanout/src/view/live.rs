//! A forwarder as it works: two readings, and what happened between them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::clusters::{self, ClusterView, Column};
use super::pods::PodSeen;
use super::ring::RingView;
use super::snapshot::Snapshot;
use crate::table::{UNKNOWN, known, percent, rate};
use crate::text::clean;

/// A forwarder between two readings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveView {
    /// When it was read, in UTC.
    pub(crate) time: String,
    /// Records that clusters confirm in a second; none: not known.
    pub(crate) rate: Option<f64>,
    /// The same of each cluster.
    pub(crate) rates: BTreeMap<String, Option<f64>>,
    /// All else.
    #[serde(flatten)]
    pub(crate) ring: RingView,
}

impl LiveView {
    /// Of what was read now. `before` is what was read before, and how long ago.
    pub(crate) fn of(time: String, now: &Snapshot, before: Option<(&Snapshot, Duration)>) -> Self {
        let ring = RingView::of(now);
        let rates: BTreeMap<String, Option<f64>> = ring
            .clusters
            .iter()
            .map(|cluster| (cluster.name.clone(), cluster_rate(&cluster.name, now, before)))
            .collect();
        // Of a forwarder whose clusters are not known, nothing is known.
        let total = rates.values().copied().sum::<Option<f64>>();
        Self {
            time,
            rate: total.filter(|_| !rates.is_empty()),
            rates,
            ring,
        }
    }

    /// For a terminal.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { ring, .. } = self;
        let totals = &ring.totals;
        let lines = [
            format!(
                "{}/{}  epoch {}  converged {}  {}",
                ring.namespace,
                ring.name,
                known(ring.epoch),
                self.converged(),
                self.time
            ),
            format!(
                "rate {}  lag {}  pending {}  waiting assets {}  parked {}",
                rate(self.rate),
                known(totals.lag),
                known(totals.pending_records),
                known(totals.waiting_assets),
                known(totals.parked_records),
            ),
            format!("the last change moved {}", self.moved()),
            ring.ready.clone(),
        ];
        let mut lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
        lines.push(String::new());
        let cell = |cluster: &ClusterView| rate(self.rates.get(&cluster.name).copied().flatten());
        let rates = Column {
            title: "RATE",
            cell: &cell,
        };
        lines.extend(clusters::table(&ring.clusters, Some(&rates)).lines());
        for pod in ring.pods.iter().flatten() {
            if let Some(problem) = &pod.problem {
                lines.push(clean(&format!("pod {}: {problem}", pod.name)));
            }
        }
        for gap in &ring.not_read {
            lines.push(clean(&format!("not everything could be read: {}", gap.message)));
        }
        lines
    }

    /// In one line, for a file or another program.
    pub(crate) fn line(&self) -> String {
        let Self { ring, .. } = self;
        let totals = &ring.totals;
        let mut line = format!(
            "{} {}/{} epoch={} converged={} rate={} lag={} pending={} waiting={} parked={} moved={}",
            self.time,
            ring.namespace,
            ring.name,
            known(ring.epoch),
            self.converged(),
            rate(self.rate),
            known(totals.lag),
            known(totals.pending_records),
            known(totals.waiting_assets),
            known(totals.parked_records),
            self.moved().replace(' ', ""),
        );
        for cluster in &ring.clusters {
            let share = if cluster.leaving {
                "leaving".to_owned()
            } else {
                known(cluster.share.map(percent)).replace(' ', "")
            };
            let rate = rate(self.rates.get(&cluster.name).copied().flatten());
            line.push_str(&format!(" {}={share},{rate}", cluster.name));
        }
        clean(&line)
    }

    /// What the last change has moved. The first ring of a forwarder is no change.
    fn moved(&self) -> String {
        match (&self.ring.moved_percent, self.ring.idle) {
            (Some(moved), _) => format!("{moved} %"),
            (None, Some(_)) => "-".to_owned(),
            (None, None) => UNKNOWN.to_owned(),
        }
    }

    /// How many of the pods use the declared ring.
    fn converged(&self) -> String {
        let totals = &self.ring.totals;
        let Some(silent) = totals.silent_pods else {
            let said = self.ring.operator_says.as_ref().and_then(|said| said.converged.clone());
            return said.unwrap_or_else(|| UNKNOWN.to_owned());
        };
        let current = self.ring.epoch.and_then(|epoch| totals.pods_by_epoch.get(&epoch));
        let all = totals.pods_by_epoch.values().sum::<usize>() + silent;
        format!("{}/{all}", current.copied().unwrap_or(0))
    }
}

/// Records that a cluster confirms in a second, to all processes together. None: some process has not told twice, or has begun anew.
fn cluster_rate(cluster: &str, now: &Snapshot, before: Option<(&Snapshot, Duration)>) -> Option<f64> {
    let (before, elapsed) = before?;
    let pods = now.pods.as_ref()?.iter().filter(|pod| pod.has_process());
    let earlier = before.pods.as_ref()?;
    let records = pods.map(|pod| {
        let earlier = earlier.iter().find(|earlier| earlier.name == pod.name)?;
        // A cluster that joined in between began at 0.
        let count = |pod: &PodSeen| Some(pod.published.as_ref()?.get(cluster).copied().unwrap_or(0.0));
        Some(count(pod)? - count(earlier)?).filter(|records| *records >= 0.0)
    });
    let records: f64 = records.sum::<Option<f64>>()?;
    (!elapsed.is_zero()).then(|| records / elapsed.as_secs_f64())
}

/// The value of a counter for each cluster, from a text for Prometheus.
pub(crate) fn published(metrics: &str) -> BTreeMap<String, f64> {
    const NAME: &str = "asset_forwarder_nats_messages_published_total{";
    let counted = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(NAME)?.rsplit_once('}')?;
        let (_, cluster) = labels.split_once("cluster=\"")?;
        // A cluster's name needs no escapes.
        let (cluster, _) = cluster.split_once('"')?;
        Some((cluster.to_owned(), value.trim().parse::<f64>().ok()?))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{declared, forwarder, pod, silent};

    const SECOND: Duration = Duration::from_secs(2);

    fn counting(name: &str, c1: f64, c2: f64) -> PodSeen {
        PodSeen {
            published: Some(BTreeMap::from([("C1".to_owned(), c1), ("C2".to_owned(), c2)])),
            ..pod(name, 7, 0)
        }
    }

    fn snapshot(pods: Vec<PodSeen>) -> Snapshot {
        Snapshot {
            forwarder: forwarder(),
            declared: Ok(declared(7, &["C1", "C2"])),
            pods: Some(pods),
            gaps: Vec::new(),
        }
    }

    fn view(now: &Snapshot, before: &Snapshot) -> LiveView {
        LiveView::of("12:00:00Z".to_owned(), now, Some((before, SECOND)))
    }

    #[test]
    fn rates_are_what_was_confirmed_between_two_readings() {
        let before = snapshot(vec![counting("a", 100.0, 10.0), counting("b", 0.0, 0.0)]);
        let now = snapshot(vec![counting("a", 300.0, 10.0), counting("b", 100.0, 0.5)]);
        let live = view(&now, &before);
        assert_eq!(live.rates["C1"], Some(150.0));
        assert_eq!(live.rates["C2"], Some(0.25));
        assert_eq!(live.rate, Some(150.25));
        let line = live.line();
        assert!(
            line.starts_with("12:00:00Z plant/assets epoch=7 converged=2/2 rate=150/s lag=200"),
            "{line}"
        );
        assert!(
            line.contains(" waiting=0 parked=8 moved=12.5% C1=") && line.ends_with("%,0.2/s"),
            "{line}"
        );
        let text = live.lines().join("\n");
        assert!(text.contains("CLUSTER  SHARE   RATE   WEIGHT"), "{text}");
        assert_eq!(serde_json::to_value(&live).unwrap()["rates"]["C1"], 150.0);
    }

    #[test]
    fn a_rate_that_a_part_is_missing_of_is_not_known() {
        let before = snapshot(vec![counting("a", 100.0, 0.0)]);
        for (now, why) in [
            (vec![counting("a", 50.0, 0.0)], "the process has begun anew"),
            (vec![counting("a", 200.0, 0.0), counting("b", 9.0, 0.0)], "a pod is new"),
            (vec![pod("a", 7, 0)], "the metrics were not told"),
            (vec![silent("a")], "the pod is silent"),
        ] {
            let live = view(&snapshot(now), &before);
            assert_eq!((live.rates["C1"], live.rate), (None, None), "{why}");
        }
        let live = LiveView::of(String::new(), &before, None);
        assert_eq!(live.rate, None, "there is one reading");
        let mut first = snapshot(Vec::new());
        if let Ok(declared) = &mut first.declared {
            declared.moved_percent = None;
        }
        let live = LiveView::of(String::new(), &first, None);
        assert!(
            live.line().contains(" moved=- "),
            "the first ring is no change: {}",
            live.line()
        );
        let mut unlisted = snapshot(Vec::new());
        unlisted.pods = None;
        let live = view(&unlisted, &before);
        assert!(
            live.line()
                .contains("converged=2/2 rate=?/s lag=? pending=? waiting=? parked=?"),
            "{}",
            live.line()
        );
    }

    #[test]
    fn counters_are_read_from_the_text_for_prometheus() {
        let text = "# HELP asset_forwarder_nats_messages_published_total x\n\
                    asset_forwarder_nats_messages_published_total{cluster=\"C1\",forwarder=\"f\"} 12\n\
                    asset_forwarder_nats_messages_published_total{forwarder=\"f\",cluster=\"C 2\"} 1.5e3\n\
                    asset_forwarder_nats_publish_failures_total{cluster=\"C1\"} 7\n\
                    asset_forwarder_nats_messages_published_total{cluster=\"C3\"} x\n";
        let read = published(text);
        assert_eq!(
            read,
            BTreeMap::from([("C1".to_owned(), 12.0), ("C 2".to_owned(), 1500.0)])
        );
    }
}
