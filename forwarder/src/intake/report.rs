//! What is shown to people and the operator: gauges, lag, status.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::Dispatcher;
use forwarder_core::fanout::dispatch::Phase::Sought;
use forwarder_core::status::{Assignment, ClusterStatus, Phase, RingStatus, Status, TopicStatus};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::statistics::{Partition, Statistics};
use tokio::sync::watch;
use tracing::debug;

use super::client::Client;
use super::identity::Identity;
use super::watchdog::Watchdog;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::outputs::nats::Publishers;
use forwarder_service::clock::Clock;

/// How often gauges and status are brought up to date.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps gauges and the status up to date.
pub(super) struct Reporter {
    status: watch::Sender<Status>,
    metrics: Metrics,
    clock: Clock,
    next_report: Instant,
    /// One past the newest record of each partition that the broker has, as of the last statistics.
    ends: BTreeMap<PartitionId, i64>,
}

/// One past the newest record that can be read. None: the broker has not told it.
pub(super) fn end_of(partition: &Partition) -> Option<i64> {
    // With read_committed nothing behind the last stable offset can be read, so that is the end.
    let ends = [partition.ls_offset, partition.hi_offset];
    ends.into_iter().find(|end| *end >= 0)
}

/// What a report reads.
pub(super) struct View<'a> {
    pub(super) client: &'a Client,
    pub(super) dispatcher: &'a Dispatcher<Message>,
    pub(super) publishers: &'a Publishers,
    pub(super) identity: &'a Identity,
    pub(super) watchdog: &'a Watchdog,
    /// The ring that is announced and not in use yet.
    pub(super) announced: Option<u64>,
    /// The share of the hash space that the last change of the ring moved.
    pub(super) moved_share: f64,
    pub(super) last_commit_millis: Option<i64>,
    pub(super) membership_proven: bool,
    pub(super) is_stopping: bool,
    pub(super) is_rebalancing: bool,
    pub(super) is_paused: bool,
}

impl Reporter {
    pub(super) fn new(status: watch::Sender<Status>, metrics: Metrics, clock: Clock, now: Instant) -> Self {
        Self {
            status,
            metrics,
            clock,
            next_report: now,
            ends: BTreeMap::new(),
        }
    }

    /// One past the newest record of each partition, where the broker has told it.
    pub(super) fn ends(&self) -> &BTreeMap<PartitionId, i64> {
        &self.ends
    }

    /// A partition is ours no more.
    pub(super) fn forget(&mut self, client: &Client, partition: PartitionId) {
        self.forget_end(partition);
        let topic = client.inputs.topic_of(partition);
        self.metrics.forget_partition(topic, partition.number());
    }

    /// What was told of a partition's end does not count any more.
    pub(super) fn forget_end(&mut self, partition: PartitionId) {
        self.ends.remove(&partition);
    }

