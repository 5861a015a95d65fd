//! Who sees what really reached the NATS clusters.
//!
//! - [`Observer::live`] subscribes to everything at each cluster. It sees what a subscriber sees, at once; while a server is down it sees nothing,
//!   so it is for tests in which the servers stay up.
//! - [`record`] binds a stream without acknowledgements to the subjects of core publishes, and [`read_streams`] judges what is stored, here or in
//!   the stream of JetStream mode. Times are the servers' own, so the order across clusters is exact, and a server may be killed in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures::StreamExt as _;
use tokio::task::JoinHandle;

use crate::nats::Nats;
use crate::traffic::read_value;
use crate::verdict::{Delivery, Ledger, Tally, Verdict};
use crate::wait;

/// Two connections are read within milliseconds of each other on an idle machine; a hand-over that is out of order on purpose takes round trips.
const TOLERANCE_US: u64 = 20_000;

/// How long servers that have restarted may take until a stream can be read to its end.
const READABLE: Duration = Duration::from_secs(60);

/// Messages of one cluster that wait to be counted. What does not fit would be dropped by the client library, and be taken for lost.
const QUEUE: usize = 1 << 20;

/// Says whether the cluster of this name may have the asset of this key.
pub type AtHome = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// Subscribers at each cluster.
pub struct Observer {
    tally: Arc<Mutex<Tally>>,
    ledger: Arc<Ledger>,
    names: Vec<String>,
    slow: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Subscribes at each cluster; returns when the servers know of it.
    pub async fn live(clusters: &[(&str, &Nats)], ledger: Arc<Ledger>) -> Result<Self> {
        Self::live_with(clusters, ledger, None).await
    }

    /// As [`Observer::live`], and counts deliveries that are not `at_home` (asset key, cluster name) as foreign.
    pub async fn live_with(clusters: &[(&str, &Nats)], ledger: Arc<Ledger>, at_home: Option<AtHome>) -> Result<Self> {
        let servers = clusters
            .iter()
            .map(|(name, nats)| (*name, nats.connect_options(), nats.url()));
        Self::at(servers, ledger, at_home).await
    }

    /// Subscribes at clusters that are open to all, by their URLs.
    pub async fn live_at(clusters: &[(&str, String)], ledger: Arc<Ledger>) -> Result<Self> {
        let servers = clusters
            .iter()
            .map(|(name, url)| (*name, async_nats::ConnectOptions::new(), url.clone()));
        Self::at(servers, ledger, None).await
    }

