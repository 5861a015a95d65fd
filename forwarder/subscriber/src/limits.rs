//! What a program declares: whom it believes, and the bounds of what is kept and awaited.

use std::time::Duration;

/// Whom a client believes. All three stand in `status.beacon` of the AssetForwarder. None is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The public nkey (`U…`) that signs what forwarders tell.
    pub public_key: String,
    /// The ring's identity: the UID of its AssetForwarder.
    pub ring: String,
    /// The subject below which the ring is announced, such as `_FANOUT.plant.assets`.
    pub subject: String,
}

impl Pin {
    /// Of the three texts.
    pub fn new(public_key: impl Into<String>, ring: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            public_key: public_key.into(),
            ring: ring.into(),
            subject: subject.into(),
        }
    }
}

/// What happens to a record that was there before, as after the crash of a forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// It is dropped and counted.
    #[default]
    Drop,
    /// It is delivered, and says so.
    Deliver,
}

/// Bounds of memory and time. Change what you need: `Limits { queue: 1_000, ..Limits::default() }`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Records of one stream that wait to be read. More are dropped, with a gap.
    pub queue: usize,
    /// The same in bytes.
    pub queue_bytes: usize,
    /// Records of one asset that are held on the new side while it moves.
    pub held: usize,
    /// The same in bytes.
    pub held_bytes: usize,
    /// Events that wait to be read.
    pub events: usize,
    /// How long `connect` waits for the first answer of a forwarder.
    pub connect: Duration,
    /// How long one attempt to connect to a server may take.
    pub dial: Duration,
    /// The longest pause between two attempts.
    pub reconnect: Duration,
    /// How long the answer of a forwarder is awaited.
    pub answer: Duration,
    /// How long `subscribe` waits for the proof that all pods see the interest.
    pub ready: Duration,
    /// How long the new side is held for an old one from which nothing comes. While records come, it is held six times as long at most.
    pub drain: Duration,
    /// How much longer it is held where the old side has several servers.
    pub settle: Duration,
    /// In which rhythm digests are expected, as long as none has said.
    pub digest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 65_536,
            queue_bytes: 64 << 20,
            held: 10_000,
            held_bytes: 16 << 20,
            events: 4_096,
            connect: Duration::from_secs(10),
            dial: Duration::from_secs(3),
            reconnect: Duration::from_secs(5),
            answer: Duration::from_secs(2),
            ready: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            settle: Duration::from_millis(250),
            digest: Duration::from_secs(10),
        }
    }
}