    /// Takes note of where partitions end. What was read up to there counts as read.
    pub(super) fn note_statistics(
        &mut self,
        statistics: &Statistics,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
    ) {
        let topics = client.inputs.iter();
        let found = topics.filter_map(|(input, name)| Some((input, statistics.topics.get(name)?)));
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return;
        }
        let all = found.into_iter().flat_map(|(input, topic)| {
            let partitions = topic.partitions.iter();
            partitions.filter_map(move |(number, partition)| Some((PartitionId::new(input, *number)?, partition)))
        });
        for (id, partition) in all {
            if !dispatcher.partitions().contains_key(&id) {
                continue;
            }
            if let Some(end) = end_of(partition) {
                self.ends.insert(id, end);
            }
        }
        self.note_positions(client, dispatcher);
    }

    /// Lets what was read behind the last record, which is nothing to forward, count as read.
    fn note_positions(&self, client: &Client, dispatcher: &mut Dispatcher<Message>) {
        let partitions = dispatcher.partitions().iter();
        let mut at_end = partitions.map(|(id, state)| self.ends.get(id).is_none_or(|end| *end <= state.next()));
        if at_end.all(|at_end| at_end) {
            return;
        }
        match client.consumer.position() {
            Ok(positions) => {
                for place in positions.elements() {
                    let partition = client.inputs.partition(place.topic(), place.partition());
                    if let (Some(partition), Offset::Offset(offset)) = (partition, place.offset()) {
                        dispatcher.reached(partition, offset);
                    }
                }
            }
            Err(error) => debug!(%error, "librdkafka did not return its position"),
        }
    }

    /// Whether it is time for a report.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next_report;
        if due {
            self.next_report = now + REPORT_INTERVAL;
        }
        due
    }

    /// Brings gauges and status up to date.
    pub(super) fn report(&self, view: &View<'_>) {
        let mut status = Status {
            phase: phase(view),
            ring_epoch: view.dispatcher.ring_epoch().epoch,
            ring: ring_status(view),
            last_commit_millis: view.last_commit_millis,
            membership_proven: view.membership_proven,
            topics: view
                .client
                .inputs
                .names()
                .skip(1)
                .map(|name| (name.to_owned(), TopicStatus::default()))
                .collect(),
            ..Status::default()
        };
        self.report_partitions(view, &mut status);
        self.report_clusters(view, &mut status);
        self.metrics
            .queue_size
            .set(i64::try_from(view.dispatcher.unsent()).unwrap_or(i64::MAX));
        self.metrics
            .handover_waiting
            .set(i64::try_from(status.ring.waiting_assets).unwrap_or(i64::MAX));
        self.status.send_replace(status);
    }

    fn report_partitions(&self, view: &View<'_>, status: &mut Status) {
        let inputs = &view.client.inputs;
        for (partition, state) in view.dispatcher.partitions() {
            // Where it is not known where a partition begins, its position is none.
            let end = self.ends.get(partition).filter(|_| state.phase != Sought);
            let lag = end.map(|end| end.saturating_sub(state.position()).max(0));
            if let Some(lag) = lag {
                let topic = inputs.topic_of(*partition);
                self.metrics.set_lag(topic, partition.number(), lag);
            }
            let assignment = Assignment {
                state: state.phase.to_string(),
                committed: state.committed(),
                lag,
                paused: view.is_paused || !state.is_taken(),
                fault: view.identity.fault(*partition).cloned(),
            };
            let topic = inputs.topic_to_log(*partition);
            let assigned = match topic.and_then(|topic| status.topics.get_mut(topic)) {
                Some(topic) => &mut topic.assignment,
                None => &mut status.assignment,
            };
            assigned.insert(partition.number(), assignment);
        }
    }

    fn report_clusters(&self, view: &View<'_>, status: &mut Status) {
        let parked = view.dispatcher.parked();
        let held_assets = view.dispatcher.held_assets();
        let now = self.clock.micros();
        for (output, member) in view.publishers.members() {
            let load = view.dispatcher.load(output);
            let parked = parked.get(&output).copied().unwrap_or_default();
            let parked_for = parked.since.map_or(0, |since| now.saturating_sub(since) / 1_000_000);
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let metrics = &member.metrics;
            metrics.pending_records.set(gauge(load.records as u64));
            metrics.pending_bytes.set(gauge(load.bytes as u64));
            metrics.parked_records.set(gauge(parked.records));
            let held = held_assets.get(&output).copied().unwrap_or(0);
            metrics.held_assets.set(gauge(held as u64));
            metrics.parked_seconds.set(gauge(parked_for));
            let connection = member.link.status();
            let shown = ClusterStatus {
                connected: connection.connected.is_some(),
                server: connection.connected,
                last_error: connection.last_error,
                pending_records: load.records as u64,
                pending_bytes: load.bytes as u64,
                parked_records: parked.records,
                parked_seconds: parked_for,
                held_assets: held as u64,
            };
            status.clusters.insert(member.cluster.name.clone(), shown);
        }
    }
}

fn ring_status(view: &View<'_>) -> RingStatus {
    let epoch = view.dispatcher.ring_epoch().epoch;
    let partitions = view.dispatcher.partitions().values();
    RingStatus {
        epoch,
        announced: view.announced,
        awaits: RingStatus::awaited(epoch, partitions.map(|state| state.phase)),
        moved_share: view.moved_share,
        waiting_assets: view.dispatcher.waiting(),
        // What is declared beyond that is added where it is shown.
        ..RingStatus::default()
    }
}

fn phase(view: &View<'_>) -> Phase {
    if view.is_stopping {
        Phase::Draining
    } else if !view.watchdog.is_armed() && !view.watchdog.is_stable() {
        Phase::Starting
    } else if view.is_rebalancing {
        Phase::Rebalancing
    } else if !view.watchdog.is_stable() {
        Phase::Outside(view.watchdog.state().to_owned())
    } else {
        let partitions = view.dispatcher.partitions().values();
        Phase::of_member(view.dispatcher.ring_epoch().epoch, partitions.map(|state| state.phase))
    }
}
