//! Partitions of which Kafka has not said where they begin: they are asked about again and begin then, while the others go on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forwarder_core::document::StartFrom;
use forwarder_core::fanout::dispatch::{Phase, Resume};
use rdkafka::error::KafkaError;
use tracing::{debug, error, info, warn};

use super::Intake;
use super::starts::{self, Begin, Inquiry, Place};

/// Pause before Kafka is asked again.
const SEEK_AGAIN: Duration = Duration::from_millis(500);

/// How long the questions may take, for the others stand still meanwhile.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// The questions' share of the time: for each part of it nine go to the others.
const OTHERS_SHARE: u32 = 9;

/// See the module.
pub(super) struct Seeking {
    partitions: BTreeSet<i32>,
    /// When the group began, as long as some of its first partitions have not: with `Latest` these begin there too.
    group_since: Option<i64>,
    next_try: Instant,
}

impl Seeking {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            partitions: BTreeSet::new(),
            group_since: None,
            next_try: now,
        }
    }

    /// The group begins now, and not with all of its partitions.
    pub(super) fn note_new_group(&mut self, now_millis: i64) {
        self.group_since = Some(now_millis);
    }

    /// A partition has begun, or is ours no more.
    pub(super) fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        if self.partitions.is_empty() {
            self.group_since = None;
        }
    }
}

impl Intake {
    /// Asks Kafka where these begin.
    pub(super) fn look_up(&self, partitions: &[i32], patience: Duration) -> Result<Begin, KafkaError> {
        let source = &self.config.source;
        let (is_new_group, start_from) = match (self.seeking.group_since, source.start_from) {
            (Some(millis), StartFrom::Latest) => (true, StartFrom::Timestamp { millis }),
            (since, start_from) => (since.is_some(), start_from),
        };
        let inquiry = Inquiry {
            source,
            partitions,
            seen_before: self.seen,
            is_new_group,
            era: self.dispatcher.era(),
            topic: self.identity.id(),
            former: self.identity.former(),
            start_from,
            patience,
        };
        starts::look_up(&self.consumer, &inquiry)
    }

    /// Enters what was found, so that it may be committed. Returns the partitions that have a place, and the starts that the broker does not
    /// hold yet. The others are sought.
    pub(super) fn enter(&mut self, begin: Begin) -> (Vec<Place>, Vec<(i32, i64)>) {
        let (mut places, mut new) = (Vec::new(), Vec::new());
        for partition in begin.unanswered {
            self.seek(partition);
        }
        for place in begin.places {
            let (partition, fault) = (place.partition, place.start.fault);
            if !self.identity.is_settled(partition, fault, self.clock.micros()) {
                warn!(
                    partition,
                    ?fault,
                    "the log seems to end before the committed offset: Kafka is asked again"
                );
                self.seek(partition);
                continue;
            }
            let phase = self.phase_of(&place);
            let offset = place.start.offset.unwrap_or(0);
            if !place.start.committed && !matches!(phase, Phase::Behind(_) | Phase::Contested | Phase::Stopped) {
                new.push((partition, offset));
            }
            let resume = Resume {
                offset,
                away: place.start.away.clone(),
                lanes: place.start.lanes.clone(),
                members: place.members,
                later: place.later.clone(),
            };
            self.dispatcher.assign(partition, &resume, phase);
            places.push(place);
        }
        (places, new)
    }

    /// A partition waits until Kafka says where it begins. Nothing of it is taken or committed until then.
    pub(super) fn seek(&mut self, partition: i32) {
        self.dispatcher.assign(partition, &Resume::default(), Phase::Sought);
        self.ends.remove(&partition);
        if self.seeking.partitions.insert(partition) {
            info!(
                partition,
                "where the partition begins is not known yet: it waits, the others go on"
            );
        }
    }

    /// A partition has begun, and that may go on.
    pub(super) fn has_begun(&mut self, place: &Place) {
        let Place { partition, start, .. } = place;
        self.seeking.forget(*partition);
        self.identity.has_begun(*partition);
        debug!(partition, offset = start.offset, away = ?start.away, "begins");
        if let Some(fault) = start.fault {
            self.tell_fault(*partition, fault, start.offset);
        }
        let ours = self.dispatcher.era().epoch;
        match self.phase_of(place) {
            Phase::Behind(needed) => warn!(
                partition,
                needed,
                ours,
                "others have delivered under a newer ring: the partition waits until this process has it too"
            ),
            Phase::Contested => error!(
                partition,
                epoch = ours,
                "others have delivered under another ring of the same epoch: the partition waits; give all forwarders one ring \
                 with a higher ring.epoch"
            ),
            Phase::Active
            | Phase::Draining
            | Phase::Stopped
            | Phase::Examined
            | Phase::Damaged(_)
            | Phase::Announcing
            | Phase::Sought => {}
        }
    }

    /// Begins those of which Kafka says by now where. Not while a rebalance is being carried out.
    pub(super) fn go_on_seeking(&mut self) {
        let asked_at = Instant::now();
        if self.seeking.partitions.is_empty() || asked_at < self.seeking.next_try || self.is_rebalancing() {
            return;
        }
        let partitions: Vec<i32> = self.seeking.partitions.iter().copied().collect();
        let found = self.look_up(&partitions, SEEK_TIMEOUT);
        if let Err(error) = found.and_then(|begin| self.begin_sought(begin)) {
            warn!(%error, ?partitions, "failed to look up where these partitions begin; trying again");
        }
        self.seeking.next_try = Instant::now() + SEEK_AGAIN.max(asked_at.elapsed() * OTHERS_SHARE);
    }

    fn begin_sought(&mut self, begin: Begin) -> Result<(), KafkaError> {
        let (places, new) = self.enter(begin);
        if places.is_empty() {
            return Ok(());
        }
        let partitions: Vec<i32> = places.iter().map(|place| place.partition).collect();
        if let Err(error) = self.commit_new_starts(&partitions, &new) {
            partitions.iter().for_each(|partition| self.seek(*partition));
            return Err(error);
        }
        info!(?partitions, "Kafka says where these partitions begin: taken");
        for place in &places {
            self.has_begun(place);
            let state = self.dispatcher.partitions().get(&place.partition);
            if state.is_some_and(|state| state.is_taken()) {
                self.begun.push(place.partition);
            }
        }
        Ok(())
    }
}
