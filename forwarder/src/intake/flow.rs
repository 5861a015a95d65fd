//! Which partitions are fetched, and from where: pauses at the caps, repairs after a loss.

use std::time::{Duration, Instant};

use forwarder_core::dispatch::{Phase, Resume};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::{Intake, starts};

/// Pause before a repair that failed is tried again.
const RETRY_REPAIR: Duration = Duration::from_secs(1);

impl Intake {
    /// Says of every partition of ours whether it is to be fetched.
    pub(super) fn set_paused(&mut self, paused: bool) {
        let mut resume = TopicPartitionList::new();
        let mut pause = TopicPartitionList::new();
        for (partition, state) in self.dispatcher.partitions() {
            let fetched = state.phase == Phase::Active && !paused;
            let list = if fetched { &mut resume } else { &mut pause };
            list.add_partition(&self.config.source.topic, *partition);
        }
        let result = self.consumer.pause(&pause).and_then(|()| self.consumer.resume(&resume));
        match result {
            Ok(()) => {
                if self.paused != paused {
                    debug!(paused, "all partitions");
                }
                self.paused = paused;
            }
            Err(error) => warn!(%error, paused, "failed to pause or resume; trying again"),
        }
    }

    /// librdkafka has stopped fetching a partition because its position is gone; it does not say which.
    pub(super) fn repair_positions(&mut self) {
        self.repair_at.get_or_insert_with(Instant::now);
    }

    /// Takes every partition anew from where it is to go on. Not while a rebalance is being carried out: taking and giving
    /// up is what answers one.
    pub(super) fn repair_when_due(&mut self) {
        if self.joining.is_some() || self.leaving.is_some() {
            return;
        }
        if self.repair_at.take_if(|at| *at <= Instant::now()).is_some()
            && let Err(error) = self.repair()
        {
            warn!(%error, "failed to look up where to go on; trying again");
            self.repair_at = Some(Instant::now() + RETRY_REPAIR);
        }
    }

    fn repair(&mut self) -> Result<(), KafkaError> {
        let source = &self.config.source;
        let mut places = Vec::new();
        for (partition, state) in self
            .dispatcher
            .partitions()
            .iter()
            .filter(|(_, state)| state.is_taken())
        {
            let next = state.next();
            places.push((
                *partition,
                next,
                starts::after_loss(&self.consumer, source, *partition, next)?,
            ));
        }
        let mut given_up = TopicPartitionList::new();
        let mut taken = TopicPartitionList::new();
        for (partition, next, lost) in &places {
            let offset = lost.as_ref().map_or(Some(*next), |start| start.offset);
            given_up.add_partition(&source.topic, *partition);
            taken.add_partition_offset(&source.topic, *partition, Offset::Offset(offset.unwrap_or(*next)))?;
        }
        self.consumer.incremental_unassign(&given_up)?;
        self.consumer.incremental_assign(&taken)?;
        for (partition, next, lost) in places {
            let Some(start) = lost else { continue };
            self.metrics.missing_offset(&self.config.source.topic, partition);
            error!(partition, next, fault = ?start.fault, policy = ?self.config.source.missing_offset, "the broker no longer has the next record");
            match start.offset {
                // A hole like any other: what was read before it is still settled first.
                Some(offset) if offset >= next => {}
                Some(offset) => self.begin_anew(partition, offset),
                None => self.dispatcher.set_phase(partition, Phase::Stopped),
            }
        }
        self.set_paused(self.paused);
        Ok(())
    }

    /// The topic was made anew or cut short: its offsets begin again, and what was read under the old ones is not sent.
    fn begin_anew(&mut self, partition: i32, offset: i64) {
        let Some(state) = self.dispatcher.partitions().get(&partition) else {
            return;
        };
        self.abandon(&[(partition, state.epoch)]);
        let resume = Resume {
            offset,
            ..Resume::default()
        };
        self.dispatcher.assign(partition, &resume, Phase::Active);
        info!(partition, offset, "begins anew");
    }
}
