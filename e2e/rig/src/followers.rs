//! Subscribers of assets: each reads one asset by the client in Rust, wherever it is. What they read is judged against what was sent.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fanout_client::{Client, Counters, Event, Gap, Message, Subscription};
use tokio::task::JoinSet;

use crate::traffic::read_value;
use crate::verdict::{Delivery, Ledger, Tally, Verdict};
use crate::wait;

/// Reads assets by a subscription of its own for each, from its beginning until it is dropped.
///
/// A record is missed without a gap if it is lost and the client has told no gap at all. So where gaps are promised, [`Followed::gaps`]
/// needs a look besides.
#[derive(Debug)]
pub struct Followers {
    client: Client,
    ledger: Arc<Ledger>,
    assets: u32,
    read: Arc<Mutex<Read>>,
    _tasks: JoinSet<()>,
}

/// What was read, and what was told.
#[derive(Debug)]
struct Read {
    clusters: Vec<String>,
    tally: Tally,
    /// Each delivery is later than the one before.
    clock: u64,
    gaps: Vec<Gap>,
    late: u64,
    /// The newest ring that the client is ready for.
    ready: u64,
    /// What else speaks against the client.
    faults: Vec<String>,
    notes: Vec<String>,
}

/// The judgement.
#[derive(Debug)]
pub struct Followed {
    /// What was read, of what was sent of these assets.
    pub verdict: Verdict,
    /// Where the client says that records may be missing.
    pub gaps: Vec<Gap>,
    /// Records that the client did not put into a stream, because a later one was there before.
    pub late: u64,
    /// Events that speak against the client or a forwarder, one by one.
    pub faults: Vec<String>,
    /// What happened, for people.
    pub notes: Vec<String>,
    /// What the client has counted.
    pub counters: Counters,
}

impl Followers {
    /// Subscribes to the first `assets` of a ledger, all at once. `clusters`: the names in the ring, by their places in the tally.
    ///
    /// # Errors
    /// A subscription that the client refuses.
    pub async fn begin(client: Client, ledger: Arc<Ledger>, assets: u32, clusters: &[&str]) -> Result<Self> {
        let read = Arc::new(Mutex::new(Read {
            clusters: clusters.iter().map(|name| (*name).to_owned()).collect(),
            tally: Tally::new(0),
            clock: 0,
            gaps: Vec::new(),
            late: 0,
            ready: 0,
            faults: Vec::new(),
            notes: Vec::new(),
        }));
        let assets = assets.min(ledger.assets());
        let mut tasks = JoinSet::new();
        let (mut events, of_events) = (client.events(), Arc::clone(&read));
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                lock(&of_events).hear(event);
            }
        });
        let begun = Instant::now();
        let subscribing = (0..assets).map(|asset| {
            let (client, key) = (client.clone(), ledger.key(asset));
            async move {
                let subscription = client.subscribe(&key).await;
                subscription
                    .map(|subscription| (asset, subscription))
                    .with_context(|| format!("failed to subscribe to {key}"))
            }
        });
        for subscribed in futures::future::join_all(subscribing).await {
            let (asset, subscription) = subscribed?;
            tasks.spawn(follow(asset, subscription, Arc::clone(&ledger), Arc::clone(&read)));
        }
        lock(&read)
            .notes
            .push(format!("all have subscribed after {:?}", begun.elapsed()));
        Ok(Self {
            client,
            ledger,
            assets,
            read,
            _tasks: tasks,
        })
    }

    /// Something to say where a test fails.
    pub fn note(&self, note: String) {
        lock(&self.read).notes.push(note);
    }

    /// How many assets are read.
    pub fn assets(&self) -> u32 {
        self.assets
    }

    /// How many records have come, each counted once.
    pub fn distinct(&self) -> u64 {
        lock(&self.read).tally.distinct()
    }

    /// How many assets were read on a cluster, by its place.
    pub fn assets_of(&self, cluster: u8) -> usize {
        lock(&self.read).tally.assets_of(cluster)
    }

    /// Waits until the client is ready for this ring, or a newer one.
    ///
    /// # Errors
    /// It is not within that time.
    pub async fn wait_ready(&self, epoch: u64, within: Duration) -> Result<()> {
        let is_ready = || async { Ok(lock(&self.read).ready >= epoch) };
        wait::eventually(within, "the client is ready for the ring", is_ready).await
    }

    /// Waits until as many records have come as were given to Kafka. In vain: what is missing is told in the judgement.
    pub async fn wait_all(&self, within: Duration) {
        let all = || async {
            let given: u64 = (0..self.assets).map(|asset| u64::from(self.ledger.given(asset))).sum();
            Ok(self.distinct() >= given)
        };
        drop(wait::eventually(within, "all records are read", all).await);
    }

    /// The judgement, by what was sent until now.
    pub fn judge(&self) -> Followed {
        let read = lock(&self.read);
        Followed {
            verdict: read.tally.verdict_of_first(self.assets, &self.ledger),
            gaps: read.gaps.clone(),
            late: read.late,
            faults: read.faults.clone(),
            notes: read.notes.clone(),
            counters: self.client.counters(),
        }
    }
}

