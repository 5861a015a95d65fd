//! The group: partitions that are assigned and revoked, and the proof that this process is a member.
//!
//! A rebalance is carried out in steps, one look per turn of the loop, so that receipts, commits and status go on
//! meanwhile. (librdkafka itself holds every partition of a member until a rebalance is answered.)
//! - *joining*: where each partition begins is looked up (and committed where it is new) before the first record is
//!   asked for; as long as Kafka does not answer, the assignment waits. A single partition that it cannot answer for is left behind
//!   and [sought](super::seeking).
//! - *leaving*: no more records are taken, what is out is awaited within a bound, the rest is abandoned, then commit
//!   and release. When the partitions are lost already, there is nothing to wait for and nothing to commit.
//!
//! What is due is said here, and carried out by the intake (`regroup.rs`).

#[cfg(test)]
mod tests;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tracing::{debug, error, info, warn};

use super::client::Client;
use super::context::Event;
use super::membership::{Membership, Proof, Sent, is_passing};
use crate::message::Message;
use crate::metrics::{Metrics, Rebalance};
use crate::outputs::Command;
use crate::outputs::nats::Publishers;

/// Pause before Kafka is asked again where a partition begins.
const RETRY_JOIN: Duration = Duration::from_secs(1);

/// How long publishers may take to drop what they have not sent. They do nothing else meanwhile.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a last commit is repeated once it was refused amid a rebalance: some hundred times what one of a few members takes.
const LAST_COMMIT: Duration = Duration::from_secs(3);

/// Pause before a last commit is tried again.
pub(super) const RETRY_COMMIT: Duration = Duration::from_millis(25);

/// Partitions that were assigned and do not run yet.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) partitions: Vec<PartitionId>,
    try_at: Instant,
}

/// Partitions that are to be given up.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) partitions: Vec<PartitionId>,
    pub(super) lost: bool,
    deadline: Instant,
    /// When the commit was refused for the first time, and when it is tried again.
    refused: Option<Instant>,
    try_at: Instant,
}

impl Leaving {
    /// Adds what was leaving before: librdkafka loses a deleted topic's partitions amid another revocation. If the one is lost, the other
    /// is given up at once too. Its next owner delivers again what is out.
    fn with(mut self, former: Option<Self>) -> Self {
        let Some(former) = former else {
            return self;
        };
        // Of a list that names a partition twice librdkafka lets nothing go.
        self.partitions
            .retain(|partition| !former.partitions.contains(partition));
        Self {
            partitions: [former.partitions, self.partitions].concat(),
            lost: former.lost || self.lost,
            deadline: former.deadline.min(self.deadline),
            refused: former.refused,
            try_at: self.try_at,
        }
    }

    /// Whether the commit that failed so is to be tried again.
    pub(super) fn is_worth_repeating(&mut self, error: &KafkaError) -> bool {
        is_worth_repeating(error, &mut self.refused)
    }
}

/// See the module.
pub(super) struct Group {
    pub(super) membership: Membership,
    joining: Option<Joining>,
    leaving: Option<Leaving>,
    metrics: Metrics,
}

impl Group {
    /// Nothing is assigned.
    pub(super) fn new(membership: Membership, metrics: Metrics) -> Self {
        Self {
            membership,
            joining: None,
            leaving: None,
            metrics,
        }
    }

    pub(super) fn is_rebalancing(&self) -> bool {
        self.joining.is_some() || self.leaving.is_some()
    }

    /// The group has assigned these.
    pub(super) fn assigned(&mut self, partitions: Vec<PartitionId>, client: &Client) {
        self.metrics.rebalance(Rebalance::Assign).inc();
        info!(partitions = ?client.inputs.show(&partitions), "partitions assigned");
        self.joining = Some(Joining {
            partitions,
            try_at: Instant::now(),
        });
    }

    /// The group has revoked these, or they are lost. Returns those that were to begin and stay ours: librdkafka has them from now on,
    /// and they are to be sought.
    #[must_use]
    pub(super) fn revoked(
        &mut self,
        partitions: Vec<PartitionId>,
        lost: bool,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
    ) -> Vec<PartitionId> {
        if lost {
            // First of all: nothing that others may own goes out any more.
            self.membership.end();
            self.metrics.rebalance(Rebalance::Lost).inc();
            warn!(
                partitions = ?client.inputs.show(&partitions),
                "partitions lost: the group had removed this member, and other members may own them already"
            );
        } else {
            self.metrics.rebalance(Rebalance::Revoke).inc();
            info!(partitions = ?client.inputs.show(&partitions), "partitions revoked; waiting for their unconfirmed records before giving them up");
        }
        // librdkafka lets go only of what it was given.
        let mut stay = self.joining.take().map(|joining| joining.partitions);
        if let Some(joining) = &mut stay {
            client.answer(joining);
            joining.retain(|partition| !partitions.contains(partition));
        }
        for partition in &partitions {
            dispatcher.set_phase(*partition, Phase::Draining);
        }
        let deadline = Instant::now() + Duration::from_millis(client.config.engine.drain_timeout_ms);
        let leaving = Leaving {
            partitions,
            lost,
            deadline,
            refused: None,
            try_at: Instant::now(),
        };
        self.leaving = Some(leaving.with(self.leaving.take()));
        stay.unwrap_or_default()
    }

    /// What was assigned and is to begin now, if that is due. It comes back by [`Group::join_with_next_turn`] or
    /// [`Group::join_later`] if it cannot.
    pub(super) fn take_joining(&mut self) -> Option<Joining> {
        self.joining.take_if(|joining| joining.try_at <= Instant::now())
    }

