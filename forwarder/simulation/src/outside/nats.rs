//! NATS: servers that deny, stop and forget, and connections that end. Each delivery is judged when it happens.

use std::collections::{BTreeSet, VecDeque};

use forwarder_core::delivery::outbox::{Confirmation, Refusal};
use forwarder_core::delivery::partition::PartitionId;

use super::Outside;
use crate::assets::{ASSETS, RINGS, subject};
use crate::dice::Dice;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) confirmation: Confirmation,
    pub(crate) away: bool,
    /// Subjects that are denied on every connection, until a person allows them.
    pub(super) poison: BTreeSet<Vec<u8>>,
    /// It names a denied subject by another one that it has mapped it to.
    maps: bool,
    /// Message ids in the window for duplicates.
    stored: BTreeSet<(PartitionId, i64)>,
}

impl Server {
    pub(super) fn new(dice: &mut Dice, poisoned: usize) -> Self {
        Self {
            confirmation: if dice.chance(50) {
                Confirmation::Fence
            } else {
                Confirmation::Ack
            },
            away: false,
            poison: poison(dice, poisoned),
            maps: dice.chance(30),
            stored: BTreeSet::new(),
        }
    }
}

/// What a server denies.
fn poison(dice: &mut Dice, percent: usize) -> BTreeSet<Vec<u8>> {
    if !dice.chance(percent) {
        return BTreeSet::new();
    }
    let count = 1 + dice.below(6);
    (0..count)
        .map(|_| subject(dice.below(ASSETS), dice.below(2) as i64))
        .collect()
}

#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Record {
        ticket: u64,
        partition: PartitionId,
        offset: i64,
        subject: Vec<u8>,
    },
    Fence,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Denied(Vec<u8>),
    Fence,
    Ack(u64),
    Nack(u64, Refusal),
}

/// A connection: what is on its way in both directions. One that was lost still delivers what the network had taken.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) cluster: usize,
    pub(crate) open: bool,
    pub(crate) sent: VecDeque<Sent>,
    pub(crate) answers: VecDeque<Answer>,
    denied: BTreeSet<Vec<u8>>,
}

impl Outside {
    pub(crate) fn connect(&mut self, cluster: usize) -> Option<u64> {
        if self.servers[cluster].away {
            return None;
        }
        let mut denied = BTreeSet::new();
        if self.servers[cluster].confirmation == Confirmation::Fence && self.fault(self.plan.refusals) {
            for _ in 0..1 + self.dice.below(4) {
                denied.insert(subject(self.dice.below(ASSETS), self.dice.below(2) as i64));
            }
        }
        self.wire_count += 1;
        let wire = Wire {
            cluster,
            open: true,
            sent: VecDeque::new(),
            answers: VecDeque::new(),
            denied,
        };
        self.wires.insert(self.wire_count, wire);
        Some(self.wire_count)
    }

    /// A process sends a record to a cluster. That its assets are sent back to a former owner would show here.
    pub(crate) fn judge_sending(&mut self, partition: PartitionId, offset: i64, cluster: usize, ring: usize) {
        let asset = self.record_mut(partition, offset).asset.unwrap();
        self.judge_ring(partition, asset, cluster, ring);
        let topic = partition.input().index();
        let mut rings = self.rings[..=ring].iter();
        let Some(under) = rings.rposition(|members| RINGS.owner(*members, asset) == cluster) else {
            return self.fail(format!(
                "{partition:?}@{offset} of {asset} is sent to C{cluster}, never its owner"
            ));
        };
        if under < self.sent_under[topic][asset] {
            let later = self.sent_under[topic][asset] + 1;
            let text = format!(
                "{partition:?}@{offset} of {asset} is sent back to C{cluster}, its owner under ring {}; ring {later} was in use",
                under + 1
            );
            self.fail(text);
        }
        self.sent_under[topic][asset] = under;
    }

