//! A batch that cannot be read: nothing is taken before it is known which partition has it.

use super::{Dispatcher, Partition, Phase};
use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;

impl<T: Deliverable> Dispatcher<T> {
    /// Kafka gave a batch that cannot be read, of a partition that is not known. Nothing is taken any more of those that were: what came
    /// behind that batch would be taken for all there is. Returns them.
    pub fn hold_taken(&mut self) -> Vec<PartitionId> {
        let taken = self.partitions.iter_mut().filter(|(_, state)| state.is_taken());
        let held = taken.map(|(partition, state)| {
            state.phase = Phase::Examined;
            *partition
        });
        held.collect()
    }

    /// The batch before `to` is stepped over: it cannot be read, and the policy is to go on.
    pub fn step_over(&mut self, partition: PartitionId, to: i64) {
        if let Some(state) = self.examined(partition) {
            state.offsets.skip(to);
        }
    }

    /// A partition that was held is taken again: its records are asked for from the next one on.
    pub fn take_again(&mut self, partition: PartitionId) {
        if let Some(state) = self.examined(partition) {
            state.phase = Phase::Active;
            // What was read meanwhile and not taken proves nothing.
            state.start = state.offsets.next();
        }
    }

    fn examined(&mut self, partition: PartitionId) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&partition)
            .filter(|state| state.phase == Phase::Examined)
    }
}
