//! What a program is told. What happens to many assets at once, or many times in a second, is one event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::event::{Event, Gap, GapReason};

/// What can come very often is told so often.
const RHYTHM: Duration = Duration::from_secs(1);

/// So many subjects of what is not believed are told apart.
const SUBJECTS: usize = 64;

/// What has happened so far, by number.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) delivered: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Told {
    events: broadcast::Sender<Event>,
    pub(crate) totals: Arc<Totals>,
    /// Told at the end of the step.
    gaps: BTreeMap<(GapReason, Option<Arc<str>>), Sum>,
    /// Told in a rhythm.
    slow: BTreeMap<(GapReason, Option<Arc<str>>), Sum>,
    unbelieved: BTreeMap<String, (String, u64)>,
    unreachable: BTreeMap<Arc<str>, String>,
    denied: BTreeMap<Arc<str>, String>,
    /// When the rhythm allows to tell again.
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Sum {
    /// None: there are several.
    asset: Option<Arc<str>>,
    last: Option<Arc<str>>,
    count: u64,
    detail: String,
}

impl Told {
    pub(crate) fn new(events: broadcast::Sender<Event>, totals: Arc<Totals>) -> Self {
        Self {
            events,
            totals,
            gaps: BTreeMap::new(),
            slow: BTreeMap::new(),
            unbelieved: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            denied: BTreeMap::new(),
            quiet_until: None,
        }
    }

    /// Tells an event at once.
    pub(crate) fn event(&self, event: Event) {
        match &event {
            Event::Gap(_) | Event::Refused { .. } => warn!(?event, "subscribers may miss records"),
            // They come one by one.
            Event::Late(_) | Event::Unbelieved { .. } => debug!(?event, "a subscriber's event"),
            event => info!(?event, "a subscriber's event"),
        }
        if matches!(event, Event::Gap(_)) {
            self.totals.gaps.fetch_add(1, Ordering::Relaxed);
        }
        // Nobody may listen.
        self.events.send(event).ok();
    }

    /// Tells a gap at the end of the step, with all of the same kind.
    pub(crate) fn gap(
        &mut self,
        reason: GapReason,
        asset: Option<&Arc<str>>,
        cluster: Option<Arc<str>>,
        detail: impl Into<String>,
    ) {
        let sum = sum(&mut self.gaps, reason, asset, cluster, detail.into());
        // Several partitions of one asset are one asset.
        if sum.count == 0 || sum.last.as_ref() != asset {
            sum.count += 1;
        }
        sum.last = asset.cloned();
    }

    /// Tells a gap in a rhythm: it may come with each record.
    pub(crate) fn slow(&mut self, reason: GapReason, asset: Option<&Arc<str>>, cluster: Arc<str>, detail: &str) {
        if matches!(reason, GapReason::SlowReader | GapReason::SlowConsumer) {
            self.totals.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sum(&mut self.slow, reason, asset, Some(cluster), detail.to_owned()).count += 1;
    }

    /// Tells in a rhythm that something was not believed.
    pub(crate) fn unbelieved(&mut self, subject: &str, reason: String) {
        let is_full = self.unbelieved.len() >= SUBJECTS && !self.unbelieved.contains_key(subject);
        let subject = if is_full { "others" } else { subject };
        let entry = self.unbelieved.entry(subject.to_owned()).or_default();
        *entry = (reason, entry.1 + 1);
    }

    /// Tells in a rhythm that a cluster cannot be reached.
    pub(crate) fn unreachable(&mut self, cluster: Arc<str>, reason: String) {
        self.unreachable.insert(cluster, reason);
    }

    /// Tells in a rhythm that a server denies something.
    pub(crate) fn denied(&mut self, cluster: Arc<str>, reason: String) {
        self.denied.insert(cluster, reason);
    }

    /// Ends a step. Returns when there is more to tell.
    pub(crate) fn flush(&mut self, now: Instant) -> Option<Instant> {
        self.tell(|told| std::mem::take(&mut told.gaps));
        let others = self.unreachable.len() + self.denied.len();
        if self.slow.is_empty() && self.unbelieved.is_empty() && others == 0 {
            return None;
        }
        if let Some(until) = self.quiet_until.filter(|until| now < *until) {
            return Some(until);
        }
        self.quiet_until = Some(now + RHYTHM);
        self.tell(|told| std::mem::take(&mut told.slow));
        for (subject, (reason, count)) in std::mem::take(&mut self.unbelieved) {
            self.event(Event::Unbelieved { subject, reason, count });
        }
        for (cluster, reason) in std::mem::take(&mut self.unreachable) {
            self.event(Event::Unreachable { cluster, reason });
        }
        for (cluster, reason) in std::mem::take(&mut self.denied) {
            let server = String::new();
            self.event(Event::Refused {
                cluster,
                server,
                reason,
            });
        }
        None
    }

    fn tell(&mut self, of: impl FnOnce(&mut Self) -> BTreeMap<(GapReason, Option<Arc<str>>), Sum>) {
        for ((reason, cluster), sum) in of(self) {
            let Sum {
                asset, count, detail, ..
            } = sum;
            self.event(Event::Gap(Gap {
                reason,
                asset,
                cluster,
                count,
                detail,
            }));
        }
    }
}

/// The sum of this kind. It is of several assets if it was of another one.
fn sum<'s>(
    sums: &'s mut BTreeMap<(GapReason, Option<Arc<str>>), Sum>,
    reason: GapReason,
    asset: Option<&Arc<str>>,
    cluster: Option<Arc<str>>,
    detail: String,
) -> &'s mut Sum {
    let sum = sums.entry((reason, cluster)).or_insert_with(|| Sum {
        asset: asset.cloned(),
        last: None,
        count: 0,
        detail: String::new(),
    });
    sum.detail = detail;
    if sum.asset.as_ref() != asset {
        sum.asset = None;
    }
    sum
}
