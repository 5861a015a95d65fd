//! Offsets to the broker: the settled prefix of each partition, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use forwarder_core::delivery::commit::{CommitPoint, Metadata, text_of};
use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::fanout::dispatch::Dispatcher;
use prometheus::IntCounter;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::warn;

use super::client::Client;
use super::committer::{Answer, Committer, Points, Request};
use super::context::OwnConsumer;
use super::group::{Group, RETRY_COMMIT, is_worth_repeating};
use super::identity::Identity;
use super::membership::Membership;
use super::starts::Begin;
use crate::message::Message;
use crate::metrics::Metrics;
use forwarder_service::clock::{Clock, wall_millis};

/// See the module.
pub(super) struct Commits {
    committer: Committer,
    /// What the commits' metadata says of each topic: see [`Metadata`].
    group_partitions: BTreeMap<Input, u32>,
    /// The brokers take no metadata as long as ours can be.
    brief: bool,
    next_commit: Instant,
    last_commit_millis: Option<i64>,
    commits: IntCounter,
    failures: IntCounter,
    clock: Clock,
}

/// What came of commits whose answers were awaited.
#[must_use]
pub(super) struct Committed {
    /// Whether all were taken that were asked for now.
    pub(super) result: Result<(), KafkaError>,
    /// The partitions that begin by the answers.
    pub(super) begun: Vec<PartitionId>,
}

/// What a commit is made of, beside the offsets.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) client: &'a Client,
    pub(super) identity: &'a Identity,
}

impl Commits {
    /// Starts the thread that commits.
    pub(super) fn start(
        client: &Client,
        membership: &Membership,
        metrics: &Metrics,
        clock: Clock,
        now: Instant,
    ) -> std::io::Result<Self> {
        Ok(Self {
            committer: Committer::start(Arc::clone(&client.consumer), membership.watch())?,
            group_partitions: BTreeMap::new(),
            brief: false,
            next_commit: now,
            last_commit_millis: None,
            commits: metrics.commits.clone(),
            failures: metrics.commit_failures.clone(),
            clock,
        })
    }

    /// Commits by another consumer from now on.
    pub(super) fn renew(&mut self, consumer: &Arc<OwnConsumer>, membership: &Membership) -> std::io::Result<()> {
        let committer = Committer::start(Arc::clone(consumer), membership.watch())?;
        std::mem::replace(&mut self.committer, committer).end();
        Ok(())
    }

    /// Whether the thread has died: nothing is committed any more.
    pub(super) fn has_died(&self) -> bool {
        self.committer.has_died()
    }

    /// Ends the thread, with its share of the consumer.
    pub(super) fn end(self) {
        self.committer.end();
    }

    pub(super) fn last_commit_millis(&self) -> Option<i64> {
        self.last_commit_millis
    }

    /// Whether Kafka has said how the group begins with a topic.
    pub(super) fn knows(&self, input: Input) -> bool {
        self.group_partitions.contains_key(&input)
    }

    /// Takes note of how the group begins with a topic.
    pub(super) fn note_group(&mut self, begin: &Begin) {
        if let Some(count) = begin.group_partitions {
            self.group_partitions.insert(begin.input, count);
        }
    }

    /// Nothing of a topic is ours any more. Should it be made anew, the group begins with it anew.
    pub(super) fn forget_group(&mut self, input: Input) {
        self.group_partitions.remove(&input);
    }

    /// Commits what is settled, at an interval, and sooner where our membership is to be proved.
    pub(super) fn commit_when_due(
        &mut self,
        about: About<'_>,
        dispatcher: &Dispatcher<Message>,
        membership: &mut Membership,
    ) {
        let now = Instant::now();
        let needs_proof = membership.needs_proof(now);
        if now < self.next_commit && !needs_proof {
            return;
        }
        self.next_commit = now + Duration::from_millis(about.client.config.engine.commit_interval_ms);
        // One at a time: librdkafka answers no rebalance while a commit is out, so an unbroken chain would starve it.
        if self.committer.out() > 0 {
            return;
        }
        let partitions: Vec<PartitionId> = dispatcher.partitions().keys().copied().collect();
        let mut points = points_to_commit(&partitions, dispatcher);
        if needs_proof {
            add_proofs(&mut points, about.client, dispatcher);
        }
        for (points, list) in self.requests(points, about) {
            self.send(points, list, membership);
        }
    }

