//! The end: what is out is awaited, committed, and the group is left.

use std::time::{Duration, Instant};

use forwarder_core::fanout::dispatch::Phase;
use tracing::{info, warn};

use super::group::assignments;
use super::rings::RingProgram;
use super::{Intake, WAIT_FOR_RECEIPTS};

/// What the last copies for former owners may take. They are not worth more.
const COPIES_TIMEOUT: Duration = Duration::from_millis(500);

impl<P: RingProgram> Intake<P> {
    /// Waits for what is out, within the bound, and commits it.
    pub(super) fn drain(&mut self) {
        info!(
            pending = self.dispatcher.total().records,
            "stopping: the forwarder reads no more records and waits for unconfirmed ones"
        );
        self.report();
        self.announcing.stop();
        self.tell_beacon();
        let deadline = Instant::now() + Duration::from_millis(self.client.config.engine.drain_timeout_ms);
        let member = self.group.membership.number();
        while self.awaited() > 0 && Instant::now() < deadline {
            self.heartbeat.beat();
            self.records
                .await_receipts(WAIT_FOR_RECEIPTS, &mut self.dispatcher, &self.identity);
            self.settle();
            self.hand_out();
            self.observe_outputs();
            // What is out is written only as long as our membership is proved.
            self.take_commit_answers();
            self.commit_when_due();
            if self.group.membership.number() != member {
                warn!("the group removed this member during the drain; other members own its partitions now");
                break;
            }
        }
        let deadline = deadline.min(Instant::now() + COPIES_TIMEOUT);
        while self.publishers.members().any(|(_, member)| member.has_copies()) && Instant::now() < deadline {
            self.records
                .await_receipts(WAIT_FOR_RECEIPTS, &mut self.dispatcher, &self.identity);
        }
        let left = self.dispatcher.total().records;
        if left > 0 {
            warn!(
                records = left,
                "some records were not confirmed in time; they stay uncommitted and are delivered again"
            );
        }
    }

    /// Records that are out and that it is worth waiting for.
    fn awaited(&self) -> usize {
        let partitions = self.dispatcher.partitions().keys();
        partitions.map(|partition| self.dispatcher.awaited(*partition)).sum()
    }

    /// Gives everything up and leaves the group, so that the partitions move on at once.
    pub(super) fn leave(mut self) {
        // Nothing more may go out once the partitions are somebody else's.
        let ours = assignments(&self.dispatcher);
        // From here on a commit tells all that is not settled as what a successor has to deliver.
        for (partition, _) in &ours {
            let state = self.dispatcher.partitions().get(partition);
            let tells = |phase| matches!(phase, Phase::Active | Phase::Examined | Phase::Damaged(_));
            if state.is_some_and(|state| tells(state.phase)) {
                self.dispatcher.set_phase(*partition, Phase::Draining);
            }
        }
        self.group.abandon(&ours, &self.dispatcher, &self.publishers);
        self.group.membership.revoke();
        self.settle();
        let ours = self.group.committable(&self.dispatcher);
        self.commit_at_last(&ours);
        self.group.answer_what_is_owed(&self.client);
        self.client.consumer.leave_group();
        self.commits.end();
        drop(self.client.consumer);
        info!("left the group");
    }
}