    /// A server reads so much of what a connection brings.
    pub(crate) fn serve(&mut self, number: u64, count: usize) {
        for _ in 0..count {
            let Some(wire) = self.wires.get_mut(&number) else {
                return;
            };
            let (cluster, open) = (wire.cluster, wire.open);
            if self.servers[cluster].away {
                return;
            }
            let Some(sent) = wire.sent.pop_front() else {
                if !open {
                    self.forget_ghost(number);
                }
                return;
            };
            let server = &self.servers[cluster];
            let is_denied = |subject: &Vec<u8>| wire.denied.contains(subject) || server.poison.contains(subject);
            let denied = matches!(&sent, Sent::Record { subject, .. } if is_denied(subject));
            let (confirmation, maps) = (server.confirmation, server.maps);
            let answer = match sent {
                Sent::Fence => Some(Answer::Fence),
                Sent::Record {
                    ticket,
                    partition,
                    offset,
                    subject,
                } => match confirmation {
                    Confirmation::Fence if denied && maps => Some(Answer::Denied(b"mapped".to_vec())),
                    Confirmation::Fence if denied => Some(Answer::Denied(subject)),
                    Confirmation::Fence => {
                        self.receive(cluster, partition, offset);
                        None
                    }
                    Confirmation::Ack if self.record_mut(partition, offset).impossible => {
                        Some(Answer::Nack(ticket, Refusal::Impossible))
                    }
                    Confirmation::Ack if denied || self.fault(self.plan.refusals / 4) => {
                        Some(Answer::Nack(ticket, Refusal::Denied))
                    }
                    Confirmation::Ack if self.fault(self.plan.refusals / 2) => {
                        Some(Answer::Nack(ticket, Refusal::Transient))
                    }
                    Confirmation::Ack => {
                        if self.servers[cluster].stored.insert((partition, offset)) {
                            self.receive(cluster, partition, offset);
                        } else if let Some(asset) = self.record_mut(partition, offset).asset {
                            // The stream has it: who reads the stream from now on gets it.
                            self.publish(cluster, partition, offset, asset);
                        }
                        (!self.fault(self.plan.lost_acks)).then_some(Answer::Ack(ticket))
                    }
                },
            };
            if let Some(wire) = self.wires.get_mut(&number).filter(|wire| wire.open) {
                wire.answers.extend(answer);
            }
        }
    }

    fn forget_ghost(&mut self, number: u64) {
        // Whoever had it may still read what was answered.
        self.wires
            .retain(|other, wire| *other != number || !wire.answers.is_empty());
    }

    fn receive(&mut self, cluster: usize, partition: PartitionId, offset: i64) {
        let topic = partition.input().index();
        let record = self.record_mut(partition, offset);
        let first = !std::mem::replace(&mut record.received, true);
        let (asset, given_up) = (record.asset.unwrap(), record.given_up);
        self.say(|| {
            let again = if first { "" } else { " again" };
            format!("C{cluster} has {partition:?}@{offset} of {asset}{again}")
        });
        self.count(if first { "first deliveries" } else { "repeats" });
        self.publish(cluster, partition, offset, asset);
        if !first || given_up {
            return;
        }
        if offset < self.newest[topic][asset] {
            let text = format!(
                "order: C{cluster} gets {partition:?}@{offset} of {asset} after {}",
                self.newest[topic][asset]
            );
            self.fail(text);
        }
        self.newest[topic][asset] = offset;
    }

    /// A connection ends. Any part of what was sent has gone out; any part of what was answered has come.
    pub(crate) fn cut(&mut self, number: u64) {
        let Some(wire) = self.wires.get_mut(&number) else {
            return;
        };
        wire.open = false;
        wire.sent.truncate(self.dice.below(wire.sent.len() + 1));
        wire.answers.truncate(self.dice.below(wire.answers.len() + 1));
        let left = wire.sent.len();
        let cluster = wire.cluster;
        self.say(|| format!("connection {number} to C{cluster} ends with {left} on its way"));
        self.count("connections lost");
    }

    pub(crate) fn forget_duplicates(&mut self, cluster: usize) {
        self.servers[cluster].stored.clear();
    }
}