    fn send(&mut self, points: Points, list: TopicPartitionList, membership: &mut Membership) -> bool {
        let sent = membership.asks(self.clock.micros());
        self.committer.send(Request { points, list, sent })
    }

    /// Commits the settled prefix of these partitions, where the broker does not have it yet, and waits for the answer.
    ///
    /// No commit is out when it returns: none comes after what is decided next.
    pub(super) fn commit(
        &mut self,
        partitions: &[PartitionId],
        about: About<'_>,
        dispatcher: &mut Dispatcher<Message>,
        group: &mut Group,
    ) -> Committed {
        let (ours, mut committed) = self.commit_and_wait(partitions, about, dispatcher, group);
        committed.begun.extend(ours);
        committed
    }

    /// As [`Commits::commit`], for partitions that begin: what is not committed may not begin. Whoever calls this asks for their records
    /// next, so they are told only if not all were taken: then those of another topic begin all the same.
    pub(super) fn commit_starts(
        &mut self,
        partitions: &[PartitionId],
        about: About<'_>,
        dispatcher: &mut Dispatcher<Message>,
        group: &mut Group,
    ) -> Committed {
        let (ours, mut committed) = self.commit_and_wait(partitions, about, dispatcher, group);
        if committed.result.is_err() {
            committed.begun.extend(ours);
        }
        committed
    }

    /// Commits the settled prefix of partitions that are given up right after. The ends of other members are rebalances, in whose midst the
    /// group takes no commit; what it does not take is delivered again. Returns the partitions that begin by it.
    pub(super) fn commit_at_last(
        &mut self,
        partitions: &[PartitionId],
        about: About<'_>,
        dispatcher: &mut Dispatcher<Message>,
        group: &mut Group,
    ) -> Vec<PartitionId> {
        let (mut begun, mut refused) = (Vec::new(), None);
        while !about.client.consumer.assignment_lost() {
            let committed = self.commit(partitions, about, dispatcher, group);
            begun.extend(committed.begun);
            match committed.result {
                Err(error) if is_worth_repeating(&error, &mut refused) => thread::sleep(RETRY_COMMIT),
                _ => break,
            }
        }
        begun
    }

    /// Returns the partitions that begin by the commits that were asked for now, apart from those that begin by earlier ones.
    fn commit_and_wait(
        &mut self,
        partitions: &[PartitionId],
        about: About<'_>,
        dispatcher: &mut Dispatcher<Message>,
        group: &mut Group,
    ) -> (Vec<PartitionId>, Committed) {
        let mut begun = Vec::new();
        let mut out = 0;
        for (points, list) in self.requests(points_to_commit(partitions, dispatcher), about) {
            if !self.send(points, list, &mut group.membership) {
                let result = Err(KafkaError::Canceled);
                return (Vec::new(), Committed { result, begun });
            }
            out += 1;
        }
        let (mut ours, mut result) = (Vec::new(), Ok(()));
        while self.committer.out() > 0 {
            let is_ours = self.committer.out() <= out;
            let answer = match self.committer.recv() {
                Ok(answer) => answer,
                Err(error) => {
                    return (
                        Vec::new(),
                        Committed {
                            result: Err(error),
                            begun,
                        },
                    );
                }
            };
            match self.note_answer(answer, dispatcher, group) {
                Ok(partitions) if is_ours => ours.extend(partitions),
                Err(error) if is_ours => result = Err(error),
                Ok(partitions) => begun.extend(partitions),
                Err(_) => {}
            }
        }
        (ours, Committed { result, begun })
    }

