//! A member of the group: partitions come and go, and what is settled is committed.

use forwarder_core::delivery::commit::{CommitPoint, Metadata};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::delivery::start::{History, Known, Sameness, start};
use forwarder_core::document::{MissingOffset, StartFrom};
use forwarder_core::fanout::dispatch::{Phase, Resume};

use super::Process;
use crate::outside::Outside;

/// What the group tells a member.
pub(crate) enum Event {
    Assign(PartitionId, u64),
    Revoke(PartitionId, u64),
    Lost(PartitionId, u64),
}

/// A commit for one partition.
pub(super) struct Wish {
    partition: PartitionId,
    epoch: u32,
    token: u64,
    point: CommitPoint,
}

pub(super) enum Commit {
    /// The broker has not seen it.
    Asked(Vec<Wish>),
    /// What of it was performed.
    Answered(Vec<Wish>),
}

impl Process {
    pub(crate) fn handle_events(&mut self, outside: &mut Outside) {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Assign(partition, token) => self.begin(outside, partition, token),
                Event::Revoke(partition, token) => {
                    if self.tokens.get(&partition) == Some(&token) {
                        self.dispatcher.set_phase(partition, Phase::Draining);
                        self.leaving.insert(partition, outside.now + outside.plan.drain_timeout);
                    } else if outside.is_member(partition, token) {
                        outside.release(partition);
                    }
                }
                Event::Lost(partition, token) => {
                    if self.tokens.get(&partition) == Some(&token) {
                        self.give_up(outside, partition);
                    }
                }
            }
        }
    }

    fn begin(&mut self, outside: &mut Outside, partition: PartitionId, token: u64) {
        let ring = self.dispatcher.ring_epoch().epoch;
        let metadata = |outside: &Outside| {
            let committed = outside.committed(partition).cloned();
            committed.map(|(offset, text)| (offset, Metadata::parse(&text).unwrap()))
        };
        if metadata(outside).is_none() {
            let text = Metadata {
                partitions: outside.topics[partition.input().index()].unsigned_abs(),
                ring,
                members: Some(self.dispatcher.ring_epoch().fingerprint()),
                ..Metadata::default()
            };
            if !outside.commit(partition, token, 0, &text.to_string()) {
                return;
            }
        }
        let Some((committed, metadata)) = metadata(outside) else {
            return;
        };
        let fingerprint = self.dispatcher.ring_epoch().fingerprint();
        let known = Known {
            partition: partition.number().unsigned_abs(),
            committed: Some(committed),
            low: 0,
            high: outside.end(partition),
            at_time: None,
            ahead: metadata.ahead.as_ref().filter(|ahead| ahead.members == fingerprint),
            topic: Sameness::Unknown,
        };
        let history = History::of([metadata.to_string().as_str()]);
        let begin = start(&known, history, StartFrom::Latest, MissingOffset::Stop);
        if begin.fault.is_some() {
            return outside.fail(format!("{partition:?} begins with {begin:?}"));
        }
        let phase = match metadata.ring.cmp(&ring) {
            std::cmp::Ordering::Less => Phase::Announcing,
            std::cmp::Ordering::Equal => Phase::Active,
            std::cmp::Ordering::Greater => Phase::Behind(metadata.ring),
        };
        let resume = Resume {
            offset: begin.offset.unwrap(),
            away: begin.away,
            lanes: begin.lanes,
            ring: metadata.ring,
            members: metadata.members,
            using: metadata.using,
            later: metadata.ahead.filter(|ahead| ahead.members != fingerprint),
        };
        if !resume.away.is_empty() {
            outside.count("begun with something away");
        }
        let number = self.number;
        outside.say(|| format!(" {number} begins {partition:?} {resume:?} {phase:?}"));
        self.fetched.insert(partition, resume.offset);
        self.tokens.insert(partition, token);
        self.dispatcher.assign(partition, &resume, phase);
        if self.dispatcher.partitions()[&partition].phase == Phase::Grace {
            outside.count("partitions that wait for a grace");
        }
    }

    pub(super) fn go_on_leaving(&mut self, outside: &mut Outside) {
        let leaving: Vec<(PartitionId, u64)> = self.leaving.iter().map(|(a, b)| (*a, *b)).collect();
        for (partition, deadline) in leaving {
            let lost = !outside.is_member(partition, self.tokens[&partition]);
            if self.dispatcher.awaited(partition) > 0 && !lost && outside.now < deadline {
                continue;
            }
            self.give_up(outside, partition);
        }
    }

    fn give_up(&mut self, outside: &mut Outside, partition: PartitionId) {
        let epoch = self.dispatcher.partitions()[&partition].epoch;
        for publisher in &mut self.publishers {
            publisher.abandon(outside, &[(partition, epoch)], &mut self.receipts);
        }
        // Between the abandonment and now some more may have been confirmed.
        self.settle(outside, usize::MAX);
        let token = self.tokens[&partition];
        if let Some(point) = self.dispatcher.to_commit(partition)
            && !outside.fault(outside.plan.lost_commits)
        {
            self.serve_commit(outside);
            outside.commit(partition, token, point.position, &text(outside, partition, &point));
        }
        self.dispatcher.remove(partition);
        self.tokens.remove(&partition);
        self.fetched.remove(&partition);
        self.leaving.remove(&partition);
        let number = self.number;
        outside.say(|| format!(" {number} has given {partition:?} up"));
        if outside.is_member(partition, token) {
            outside.release(partition);
        }
    }

    // Commits.

    pub(super) fn ask_commit(&mut self, outside: &mut Outside) {
        if self.commit.is_some() || outside.fault(outside.plan.late_commits) {
            return;
        }
        let wishes = self.dispatcher.partitions().iter().filter_map(|(partition, state)| {
            Some(Wish {
                partition: *partition,
                epoch: state.epoch,
                token: self.tokens[partition],
                point: self.dispatcher.to_commit(*partition)?,
            })
        });
        let wishes: Vec<Wish> = wishes.collect();
        if !wishes.is_empty() {
            self.commit = Some(Commit::Asked(wishes));
            if outside.fault(outside.plan.lost_commits) {
                // The request is lost; the thread that waits for its answer says so in the end.
                self.commit = Some(Commit::Answered(Vec::new()));
            }
        }
    }

    /// The broker sees the commit that is out.
    pub(crate) fn serve_commit(&mut self, outside: &mut Outside) {
        let Some(Commit::Asked(wishes)) = self.commit.take_if(|commit| matches!(commit, Commit::Asked(_))) else {
            return;
        };
        let mut performed = Vec::new();
        for wish in wishes {
            if outside.commit(
                wish.partition,
                wish.token,
                wish.point.position,
                &text(outside, wish.partition, &wish.point),
            ) {
                performed.push(wish);
            }
        }
        if outside.fault(outside.plan.lost_commits) {
            performed.clear();
        }
        self.commit = Some(Commit::Answered(performed));
    }

    pub(super) fn take_commit_answer(&mut self, outside: &mut Outside) {
        let answered = self.commit.take_if(|commit| matches!(commit, Commit::Answered(_)));
        let Some(Commit::Answered(performed)) = answered else {
            return;
        };
        for Wish {
            partition,
            epoch,
            point,
            ..
        } in performed
        {
            let state = |process: &Self| {
                let state = process.dispatcher.partitions().get(&partition)?;
                (state.epoch != epoch).then(|| format!("{state:?}"))
            };
            let before = state(self);
            self.dispatcher.committed(partition, epoch, point);
            if before != state(self) {
                outside.fail(format!("a late answer to a commit of epoch {epoch} changed {before:?}"));
            }
        }
    }
}

fn text(outside: &Outside, partition: PartitionId, point: &CommitPoint) -> String {
    let metadata = Metadata {
        partitions: outside.topics[partition.input().index()].unsigned_abs(),
        ring: point.ring,
        members: Some(point.members),
        using: point.using,
        ahead: point.ahead.clone(),
    };
    metadata.to_string()
}
