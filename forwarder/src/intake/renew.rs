//! Goes on in a topic that was made anew: with another client, as another member of the group.

use super::group::assignments;
use super::replay::ReplayReader;
use super::rings::RingProgram;
use super::{Intake, IntakeError};
use forwarder_core::delivery::partition::{Input, PartitionId};

impl<P: RingProgram> Intake<P> {
    /// A topic was made anew. Nothing more is taken before the client is replaced.
    pub(super) fn stop_in_former_topic(&mut self, input: Input) {
        // What is in batches would be dropped with the assignments.
        self.hand_out();
        self.give_up_others(input);
        self.forget_all();
    }

    /// What was read of the other topics is committed before this client is replaced, and their next owner, which may be this process,
    /// reads the rest again.
    fn give_up_others(&mut self, anew: Input) {
        let mut others = assignments(&self.dispatcher);
        others.retain(|(partition, _)| partition.input() != anew);
        if others.is_empty() {
            return;
        }
        self.group.abandon(&others, &self.dispatcher, &self.publishers);
        self.settle();
        let ours = self.group.committable(&self.dispatcher);
        let others: Vec<PartitionId> = ours.into_iter().filter(|partition| partition.input() != anew).collect();
        self.commit_at_last(&others);
    }

    /// Goes on with a new client if a topic was made anew.
    pub(super) fn renew_when_due(&mut self) -> Result<(), IntakeError> {
        if !self.identity.take_outdated() {
            return Ok(());
        }
        let consumer = self.client.successor()?;
        // No answer to a commit of the former member proves anything for the new one.
        self.group.membership.end();
        self.commits.renew(&consumer, &self.group.membership)?;
        let former = std::mem::replace(&mut self.client.consumer, consumer);
        former.leave_group();
        drop(former);
        self.replay = ReplayReader::default();
        // An assignment may have come with the news.
        self.forget_all();
        self.identity.is_renewed();
        self.client.subscribe()
    }

    /// Nothing is assigned any more.
    fn forget_all(&mut self) {
        let ours: Vec<PartitionId> = self.dispatcher.partitions().keys().copied().collect();
        for partition in ours {
            self.dispatcher.remove(partition);
            self.seeking.forget(partition);
            self.reporter.forget(&self.client, partition);
            self.commits.forget_group(partition.input());
        }
        self.identity.forget_all();
        self.examiner.forget_stepped_over(None);
        self.flow.forget_all();
        self.group.forget_all();
    }
}
