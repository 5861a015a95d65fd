//! Which partitions are fetched, and from where: pauses at the caps, and what is to be fetched anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::client::Client;
use crate::message::Message;

/// Below this long without room, records are just not polled: pausing makes librdkafka drop what it has prefetched.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// Pause before a repair that failed is tried again.
const RETRY_REPAIR: Duration = Duration::from_secs(1);

/// librdkafka tells what was cut right after it has stopped fetching: it is known by then.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// After a question the others go on for so many times as long as it took.
const OTHERS_SHARE: u32 = 9;

/// See the module.
#[derive(Default)]
pub(super) struct Flow {
    /// Whether the partitions are paused because the caps were reached.
    paused: bool,
    /// When the caps were reached, and since when there is room again.
    full_since: Option<Instant>,
    room_since: Option<Instant>,
    /// Partitions that begin and are to be asked for.
    begun: Vec<PartitionId>,
    /// When partitions are to be reassigned because the position of one is gone.
    repair_at: Option<Instant>,
}

/// What is to be done while there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtCaps {
    /// Receipts may make room: records that librdkafka has prefetched are kept for a while.
    AwaitReceipts,
    /// They did not: the partitions are to be paused.
    Pause,
    /// The partitions are paused.
    Paused,
}

/// Which partitions are to be fetched anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that begin.
    Begun,
    /// All that are taken: librdkafka does not say which one it has stopped fetching.
    All,
}

impl Flow {
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// There is no room for another record.
    pub(super) fn has_no_room(&mut self) -> AtCaps {
        self.room_since = None;
        let full_since = *self.full_since.get_or_insert_with(Instant::now);
        if self.paused {
            AtCaps::Paused
        } else if full_since.elapsed() < PAUSE_AFTER {
            AtCaps::AwaitReceipts
        } else {
            AtCaps::Pause
        }
    }

    /// There is room for another record. Returns whether the partitions are to be resumed. `plenty`: there is room for many.
    pub(super) fn has_room(&mut self, plenty: bool) -> bool {
        self.full_since = None;
        if !self.paused {
            return false;
        }
        // A cluster that is away may have half of its cap for ever: after a while any room will do.
        let room_since = *self.room_since.get_or_insert_with(Instant::now);
        plenty || room_since.elapsed() >= PAUSE_AFTER
    }

    /// Says of every partition of ours whether it is to be fetched.
    pub(super) fn set_paused(&mut self, paused: bool, client: &Client, dispatcher: &Dispatcher<Message>) {
        let mut resume = TopicPartitionList::new();
        let mut pause = TopicPartitionList::new();
        for (partition, state) in dispatcher.partitions() {
            let fetched = state.phase == Phase::Active && !paused;
            let list = if fetched { &mut resume } else { &mut pause };
            list.add_partition(client.inputs.topic_of(*partition), partition.number());
        }
        let consumer = &client.consumer;
        match consumer.pause(&pause).and_then(|()| consumer.resume(&resume)) {
            Ok(()) => {
                if self.paused != paused {
                    debug!(paused, "paused or resumed all partitions");
                }
                self.paused = paused;
            }
            Err(error) => warn!(%error, paused, "failed to pause or resume; trying again"),
        }
    }

    /// Says it anew: librdkafka remembers a pause of an earlier assignment, and a partition may have stopped.
    pub(super) fn refresh(&mut self, client: &Client, dispatcher: &Dispatcher<Message>) {
        self.set_paused(self.paused, client, dispatcher);
    }

    /// These partitions are to be asked for.
    pub(super) fn begin(&mut self, partitions: impl IntoIterator<Item = PartitionId>) {
        self.begun.extend(partitions);
    }

    /// Partitions begin that have waited for a ring: while they were assigned, nothing of theirs was fetched.
    pub(super) fn begin_behind_ring(&mut self, partitions: &[PartitionId], client: &Client) {
        if !partitions.is_empty() {
            info!(partitions = ?client.inputs.show(partitions), "ring caught up; resuming partitions");
            self.begin(partitions.iter().copied());
        }
    }

    /// librdkafka has stopped fetching a partition because its position is gone; it does not say which.
    pub(super) fn repair_soon(&mut self) {
        self.repair_at.get_or_insert_with(|| Instant::now() + TOLD_WITHIN);
    }

