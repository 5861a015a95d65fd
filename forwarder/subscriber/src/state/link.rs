//! What is known of the connection to one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::Waiting;

/// The first pause before pods are asked for their proof again. Those that live answer within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// So many signed bodies are opened in a second. Everybody in the account may send some.
const OPENED_PER_SECOND: u32 = 200;

/// Where a connection is in its life.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// There was none yet, and no attempt has failed.
    Connecting,
    /// There is one.
    Up {
        /// Answers come below it.
        inbox: String,
        /// The cluster has several servers.
        has_several: bool,
    },
    /// There is none, and the next attempt is under way.
    Down,
}

/// The question for the announcement that is under way.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) token: u64,
    pub(crate) nonce: String,
    /// A digest has named another announcement since.
    pub(crate) is_overtaken: bool,
}

/// The question for proofs that is under way. It ends when all pods have answered, and may be asked several times.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) token: u64,
    pub(crate) nonce: String,
    /// So many interests were declared before it.
    pub(crate) covers: u64,
    pub(crate) answered: BTreeSet<String>,
}

impl Round {
    /// Whether these pods have answered, which are those that have partitions.
    ///
    /// There may be none for a while, as when one has died. Nobody publishes then. Whoever takes the partitions over comes later than
    /// the question, and is not asked, like any pod that comes later.
    pub(crate) fn is_done(&self, pods: &BTreeSet<String>) -> bool {
        !self.answered.is_empty() && self.answered.is_superset(pods)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) life: Life,
    /// Counts connections.
    pub(crate) generation: u64,
    /// What is read through it, with the feed.
    pub(crate) taps: HashSet<(u64, u64)>,
    /// How many interests were declared on the present connection.
    pub(crate) declared: u64,
    /// How many of them are proved.
    pub(crate) proven: u64,
    pub(crate) round: Option<Round>,
    /// How long the answers of pods are awaited before they are asked again.
    pub(crate) pause: Duration,
    pub(crate) asked: Option<Asked>,
    /// Echoes on their way, each with what waits for it.
    pub(super) echoes: BTreeMap<u64, Vec<Waiting>>,
    /// What waits for the next echo.
    pub(super) fences: Vec<Waiting>,
    pub(crate) heard: Instant,
    pub(crate) rhythm: Duration,
    /// When it is looked whether digests are missed.
    pub(crate) watched: Option<Instant>,
    /// A gap of it was told, and not its end.
    pub(crate) is_gapped: bool,
    /// How many records have come through it.
    pub(crate) records: u64,
    opened: (Instant, u32),
}

impl Link {
    pub(crate) fn new(now: Instant, rhythm: Duration) -> Self {
        Self {
            life: Life::Connecting,
            generation: 0,
            taps: HashSet::new(),
            declared: 0,
            proven: 0,
            round: None,
            pause: FIRST_PAUSE,
            asked: None,
            echoes: BTreeMap::new(),
            fences: Vec::new(),
            heard: now,
            rhythm,
            watched: None,
            is_gapped: false,
            records: 0,
            opened: (now, 0),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up { .. })
    }

    pub(crate) fn inbox(&self) -> Option<&str> {
        match &self.life {
            Life::Up { inbox, .. } => Some(inbox),
            Life::Connecting | Life::Down => None,
        }
    }

    /// Whether the interest that was declared as this one is proved.
    pub(crate) fn has_proved(&self, declared: u64) -> bool {
        self.is_up() && declared > 0 && declared <= self.proven
    }

    /// Forgets what was of the connection that has ended. Returns what waits for it in vain.
    pub(super) fn end(&mut self) -> Vec<Waiting> {
        self.life = Life::Down;
        self.declared = 0;
        self.proven = 0;
        self.round = None;
        self.asked = None;
        self.pause = FIRST_PAUSE;
        self.watched = None;
        let mut fences = std::mem::take(&mut self.fences);
        fences.extend(std::mem::take(&mut self.echoes).into_values().flatten());
        fences
    }

    /// All that the question covers is proved.
    pub(crate) fn prove(&mut self, covers: u64) {
        self.proven = self.proven.max(covers);
        self.pause = FIRST_PAUSE;
        self.round = None;
    }

    /// Whether one more signed body is opened.
    pub(crate) fn may_open(&mut self, now: Instant) -> bool {
        if now.duration_since(self.opened.0) >= Duration::from_secs(1) {
            self.opened = (now, 0);
        }
        self.opened.1 += 1;
        self.opened.1 <= OPENED_PER_SECOND
    }
}
