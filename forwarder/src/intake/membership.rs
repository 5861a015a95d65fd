//! The proof that this process is a member of its group: whose lease it renews, and when it must be asked for again.
//!
//! Only the answer to a commit proves anything, and only for the membership in which it was sent. When the group has turned
//! us out, the order is: the lease ends, publishers drop what was ours, librdkafka is answered and joins anew, and a commit
//! in the new membership begins a new lease. So no lease ever covers a record of a partition that was lost.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::warn;

use crate::lease::Lease;

/// How many times within a lease its proof is repeated, so that a commit or two may fail.
const PROOFS: u32 = 4;

/// When a commit was sent, and in which membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// In the clock's microseconds.
    pub(super) at: u64,
    pub(super) membership: u64,
}

/// What the answer to a commit says about the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// We were a member when it was sent.
    Member,
    /// Neither that we are nor that we are not.
    Nothing,
    /// We are none: others may own the partitions already.
    Out,
}

impl Proof {
    /// `lost`: right after the answer librdkafka said that the assignment is lost.
    pub(super) fn of(result: &Result<(), KafkaError>, lost: bool) -> Self {
        match result {
            // A group that is empty takes commits of anybody who is in no generation, and says yes.
            _ if lost => Self::Out,
            Ok(()) => Self::Member,
            // Looked at for each partition, after the member.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Self::Member,
            // With the classic protocol a member that was just told of a new generation may have a commit under way that names
            // the old one. If it was more than that, librdkafka calls the assignment lost.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::IllegalGeneration) => Self::Nothing,
            Err(error) if is_out_of_the_group(error) => Self::Out,
            Err(_) => Self::Nothing,
        }
    }
}

/// See the module.
pub(super) struct Membership {
    lease: Lease,
    /// Times that the lease ran out though there was something to own.
    fenced: IntCounter,
    /// Grows with every end, so that an answer is told from one of an earlier membership.
    number: Arc<AtomicU64>,
    /// Publishers that have not dropped yet what is not ours any more: each channel ends when all of them have.
    abandoning: Vec<Receiver<()>>,
    next_proof: Instant,
    /// Whether the lease was held when that was last observed.
    proven: bool,
}

impl Membership {
    pub(super) fn new(lease: Lease, fenced: IntCounter, now: Instant) -> Self {
        Self {
            lease,
            fenced,
            number: Arc::default(),
            abandoning: Vec::new(),
            next_proof: now,
            proven: false,
        }
    }

    /// Names the membership: another one, another number.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The number, to be read by another thread.
    pub(super) fn watch(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.number)
    }

    /// A commit is about to be sent, at this time of the clock.
    pub(super) fn asks(&mut self, at: u64) -> Sent {
        self.next_proof = Instant::now() + self.pause();
        Sent {
            at,
            membership: self.number(),
        }
    }

    /// Whether it is time for a commit though there may be nothing to commit.
    pub(super) fn needs_proof(&self, now: Instant) -> bool {
        now >= self.next_proof
    }

    /// What a commit's answer says, so far as it is one to this membership.
    pub(super) fn answered(&mut self, sent: Sent, proof: Proof) -> Proof {
        if sent.membership != self.number() {
            return Proof::Nothing;
        }
        match proof {
            Proof::Nothing => {}
            Proof::Out => self.end(),
            Proof::Member => {
                self.abandoning
                    .retain(|done| matches!(done.try_recv(), Err(TryRecvError::Empty)));
                if self.abandoning.is_empty() {
                    self.lease.renew(sent.at);
                    self.proven = self.lease.is_held();
                }
            }
        }
        proof
    }

    /// We are no member any more, or were none for a while.
    pub(super) fn end(&mut self) {
        self.number.fetch_add(1, Ordering::Relaxed);
        self.lease.revoke();
        self.observe(true);
        self.next_proof = Instant::now() + self.pause();
    }

    /// We are about to leave the group: nothing is published any more.
    pub(super) fn revoke(&self) {
        self.lease.revoke();
    }

    /// Publishers did not say in time that they have dropped what is not ours any more. Nothing is written until they have.
    pub(super) fn await_abandonment(&mut self, done: Receiver<()>) {
        self.abandoning.push(done);
        self.end();
    }

    /// Whether the membership is proved as of now.
    pub(super) fn is_proven(&self) -> bool {
        self.lease.is_held()
    }

    /// Notices that the lease has run out. `owner`: there is something to own, so it should not have.
    pub(super) fn observe(&mut self, owner: bool) {
        let held = self.lease.is_held();
        if self.proven && !held && owner {
            self.fenced.inc();
            warn!(
                "the lease is lost: this process publishes nothing until a commit proves its membership of the group"
            );
        }
        self.proven = held;
    }

    /// Between two proofs. One that failed is repeated sooner.
    fn pause(&self) -> Duration {
        let within = if self.lease.is_held() { PROOFS } else { PROOFS * PROOFS };
        self.lease.duration() / within
    }
}

/// Whether Kafka says that this process is no member of the group (any more), or not of its present generation.
///
/// A stale epoch is none of that: with KIP-848 the member's epoch grows under its feet, and the next heartbeat tells it.
pub(super) fn is_out_of_the_group(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::FencedInstanceId | Code::FencedMemberEpoch)
    )
}

/// Whether a commit that was refused so may be taken a moment later, as long as the assignment is not lost.
///
/// A group takes none between the last member's joining and the leader's assignment; and librdkafka may have sent one right before it was
/// told of the generation or epoch that the group has by now.
pub(super) fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::StaleMemberEpoch
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
        )
    )
}
