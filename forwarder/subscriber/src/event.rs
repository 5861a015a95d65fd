//! What a client tells beside the records. Whatever may have been missed is a [`Gap`].

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::message::Message;

/// Something that has happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Records may have been missed.
    Gap(Gap),
    /// All pods have proved that they see the interest on a cluster. Gaps of that cluster end here.
    Resumed {
        /// The cluster's name.
        cluster: Arc<str>,
    },
    /// A ring has come one step further.
    Ring {
        /// Its epoch.
        epoch: u64,
        /// Where it is.
        state: RingState,
    },
    /// The interest in all subscribed assets is proved on their owners under this ring.
    Ready {
        /// The ring's epoch.
        ring: u64,
    },
    /// A record came after a later one of its partition was delivered. It is here, and not in its stream.
    Late(Box<Message>),
    /// Offsets have begun anew with newer timestamps: the topic was deleted and made again.
    TopicAnew {
        /// Whose record has shown it.
        asset: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
    },
    /// Messages carry no origin, so repeats cannot be told: see `headers.origin` of the forwarder.
    AtLeastOnce,
    /// Somebody has sent what was not believed: another key, an old answer, another ring.
    Unbelieved {
        /// Where.
        subject: String,
        /// Why it was not believed, the last time.
        reason: String,
        /// How often within a second.
        count: u64,
    },
    /// A server of the ring is not used, or a server denies something. The reason says why.
    Refused {
        /// The cluster's name.
        cluster: Arc<str>,
        /// The server; empty: the server that the client is connected to.
        server: String,
        /// Why.
        reason: String,
    },
    /// A cluster cannot be reached. The client tries again.
    Unreachable {
        /// The cluster's name.
        cluster: Arc<str>,
        /// Why, the last time.
        reason: String,
    },
    /// The program has read its events too slowly. The oldest were dropped.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Where a ring is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingState {
    /// It is going to be used.
    Announced,
    /// Records go to their owners under it.
    InUse,
    /// Nothing is on its way under it any more.
    Left,
}

/// Records may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Of which asset; none: of any that this client reads there.
    pub asset: Option<Arc<str>>,
    /// On which cluster; none: on any.
    pub cluster: Option<Arc<str>>,
    /// How many assets are concerned. For slow readers: how many records were dropped.
    pub count: u64,
    /// More, for people.
    pub detail: String,
}

/// Why records may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GapReason {
    /// The connection to the cluster was lost. Core NATS keeps nothing for who is away. The gap ends with [`Event::Resumed`].
    Disconnected,
    /// The program reads its stream too slowly, so the stream's queue was full.
    SlowReader,
    /// The client was too slow for the connection: a queue before it was full, or the server has ended the connection.
    SlowConsumer,
    /// The server denies a subscription. The detail has its words.
    Denied,
    /// A ring is in use, and not all pods have proved that they see the interest on the new side.
    NotReady,
    /// The old side did not answer in time, or is gone. What it still had comes late or never.
    NotDrained,
    /// The cluster left the ring while it could not be read to the end.
    Left,
    /// More was held on the new side than the limit allows. What the old side still has comes late.
    HeldTooMuch,
    /// A ring came and went while the client heard nothing.
    RingSkipped,
    /// The forwarder publishes under another subject, so all subscriptions were made anew.
    SubjectChanged,
    /// All servers of the cluster are at hosts that the client does not allow.
    HostRefused,
    /// The forwarder has begun to publish into a stream, which this version cannot read.
    JetStream,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "disconnected",
            Self::SlowReader => "slow reader",
            Self::SlowConsumer => "slow consumer",
            Self::Denied => "denied",
            Self::NotReady => "not ready",
            Self::NotDrained => "not drained",
            Self::Left => "left",
            Self::HeldTooMuch => "held too much",
            Self::RingSkipped => "ring skipped",
            Self::SubjectChanged => "subject changed",
            Self::HostRefused => "host refused",
            Self::JetStream => "jetstream",
        })
    }
}

/// The events of a client. Events that are not read are dropped, the oldest first, and counted.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(crate) fn new(events: broadcast::Receiver<Event>) -> Self {
        Self(events)
    }

    /// Waits for the next event. None: the client has ended.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