impl Followed {
    /// Nothing missed, nothing twice, everything in order, and nothing that the client has to excuse.
    ///
    /// # Errors
    /// Says all of it.
    pub fn check_exactly_once_without_a_gap(&self) -> Result<()> {
        self.verdict.check_exactly_once().with_context(|| self.detail())?;
        let is_clean = self.gaps.is_empty() && self.late == 0 && self.faults.is_empty();
        anyhow::ensure!(is_clean, "{}", self.detail());
        Ok(())
    }

    /// All of it, for a person.
    pub fn detail(&self) -> String {
        format!(
            "{}, gaps {:?}, late {}, faults {:?}, {:?}\n{}",
            self.verdict,
            self.gaps,
            self.late,
            self.faults,
            self.counters,
            self.notes.join("\n")
        )
    }
}

/// One line, as the demo ends.
impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict {
            lost,
            repeated,
            out_of_order,
            ..
        } = &self.verdict;
        let out_of_order = out_of_order + self.late;
        write!(
            f,
            "subscribers: missed {lost}, repeated {repeated}, out of order {out_of_order}"
        )?;
        match self.gaps.len() {
            0 => Ok(()),
            gaps => write!(f, " (the client has told {gaps} gaps)"),
        }
    }
}

impl Read {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Gap(gap) => self.gaps.push(gap),
            Event::Late(_) => self.late += 1,
            Event::Ready { ring } => self.ready = self.ready.max(ring),
            Event::Ring { .. } => self.notes.push(format!("{event:?}")),
            event => self.faults.push(format!("{event:?}")),
        }
    }

    fn take(&mut self, asset: u32, ledger: &Ledger, message: &Message) {
        let read = read_value(&message.payload).filter(|(key, ..)| ledger.asset(key) == Some(asset));
        let Some((_, n, _)) = read else {
            return self.tally.unreadable(&format!("{} for asset {asset}", message.subject));
        };
        let place = self.clusters.iter().position(|name| **name == *message.cluster);
        let Some(cluster) = place.and_then(|place| u8::try_from(place).ok()) else {
            self.faults
                .push(format!("{} came from {}", message.subject, message.cluster));
            return;
        };
        self.clock += 1;
        self.tally.observe(Delivery {
            asset,
            n,
            cluster,
            at_us: self.clock,
            latency_us: None,
            at_home: true,
        });
    }
}

async fn follow(asset: u32, mut subscription: Subscription, ledger: Arc<Ledger>, read: Arc<Mutex<Read>>) {
    while let Some(message) = subscription.next().await {
        lock(&read).take(asset, &ledger, &message);
    }
}

fn lock(read: &Mutex<Read>) -> MutexGuard<'_, Read> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}