    /// A request for each topic. Of one that names several topics, librdkafka says that it succeeded if any part of it did.
    fn requests(&self, mut points: Points, about: About<'_>) -> Vec<(Points, TopicPartitionList)> {
        points.sort_by_key(|(partition, ..)| partition.input());
        let input = |(partition, ..): &(PartitionId, u32, CommitPoint)| -> Input { partition.input() };
        let of_topics = points.chunk_by(|one, next| input(one) == input(next));
        let requests = of_topics.filter_map(|points| match self.list(points, about) {
            Ok(list) => Some((points.to_vec(), list)),
            Err(error) => {
                warn!(%error, "failed to build a commit request");
                None
            }
        });
        requests.collect()
    }

    /// Takes the answers that have come. Returns the partitions that begin by them.
    pub(super) fn take_answers(&mut self, dispatcher: &mut Dispatcher<Message>, group: &mut Group) -> Vec<PartitionId> {
        let mut begun = Vec::new();
        while let Some(answer) = self.committer.try_recv() {
            begun.extend(self.note_answer(answer, dispatcher, group).unwrap_or_default());
        }
        begun
    }

    /// Returns the partitions that begin by it.
    fn note_answer(
        &mut self,
        answer: Answer,
        dispatcher: &mut Dispatcher<Message>,
        group: &mut Group,
    ) -> Result<Vec<PartitionId>, KafkaError> {
        let Answer {
            points,
            sent,
            result,
            proof,
        } = answer;
        group.answered(sent, proof);
        match result {
            Ok(()) => {
                self.commits.inc();
                self.last_commit_millis = Some(wall_millis());
                let committed = |(partition, epoch, point)| {
                    let begins = dispatcher.committed(partition, epoch, point);
                    begins.then_some(partition)
                };
                Ok(points.into_iter().filter_map(committed).collect())
            }
            Err(error) => {
                self.failures.inc();
                warn!(%error, "a commit failed; the forwarder repeats it, or its records are delivered again");
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetMetadataTooLarge) && !self.brief {
                    self.brief = true;
                    warn!(
                        "the commit metadata exceeds the brokers' offset.metadata.max.bytes, so the forwarder leaves out what is settled \
                         behind the committed offset. A restart while a cluster is away then delivers all of that again. 4096 bytes \
                         are enough"
                    );
                }
                Err(error)
            }
        }
    }

    fn list(
        &self,
        points: &[(PartitionId, u32, CommitPoint)],
        about: About<'_>,
    ) -> Result<TopicPartitionList, KafkaError> {
        let About { client, identity } = about;
        let mut list = TopicPartitionList::with_capacity(points.len());
        for (partition, _, point) in points {
            let CommitPoint {
                position,
                ring,
                members,
                using,
                ahead,
            } = point.clone();
            let metadata = Metadata {
                partitions: self.group_partitions.get(&partition.input()).copied().unwrap_or(0),
                ring,
                members: Some(members),
                using,
                ahead: ahead.filter(|_| !self.brief),
            };
            let mut element = list.add_partition(client.inputs.topic_of(*partition), partition.number());
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(text_of(&metadata, identity.id(partition.input())));
        }
        Ok(list)
    }
}

fn points_to_commit(partitions: &[PartitionId], dispatcher: &Dispatcher<Message>) -> Points {
    let points = partitions.iter().filter_map(|partition| {
        let epoch = dispatcher.partitions().get(partition)?.epoch;
        Some((*partition, epoch, dispatcher.to_commit(*partition)?))
    });
    points.collect()
}

/// Commits that change nothing, for their answers: one partition is enough. But where a topic is gone, Kafka takes none for it. So each
/// topic that has nothing to commit gets a commit of its own.
fn add_proofs(points: &mut Points, client: &Client, dispatcher: &Dispatcher<Message>) {
    for (input, _) in client.inputs.iter() {
        if points.iter().any(|(partition, ..)| partition.input() == input) {
            continue;
        }
        let partitions = dispatcher.partitions().iter();
        let mut ours = partitions.filter(|(partition, _)| partition.input() == input);
        let proof =
            ours.find_map(|(partition, state)| Some((*partition, state.epoch, dispatcher.commit_point(*partition)?)));
        points.extend(proof);
    }
}