    /// What is to be known before these begin comes with the next poll.
    pub(super) fn join_with_next_turn(&mut self, joining: Joining) {
        self.joining = Some(joining);
    }

    /// Kafka has not said where these begin.
    pub(super) fn join_later(&mut self, joining: Joining) {
        self.joining = Some(Joining {
            try_at: Instant::now() + RETRY_JOIN,
            ..joining
        });
    }

    /// What is to be given up now: nothing of it is out any more, the time for that is over, or it is lost, which is noted. It comes
    /// back by [`Group::leave_later`] if it cannot.
    pub(super) fn take_leaving(&mut self, client: &Client, dispatcher: &Dispatcher<Message>) -> Option<Leaving> {
        let mut leaving = self.leaving.take_if(|leaving| leaving.try_at <= Instant::now())?;
        let partitions = leaving.partitions.iter();
        let awaited: usize = partitions.map(|partition| dispatcher.awaited(*partition)).sum();
        let lost = leaving.lost || client.consumer.assignment_lost();
        if awaited > 0 && !lost && Instant::now() < leaving.deadline {
            self.leaving = Some(leaving);
            return None;
        }
        if lost && !leaving.lost {
            self.membership.end();
            leaving.lost = true;
        }
        Some(leaving)
    }

    /// The group did not take the commit of what is settled of these.
    pub(super) fn leave_later(&mut self, leaving: Leaving) {
        self.leaving = Some(Leaving {
            try_at: Instant::now() + RETRY_COMMIT,
            ..leaving
        });
    }

    /// What a commit's answer says of our membership. If we are out, there is nothing to wait for and nothing to commit.
    pub(super) fn answered(&mut self, sent: Sent, proof: Proof) {
        if self.membership.answered(sent, proof) == Proof::Out
            && let Some(leaving) = &mut self.leaving
        {
            leaving.lost = true;
        }
    }

    /// The partitions that are still ours to commit.
    pub(super) fn committable(&self, dispatcher: &Dispatcher<Message>) -> Vec<PartitionId> {
        let lost = self.leaving.as_ref().filter(|leaving| leaving.lost);
        let is_lost = |partition: &PartitionId| lost.is_some_and(|leaving| leaving.partitions.contains(partition));
        let partitions = dispatcher.partitions().keys().copied();
        partitions.filter(|partition| !is_lost(partition)).collect()
    }

    /// Makes publishers drop what they have not sent for these assignments. Returns when they have, so that nothing of
    /// theirs is sent after the partitions are given up.
    pub(super) fn abandon(
        &mut self,
        assignments: &[(PartitionId, u32)],
        dispatcher: &Dispatcher<Message>,
        publishers: &Publishers,
    ) {
        if assignments.is_empty() || dispatcher.is_idle() {
            return;
        }
        let assignments: Arc<[(PartitionId, u32)]> = assignments.into();
        let (done, all_done) = mpsc::channel();
        for (_, member) in publishers.members() {
            member.command(Command::Abandon {
                assignments: Arc::clone(&assignments),
                done: done.clone(),
            });
        }
        drop(done);
        // Nobody sends: the channel ends when the last publisher has dropped its end.
        if let Err(mpsc::RecvTimeoutError::Timeout) = all_done.recv_timeout(ABANDON_TIMEOUT) {
            error!(
                "publishers did not answer in time; nothing is published until they have dropped the records of these partitions"
            );
            self.membership.await_abandonment(all_done);
        }
    }

    /// Nothing is assigned any more.
    pub(super) fn forget_all(&mut self) {
        self.joining = None;
        self.leaving = None;
    }

    /// Answers a rebalance that was being carried out, or was to be: closing would wait for it.
    pub(super) fn answer_what_is_owed(&mut self, client: &Client) {
        let mut assigned = self.joining.take().map(|joining| joining.partitions);
        let mut revoked: Vec<Vec<PartitionId>> = self
            .leaving
            .take()
            .map(|leaving| leaving.partitions)
            .into_iter()
            .collect();
        for event in client.consumer.context().take_events() {
            match event {
                Event::Assign(partitions) => assigned = Some(partitions),
                Event::Revoke { partitions, .. } => revoked.push(partitions),
                Event::Statistics(_)
                | Event::Topic(..)
                | Event::Cut { .. }
                | Event::OutOfRange { .. }
                | Event::Unreadable { .. } => {}
            }
        }
        let mut answers = Vec::new();
        // All of them, although nothing is begun: librdkafka lets go only of what it was given, and closing waits until it has.
        if let Some(partitions) = assigned {
            answers.push(client.consumer.incremental_assign(&client.list_of(&partitions)));
        }
        for partitions in revoked {
            answers.push(client.consumer.incremental_unassign(&client.list_of(&partitions)));
        }
        for error in answers.into_iter().filter_map(Result::err) {
            debug!(%error, "failed to answer a rebalance before closing");
        }
    }
}

/// All that is ours, with epochs.
pub(super) fn assignments(dispatcher: &Dispatcher<Message>) -> Vec<(PartitionId, u32)> {
    dispatcher
        .partitions()
        .iter()
        .map(|(partition, state)| (*partition, state.epoch))
        .collect()
}

/// Whether a last commit that failed so is to be tried again. `refused`: when it was for the first time, which is noted here.
///
/// The refusal may take a while to come, for a broker reads nothing of a connection whose request to join the group it has not answered.
pub(super) fn is_worth_repeating(error: &KafkaError, refused: &mut Option<Instant>) -> bool {
    let refused = refused.get_or_insert_with(Instant::now);
    is_passing(error) && refused.elapsed() < LAST_COMMIT
}