    /// What is to be fetched anew now.
    pub(super) fn due(&self) -> Option<Scope> {
        if self.repair_at.is_some_and(|at| at <= Instant::now()) {
            Some(Scope::All)
        } else {
            (!self.begun.is_empty()).then_some(Scope::Begun)
        }
    }

    /// Partitions of this scope are about to be reassigned. `asked_all`: each could be asked about, since `asked_at`.
    pub(super) fn note_repair(&mut self, scope: Scope, asked_all: bool, asked_at: Instant) {
        // One that could not be asked about is asked about again, and not at once: the others have stood still meanwhile.
        let pause = RETRY_REPAIR.max(asked_at.elapsed() * OTHERS_SHARE);
        // A pass for those that begin asks about nobody, so it leaves a repair that is to come as it is.
        if scope == Scope::All {
            self.repair_at = (!asked_all).then(|| Instant::now() + pause);
        }
    }

    /// A repair has failed: it is tried again.
    pub(super) fn repair_later(&mut self) {
        self.repair_at = Some(Instant::now() + RETRY_REPAIR);
    }

    /// The partitions that begin, which nobody has to ask for again.
    pub(super) fn take_begun(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.begun)
    }

    /// Has partitions fetched from their next records on, or from behind their `holes`.
    pub(super) fn reassign(
        &mut self,
        scope: Scope,
        begun: &[PartitionId],
        holes: &BTreeMap<PartitionId, i64>,
        client: &Client,
        dispatcher: &Dispatcher<Message>,
    ) -> Result<(), KafkaError> {
        let (mut given_up, mut taken) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, state) in dispatcher.partitions() {
            if state.is_taken() && (scope == Scope::All || begun.contains(partition)) {
                let from = holes
                    .get(partition)
                    .map_or(state.next(), |hole| state.next().max(*hole));
                let topic = client.inputs.topic_of(*partition);
                given_up.add_partition(topic, partition.number());
                taken.add_partition_offset(topic, partition.number(), Offset::Offset(from))?;
            }
        }
        // Before the assignment, and it is remembered. librdkafka begins an assignment in a thread of its own, and numbers what the two
        // threads tell a partition. What bears an older number than the newest one is thrown away.
        self.refresh(client, dispatcher);
        client.consumer.incremental_unassign(&given_up)?;
        client.consumer.incremental_assign(&taken)?;
        Ok(())
    }

    /// Nothing is assigned any more.
    pub(super) fn forget_all(&mut self) {
        self.begun.clear();
        self.repair_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_caps_receipts_are_awaited_before_partitions_are_paused() {
        let mut flow = Flow::default();
        assert_eq!(flow.has_no_room(), AtCaps::AwaitReceipts);
        flow.full_since = Instant::now().checked_sub(PAUSE_AFTER);
        assert_eq!(flow.has_no_room(), AtCaps::Pause);
        flow.paused = true;
        assert_eq!(flow.has_no_room(), AtCaps::Paused);
    }

    #[test]
    fn paused_partitions_are_resumed_when_there_is_plenty_of_room_or_any_for_a_while() {
        let mut flow = Flow::default();
        assert!(!flow.has_room(true), "they are not paused");
        flow.paused = true;
        assert!(flow.has_room(true));
        assert!(!flow.has_room(false));
        flow.room_since = Instant::now().checked_sub(PAUSE_AFTER);
        assert!(flow.has_room(false));
        flow.has_no_room();
        assert!(!flow.has_room(false), "the room has gone in between");
    }

    #[test]
    fn partitions_that_begin_leave_a_repair_that_is_to_come_as_it_is() {
        let mut flow = Flow::default();
        assert_eq!(flow.due(), None);
        flow.repair_soon();
        assert_eq!(flow.due(), None);
        let partition = PartitionId::new(forwarder_core::delivery::partition::Input::FIRST, 0);
        flow.begin(partition);
        assert_eq!(flow.due(), Some(Scope::Begun));
        flow.note_repair(Scope::Begun, true, Instant::now());
        assert!(flow.repair_at.is_some());
        flow.repair_at = Some(Instant::now());
        assert_eq!(flow.due(), Some(Scope::All));
        flow.note_repair(Scope::All, false, Instant::now());
        assert!(flow.repair_at.is_some(), "one could not be asked about");
        flow.note_repair(Scope::All, true, Instant::now());
        assert!(flow.repair_at.is_none());
    }
}
