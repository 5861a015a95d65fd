//! One asset of one stream: its taps on clusters, put into one order, each record once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::event::{Event, GapReason};
use crate::limits::Repeats;
use crate::merge::{Cluster, Merge, Role};
use crate::message::Message;
use crate::once::{Judgement, Once};
use crate::queue::Queue;
use crate::state::told::Told;

/// A subscription on one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// Its number, which no other one has.
    pub(crate) key: u64,
    pub(crate) cluster: Cluster,
    /// The how manieth interest it is that was declared on the present connection. 0: it was not.
    pub(crate) declared: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) asset: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) merge: Merge<Message>,
    pub(crate) taps: Vec<Tap>,
    /// All owners were asked for a proof in time, so that one that is missing is a gap.
    pub(crate) is_begun: bool,
    once: Once,
    queue: Arc<Queue>,
}

impl Feed {
    pub(crate) fn new(asset: &str, id: Arc<str>, roles: Vec<Role>, queue: Arc<Queue>) -> Self {
        Self {
            asset: asset.into(),
            id,
            merge: Merge::new(roles),
            taps: Vec::new(),
            is_begun: false,
            once: Once::default(),
            queue,
        }
    }

    pub(crate) fn tap(&self, cluster: Cluster) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.cluster == cluster)
    }

    /// Hands out a record that is next in order, unless it is not.
    pub(crate) fn deliver(&mut self, mut message: Message, repeats: Repeats, told: &mut Told) {
        if let Some(origin) = &message.origin {
            match self.once.judge(origin) {
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
        let cluster = Arc::clone(&message.cluster);
        if self.queue.offer(message) {
            told.totals.delivered.fetch_add(1, Ordering::Relaxed);
        } else {
            told.slow(
                GapReason::SlowReader,
                Some(&self.asset),
                cluster,
                "the stream's queue is full",
            );
        }
    }
}
