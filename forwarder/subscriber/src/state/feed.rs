//! One asset of one stream: its taps on clusters, put into one order, each record once.
//!
//! Each partition is put into order by itself, since each moves at a moment of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::event::{Event, GapReason};
use crate::limits::Repeats;
use crate::merge::{Cluster, Effect, Hold, Merge, Outcome, Role};
use crate::message::Message;
use crate::once::{Judgement, Once};
use crate::origin::Origin;
use crate::queue::Queue;
use crate::state::told::Told;

/// So many partitions of one asset are told apart. An asset is in one partition of each topic.
const LANES: usize = 64;

/// A subscription on one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// Its number, which no other one has.
    pub(crate) key: u64,
    pub(crate) cluster: Cluster,
    /// Which interest it is, in the order in which they were declared on the present connection. 0: it was not.
    pub(crate) declared: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) asset: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) taps: Vec<Tap>,
    /// All owners were asked for a proof in time, so that one that is missing is a gap.
    pub(crate) is_begun: bool,
    /// Owners under rings that are not left.
    told: Vec<Role>,
    /// Owners under rings that have left, and from which something may still come.
    past: Vec<Role>,
    /// The first one is of records without an origin.
    lanes: Vec<Lane>,
    next_lane: u32,
    queue: Arc<Queue>,
}

/// One partition.
#[derive(Debug)]
struct Lane {
    number: u32,
    /// None: of records without an origin.
    partition: Option<(Arc<str>, i32)>,
    merge: Merge<Message>,
    once: Once,
}

/// What is to be done for a lane.
pub(crate) type Effects = Vec<(u32, Effect<Message>)>;

impl Feed {
    pub(crate) fn new(asset: &str, id: Arc<str>, told: Vec<Role>, queue: Arc<Queue>) -> Self {
        let first = Lane {
            number: 0,
            partition: None,
            merge: Merge::new(told.clone()),
            once: Once::default(),
        };
        Self {
            asset: asset.into(),
            id,
            taps: Vec::new(),
            is_begun: false,
            told,
            past: Vec::new(),
            lanes: vec![first],
            next_lane: 1,
            queue,
        }
    }