    async fn at(
        clusters: impl Iterator<Item = (&'_ str, async_nats::ConnectOptions, String)>,
        ledger: Arc<Ledger>,
        at_home: Option<AtHome>,
    ) -> Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::new(TOLERANCE_US)));
        let slow = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut observer = Self {
            tally,
            ledger,
            names: Vec::new(),
            slow,
            tasks: Vec::new(),
        };
        for (index, (name, options, url)) in clusters.enumerate() {
            let cluster = u8::try_from(index).context("more than 255 clusters")?;
            let slow = Arc::clone(&observer.slow);
            let client = options
                .subscription_capacity(QUEUE)
                .event_callback(move |event| {
                    let slow = Arc::clone(&slow);
                    async move {
                        if matches!(event, async_nats::Event::SlowConsumer(_)) {
                            slow.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                })
                .connect(url)
                .await
                .with_context(|| format!("failed to connect the observer to {name}"))?;
            let mut subscriber = client
                .subscribe(">")
                .await
                .with_context(|| format!("failed to subscribe at {name}"))?;
            client
                .flush()
                .await
                .with_context(|| format!("failed to subscribe at {name}"))?;
            // A request that the server answers follows the subscription on the same connection: now it knows.
            wait_known(&client)
                .await
                .with_context(|| format!("{name} does not answer"))?;
            let (tally, ledger, at_home) = (
                Arc::clone(&observer.tally),
                Arc::clone(&observer.ledger),
                at_home.clone(),
            );
            let name = name.to_owned();
            observer.names.push(name.clone());
            observer.tasks.push(tokio::spawn(async move {
                // The client ends its connection when its last handle goes.
                let _client = client;
                while let Some(message) = subscriber.next().await {
                    let at_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let seen = Seen {
                        subject: &message.subject,
                        payload: &message.payload,
                        cluster,
                        name: &name,
                        at_us,
                    };
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    count(&mut tally, &ledger, at_home.as_ref(), &seen, now_us());
                }
            }));
        }
        Ok(observer)
    }

    /// A look at what has arrived so far.
    pub fn look<T>(&self, at: impl FnOnce(&mut Tally) -> T) -> T {
        at(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many records have arrived, each counted once.
    pub fn distinct(&self) -> u64 {
        self.look(|tally| tally.distinct())
    }

    /// The clusters' names in the order of their numbers.
    pub fn clusters(&self) -> &[String] {
        &self.names
    }

    /// Waits until so many distinct records have arrived.
    pub async fn wait_distinct(&self, records: u64, within: Duration) -> Result<()> {
        crate::wait::eventually(within, &format!("{records} records have arrived"), || async {
            let distinct = self.distinct();
            if distinct >= records {
                return Ok(true);
            }
            bail!("{distinct} have");
        })
        .await
    }

    /// Waits until everything in the ledger has arrived, or nothing new has for `quiet`; then judges. Nothing may be sent meanwhile.
    pub async fn settle(&self, quiet: Duration) -> Result<Verdict> {
        let mut last = (0, 0);
        let mut since = Instant::now();
        loop {
            let now = self.look(|tally| (tally.distinct(), tally.repeated()));
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let all = now.0 >= self.ledger.acknowledged();
            // When all is there, repeats of it may still be on their way, but not for long.
            if since.elapsed()
                >= if all {
                    quiet.min(Duration::from_millis(500))
                } else {
                    quiet
                }
            {
                return self.verdict();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The judgement as of now. An error if the observer itself could not keep up, for then there is none.
    pub fn verdict(&self) -> Result<Verdict> {
        let slow = self.slow.load(Ordering::Acquire);
        if slow > 0 {
            bail!("the observer was too slow {slow} times and missed messages: send less, or observe by streams");
        }
        Ok(self.look(|tally| tally.verdict(&self.ledger)))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Makes a stream of this name that stores what is published to these subjects and acknowledges nothing: the memory of a core cluster.
/// Take subjects of the form of the records', such as `*.*`. Not `>`: reading the stream would then store what is read once more.
pub async fn record(nats: &Nats, stream: &str, subjects: &[&str]) -> Result<()> {
    let context = jetstream::new(nats.client().await?);
    let config = jetstream::stream::Config {
        name: stream.to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        no_ack: true,
        storage: jetstream::stream::StorageType::File,
        ..jetstream::stream::Config::default()
    };
    context
        .create_stream(config)
        .await
        .with_context(|| format!("failed to create stream {stream}"))?;
    Ok(())
}

/// A cluster's stream to judge.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The cluster.
    pub nats: &'a Nats,
    /// The stream.
    pub stream: &'a str,
}

/// Reads all that the streams hold, across clusters in the order in which the servers stored it, and judges.
pub async fn read_streams(streams: &[Stored<'_>], ledger: &Ledger, at_home: Option<AtHome>) -> Result<Verdict> {
    Ok(tally_streams(streams, ledger, at_home).await?.verdict(ledger))
}

/// As [`read_streams`], without the judgement: for looks at single assets and clusters.
pub async fn tally_streams(streams: &[Stored<'_>], ledger: &Ledger, at_home: Option<AtHome>) -> Result<Tally> {
    let mut all = Vec::new();
    for (index, stored) in streams.iter().enumerate() {
        let cluster = u8::try_from(index).context("more than 255 clusters")?;
        let messages = read_stream(stored.nats, stored.stream).await;
        let messages =
            messages.with_context(|| format!("failed to read stream {} of {}", stored.stream, stored.cluster))?;
        all.extend(messages.into_iter().map(|message| (cluster, stored.cluster, message)));
    }
    Ok(tally_messages(all, ledger, at_home.as_ref()))
}

/// What a stream holds that a client of ours can read, for servers that the rig has not started.
pub async fn tally_stream_of(
    client: &async_nats::Client,
    cluster: &str,
    stream: &str,
    ledger: &Ledger,
) -> Result<Tally> {
    // Servers that have restarted may move a stream's leader once more. What was read until then says nothing.
    let messages = wait::value(READABLE, "the stream is read", || async {
        read_stream_of(client.clone(), stream).await.map(Some)
    });
    let messages = messages.await?;
    let all = messages.into_iter().map(|message| (0, cluster, message)).collect();
    Ok(tally_messages(all, ledger, None))
}

/// Messages with their cluster's number and name.
fn tally_messages(mut all: Vec<(u8, &str, Message)>, ledger: &Ledger, at_home: Option<&AtHome>) -> Tally {
    // A stream's own order is that of its sequence; the sort is stable and each stream's times never go back.
    all.sort_by_key(|(_, _, message)| message.at_ns);
    let mut tally = Tally::new(0);
    for (cluster, name, message) in &all {
        let at_us = u64::try_from(message.at_ns / 1_000).unwrap_or(0);
        let seen = Seen {
            subject: &message.subject,
            payload: &message.payload,
            cluster: *cluster,
            name,
            at_us,
        };
        count(&mut tally, ledger, at_home, &seen, at_us);
    }
    tally
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its body.
    pub payload: bytes::Bytes,
    /// Its headers.
    pub headers: async_nats::HeaderMap,
    /// When it was stored, in nanoseconds since 1970.
    pub at_ns: i128,
}

/// Everything that a stream holds, in its order.
pub async fn read_stream(nats: &Nats, stream: &str) -> Result<Vec<Message>> {
    read_stream_of(nats.client().await?, stream).await
}

async fn read_stream_of(client: async_nats::Client, stream: &str) -> Result<Vec<Message>> {
    let context = jetstream::new(client);
    let mut handle = context.get_stream(stream).await.context("failed to find the stream")?;
    let mut left = handle
        .info()
        .await
        .context("failed to ask for the stream")?
        .state
        .messages;
    let mut messages = Vec::new();
    if left == 0 {
        return Ok(messages);
    }
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::All,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = handle
        .create_consumer(config)
        .await
        .context("failed to create a consumer")?;
    while left > 0 {
        let mut batch = consumer
            .fetch()
            .max_messages(usize::try_from(left.min(10_000))?)
            .expires(Duration::from_secs(10))
            .messages()
            .await
            .context("failed to fetch")?;
        let before = left;
        while let Some(message) = batch.next().await {
            let message = message
                .map_err(|error| anyhow::anyhow!(error))
                .context("failed to fetch")?;
            let at_ns = message
                .info()
                .map_err(|error| anyhow::anyhow!(error))?
                .published
                .unix_timestamp_nanos();
            let inner = message.message;
            messages.push(Message {
                subject: inner.subject.to_string(),
                payload: inner.payload,
                headers: inner.headers.unwrap_or_default(),
                at_ns,
            });
            left = left.saturating_sub(1);
        }
        if left == before {
            bail!("the stream says it holds {left} more messages but yields none within 10 s");
        }
    }
    Ok(messages)
}

struct Seen<'a> {
    subject: &'a str,
    payload: &'a [u8],
    cluster: u8,
    name: &'a str,
    at_us: u64,
}

fn count(tally: &mut Tally, ledger: &Ledger, at_home: Option<&AtHome>, seen: &Seen<'_>, arrived_us: u64) {
    let Seen {
        subject,
        payload,
        cluster,
        name,
        at_us,
    } = *seen;
    // Requests to the server's own services and their answers pass by here too.
    // What announces the ring is no record either.
    if subject.starts_with('$') || subject.starts_with("_INBOX.") || subject.starts_with("_FANOUT.") {
        return;
    }
    let record = read_value(payload).and_then(|(key, n, sent_us)| Some((key, ledger.asset(key)?, n, sent_us)));
    let Some((key, asset, n, sent_us)) = record else {
        tally.unreadable(&format!("{subject} at {name}: {}", String::from_utf8_lossy(payload)));
        return;
    };
    // The body says whose it is; the subject must say the same.
    if !subject.split('.').any(|token| token == key) {
        tally.unreadable(&format!("a record of {key} under the subject {subject} at {name}"));
        return;
    }
    let at_home = at_home.is_none_or(|at_home| at_home(key, name));
    tally.observe(Delivery {
        asset,
        n,
        cluster,
        at_us,
        latency_us: arrived_us.checked_sub(sent_us),
        at_home,
    });
}

async fn wait_known(client: &async_nats::Client) -> Result<()> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, "".into()).await?;
    tokio::time::timeout(Duration::from_secs(10), echo.next())
        .await
        .context("no echo within 10 s")?;
    Ok(())
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