    pub(crate) fn tap(&self, cluster: Cluster) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.cluster == cluster)
    }

    /// Whether anything may come from a cluster.
    pub(crate) fn needs(&self, cluster: Cluster) -> bool {
        self.lanes.iter().any(|lane| lane.merge.needs(cluster))
    }

    /// Nothing comes from a cluster any more.
    pub(crate) fn forget(&mut self, cluster: Cluster) -> Option<Tap> {
        self.past.retain(|role| role.cluster != cluster);
        let at = self.taps.iter().position(|tap| tap.cluster == cluster)?;
        Some(self.taps.swap_remove(at))
    }

    /// Takes note of the asset's owners under all rings that are not left, ascending by epoch.
    pub(crate) fn owners(&mut self, told: Vec<Role>) -> Effects {
        let oldest = told.first().map_or(u64::MAX, |role| role.epoch);
        let before = std::mem::replace(&mut self.told, told);
        self.past.extend(before.into_iter().filter(|role| role.epoch < oldest));
        let mut effects = Effects::new();
        for lane in &mut self.lanes {
            let number = lane.number;
            let of_lane = lane.merge.owners(self.told.clone());
            effects.extend(of_lane.into_iter().map(|effect| (number, effect)));
        }
        effects
    }

    /// Takes a record, and hands it out if it is its turn.
    pub(crate) fn take(
        &mut self,
        cluster: Cluster,
        message: Message,
        hold: Hold,
        repeats: Repeats,
        told: &mut Told,
    ) -> Effects {
        let mut effects = Effects::new();
        let at = self.lane(message.origin.as_ref(), &mut effects);
        let Some(lane) = self.lanes.get_mut(at) else {
            return effects;
        };
        if lane.merge.passes(cluster) {
            deliver(&self.queue, &mut lane.once, message, repeats, told);
        } else {
            let size = message.size();
            let of_lane = lane.merge.message(cluster, message, size, hold);
            effects.extend(of_lane.into_iter().map(|effect| (lane.number, effect)));
        }
        effects
    }

    /// Whether a lane still awaits a fence.
    pub(crate) fn awaits(&self, lane: u32, number: u64) -> bool {
        let lane = self.lanes.iter().find(|known| known.number == lane);
        lane.is_some_and(|lane| lane.merge.awaits(number))
    }

    /// Takes note of how a fence has ended.
    pub(crate) fn fenced(&mut self, lane: u32, number: u64, outcome: Outcome) -> Effects {
        let lane = self.lanes.iter_mut().find(|known| known.number == lane);
        let Some(lane) = lane else {
            return Effects::new();
        };
        let effects = lane.merge.fenced(number, outcome);
        effects.into_iter().map(|effect| (lane.number, effect)).collect()
    }

    /// Hands out records of a lane, in this order.
    pub(crate) fn deliver(&mut self, lane: u32, records: Vec<Message>, repeats: Repeats, told: &mut Told) {
        if let Some(lane) = self.lanes.iter_mut().find(|known| known.number == lane) {
            for record in records {
                deliver(&self.queue, &mut lane.once, record, repeats, told);
            }
        }
    }

    /// The place of the lane of a record. It is made where there is none.
    fn lane(&mut self, origin: Option<&Origin>, effects: &mut Effects) -> usize {
        let Some(origin) = origin else { return 0 };
        let is_its = |lane: &Lane| {
            let partition = lane.partition.as_ref();
            partition.is_some_and(|(topic, partition)| *partition == origin.partition && *topic == origin.topic)
        };
        if let Some(at) = self.lanes.iter().position(is_its) {
            return at;
        }
        if self.lanes.len() == LANES {
            let idle = self.lanes.iter().skip(1).position(|lane| lane.merge.is_idle());
            match idle {
                Some(at) => drop(self.lanes.remove(at + 1)),
                // All of them move at this moment: this record is in order with those of none.
                None => return 0,
            }
        }
        // It may begin on a side that is not read to its end.
        let mut merge = Merge::new(self.past.iter().chain(&self.told).copied().collect());
        let number = self.next_lane;
        self.next_lane += 1;
        let of_lane = merge.owners(self.told.clone());
        effects.extend(of_lane.into_iter().map(|effect| (number, effect)));
        self.lanes.push(Lane {
            number,
            partition: Some((Arc::clone(&origin.topic), origin.partition)),
            merge,
            once: Once::default(),
        });
        self.lanes.len() - 1
    }
}

/// Hands out a record that is next in order, unless it is not.
fn deliver(queue: &Queue, once: &mut Once, mut message: Message, repeats: Repeats, told: &mut Told) {
    if let Some(origin) = &message.origin {
        match once.judge(origin.offset, origin.timestamp) {
            Judgement::New => {}
            Judgement::Repeat => {
                told.totals.repeats.fetch_add(1, Ordering::Relaxed);
                if repeats == Repeats::Drop {
                    return;
                }
                message.is_repeat = true;
            }
            Judgement::Late => {
                told.totals.late.fetch_add(1, Ordering::Relaxed);
                return told.event(Event::Late(Box::new(message)));
            }
            Judgement::Anew => told.event(Event::TopicAnew {
                asset: Arc::clone(&message.asset),
                topic: Arc::clone(&origin.topic),
                partition: origin.partition,
            }),
        }
    }
    let (asset, cluster) = (Arc::clone(&message.asset), Arc::clone(&message.cluster));
    if queue.offer(message) {
        told.totals.delivered.fetch_add(1, Ordering::Relaxed);
    } else {
        told.slow(
            GapReason::SlowReader,
            Some(&asset),
            cluster,
            "the stream's queue is full",
        );
    }
}
