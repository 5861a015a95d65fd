//! Records of assets as machines send them, given to Kafka in each asset's order and written into the ledger.

use std::collections::HashMap;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::kafka;
use crate::verdict::Ledger;

/// Each record's message ID, in turn within an asset.
pub const IDS: [&str; 6] = [
    "Temperature",
    "Vibration",
    "SpindleSpeed",
    "PathFeedrate",
    "Load",
    "Position",
];

/// Longest wait of the producer for its acknowledgements: a test may keep Kafka away for a while.
const PATIENCE: Duration = Duration::from_secs(300);

/// What kind of traffic.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of assets.
    pub assets: u32,
    /// What asset keys begin with; two traffics of one topic need two prefixes.
    pub prefix: String,
    /// Length of a record's value in bytes, at least about 100. Below 300 it has less to say: no attributes.
    pub value_bytes: usize,
    /// Whether batches are compressed with LZ4.
    pub lz4: bool,
    /// A Kafka header on each record.
    pub header: Option<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            assets: 100,
            prefix: "WTVB01".to_owned(),
            value_bytes: 300,
            lz4: false,
            header: None,
        }
    }
}

/// How much, and how fast.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// So many records; none: until stopped.
    pub records: Option<u64>,
    /// For so long; none: until stopped.
    pub lasting: Option<Duration>,
    /// Records per second; none: as fast as it goes.
    pub rate: Option<u32>,
}

/// A producer for one topic.
pub struct Traffic {
    shared: Arc<Shared>,
}

struct Shared {
    producer: ThreadedProducer<Receipts>,
    topic: String,
    plan: Plan,
    ledger: Arc<Ledger>,
    raw: Arc<RawReceipts>,
    // Where the round through the assets goes on.
    position: AtomicU32,
}

/// A record of a test's own, outside the count; by default all of it is absent.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a null value.
    pub value: Option<Vec<u8>>,
    /// The headers, in this order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// When it was made, in milliseconds since 1970; none: now.
    pub timestamp: Option<i64>,
    /// The partition; none: by the key.
    pub partition: Option<i32>,
}

/// Traffic that flows until it is stopped or its amount is reached.
pub struct Flow {
    stop: Arc<AtomicBool>,
    ended: oneshot::Receiver<Result<()>>,
}

struct Receipts {
    ledger: Arc<Ledger>,
    raw: Arc<RawReceipts>,
}

/// Records outside the count that wait for their acknowledgement.
#[derive(Default)]
struct RawReceipts {
    last: AtomicUsize,
    waiting: Mutex<HashMap<usize, oneshot::Sender<Result<(), KafkaError>>>>,
}

/// Opaque values of records outside the count begin here: no plan has so many assets.
const RAW: usize = 1 << 63;

impl RawReceipts {
    /// An opaque value of its own, and the word that comes for it.
    fn expect(&self) -> (usize, oneshot::Receiver<Result<(), KafkaError>>) {
        let opaque = RAW | self.last.fetch_add(1, Ordering::AcqRel);
        let (told, receipt) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(opaque, told);
        (opaque, receipt)
    }

    fn tell(&self, opaque: usize, result: Result<(), KafkaError>) {
        let told = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&opaque);
        if let Some(told) = told {
            // Nobody listens any more if the test gave up waiting.
            drop(told.send(result));
        }
    }
}

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(_) if opaque & RAW != 0 => self.raw.tell(opaque, Ok(())),
            Err((error, _)) if opaque & RAW != 0 => self.raw.tell(opaque, Err(error.clone())),
            Ok(_) => self.ledger.acknowledge(),
            Err(_) => self.ledger.refuse((opaque >> 32) as u32, (opaque & 0xffff_ffff) as u32),
        }
    }
}

impl Traffic {
    /// Connects to a broker for a topic that exists.
    pub fn new(bootstrap: &str, topic: &str, plan: Plan) -> Result<Self> {
        let ledger = Arc::new(Ledger::new(&plan.prefix, plan.assets));
        let mut config = kafka::client(bootstrap);
        config
            // Without these two, the traffic itself could lose, repeat or swap records.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .set("linger.ms", "5")
            // As much as a broker takes by default, and Java's producers send: librdkafka's own default is less.
            .set("message.max.bytes", "1048588")
            .set("queue.buffering.max.messages", "100000")
            .set("compression.type", if plan.lz4 { "lz4" } else { "none" });
        let raw = Arc::new(RawReceipts::default());
        let producer = config
            .create_with_context(Receipts {
                ledger: Arc::clone(&ledger),
                raw: Arc::clone(&raw),
            })
            .with_context(|| format!("failed to make a producer for {bootstrap}"))?;
        let shared = Shared {
            producer,
            topic: topic.to_owned(),
            plan,
            ledger,
            raw,
            position: AtomicU32::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What was sent so far.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// Sends so many records, as fast as it goes, the assets in turn; returns when Kafka has acknowledged all.
    pub async fn send(&self, records: u64) -> Result<()> {
        self.start(Amount {
            records: Some(records),
            ..Amount::default()
        })?
        .finish()
        .await
    }

    /// Starts to send on a thread of its own.
    pub fn start(&self, amount: Amount) -> Result<Flow> {
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let (shared, stopping) = (Arc::clone(&self.shared), Arc::clone(&stop));
        thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || {
                // Nobody waits for a flow that was dropped.
                drop(end.send(shared.run(amount, &stopping)));
            })
            .context("failed to start a thread")?;
        Ok(Flow { stop, ended })
    }

    /// Sends one record of an asset's own, outside the count: for invalid records. `None` is a null value.
    pub async fn send_raw(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.send_record(Raw {
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            ..Raw::default()
        })
        .await
    }

    /// Sends one record as it stands; returns when Kafka has acknowledged it, also while a [`Flow`] of this traffic goes on.
    pub async fn send_record(&self, raw: Raw) -> Result<()> {
        let (opaque, receipt) = self.shared.raw.expect();
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.shared.topic, opaque);
        record.key = raw.key.as_deref();
        record.payload = raw.value.as_deref();
        record.timestamp = raw.timestamp;
        record.partition = raw.partition;
        if !raw.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(raw.headers.len());
            record = record.headers(raw.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: value.as_deref(),
                })
            }));
        }
        if let Err((error, _)) = self.shared.producer.send(record) {
            self.shared.raw.tell(opaque, Err(error));
        }
        // Not a flush: beside a flow it would wait for the records that come after, for ever.
        receipt
            .await
            .context("the producer has dropped a record")?
            .with_context(|| format!("Kafka did not acknowledge a record of {}", self.shared.topic))
    }
}

impl Flow {
    /// Stops it; returns when Kafka has acknowledged all that was sent.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        self.finish().await
    }

    /// Waits until its amount is reached and Kafka has acknowledged all.
    pub async fn finish(mut self) -> Result<()> {
        (&mut self.ended).await.context("the traffic's thread has died")?
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Shared {
    fn run(&self, amount: Amount, stop: &AtomicBool) -> Result<()> {
        let started = Instant::now();
        let mut value = String::with_capacity(self.plan.value_bytes + 64);
        let mut sent = 0;
        while amount.records.is_none_or(|records| sent < records)
            && amount.lasting.is_none_or(|lasting| started.elapsed() < lasting)
            && !stop.load(Ordering::Acquire)
        {
            if let Some(rate) = amount.rate {
                // By the time since the start, so that a pause is made up for and the rate holds on average.
                let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                if sent >= due {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
            }
            self.send_next(&mut value, stop)?;
            sent += 1;
        }
        self.flush()
    }

    fn send_next(&self, value: &mut String, stop: &AtomicBool) -> Result<()> {
        let asset = self.position.fetch_add(1, Ordering::AcqRel) % self.plan.assets;
        let key = self.ledger.key(asset);
        let n = self.ledger.take(asset);
        write_value(value, &key, n, self.plan.value_bytes);
        let opaque = ((asset as usize) << 32) | n as usize;
        let mut record = BaseRecord::with_opaque_to(&self.topic, opaque)
            .key(&key)
            .payload(value.as_str());
        if let Some((key, value)) = &self.plan.header {
            record = record.headers(OwnedHeaders::new().insert(Header {
                key,
                value: Some(value),
            }));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !stop.load(Ordering::Acquire) =>
                {
                    record = back;
                    thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    self.ledger.give_back(asset);
                    if stop.load(Ordering::Acquire) {
                        return Ok(());
                    }
                    return Err(anyhow!(error).context(format!("failed to give a record to Kafka for {}", self.topic)));
                }
            }
        }
    }

    fn flush(&self) -> Result<()> {
        self.producer
            .flush(PATIENCE)
            .with_context(|| format!("Kafka did not acknowledge all records of {}", self.topic))
    }
}

/// Values below this say no more than the observer needs.
const FULL_VALUE: usize = 300;

/// Writes a record's value: `n` is its number within the asset, `sent_us` the time, both for the observer.
pub fn write_value(value: &mut String, key: &str, n: u32, length: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = IDS[n as usize % IDS.len()];
    let sent_us = now.as_micros();
    value.clear();
    if length < FULL_VALUE {
        value.push_str(&format!(
            r#"{{"ID": "{id}", "asset_uuid": "{key}", "n": {n}, "sent_us": {sent_us}"#
        ));
        value.extend(iter::repeat_n(' ', length.saturating_sub(value.len() + 1)));
        value.push('}');
        return;
    }
    let (second, milli) = (now.as_secs() % 86_400, now.subsec_millis());
    value.push_str(&format!(
        r#"{{"ID": "{id}", "VALUE": "{}.{:03}", "type": "Samples", "asset_uuid": "{key}", "n": {n}, "sent_us": {sent_us}, "attributes": {{"timestamp": "2026-01-01T{:02}:{:02}:{:02}.{milli:03}Z", "tag": "{id}", "subType": "ACTUAL", "units": "none""#,
        20 + n % 60,
        n % 1000,
        second / 3600,
        second / 60 % 60,
        second % 60,
    ));
    value.push_str(r#", "note": ""#);
    value.extend(iter::repeat_n('x', length.saturating_sub(value.len() + r#""}}"#.len())));
    value.push_str(r#""}}"#);
}

/// Reads a record's key, number and time of sending out of a value, before or after the forwarder edited it.
pub fn read_value(value: &[u8]) -> Option<(&str, u32, u64)> {
    let after = |name: &str| memchr::memmem::find(value, name.as_bytes()).and_then(|at| value.get(at + name.len()..));
    let number = |text: &[u8]| {
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(text.get(..digits)?).ok()?.parse::<u64>().ok()
    };
    let key = after(r#""asset_uuid": ""#)?;
    let key = std::str::from_utf8(key.get(..memchr::memchr(b'"', key)?)?).ok()?;
    let n = number(after(r#""n": "#)?)?;
    Some((key, u32::try_from(n).ok()?, number(after(r#""sent_us": "#)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_of_the_length_asked_for_and_can_be_read_back() {
        let mut value = String::new();
        for (n, length) in [
            (0, 300),
            (5, 300),
            (123_456, 300),
            (0, 100),
            (2, 100),
            (999_999, 100),
            (1, 100_000),
        ] {
            write_value(&mut value, "WTVB01-0042", n, length);
            assert_eq!(value.len(), length, "{value}");
            let tree: serde_json::Value = serde_json::from_str(&value).unwrap();
            assert_eq!(tree["n"], n);
            assert_eq!(tree["ID"], IDS[n as usize % IDS.len()]);
            let (key, read, sent_us) = read_value(value.as_bytes()).unwrap();
            assert_eq!((key, read), ("WTVB01-0042", n));
            assert_eq!(tree["sent_us"], sent_us);
        }
    }

    #[test]
    fn what_is_no_record_reads_as_none() {
        for value in [
            "",
            "{}",
            r#"{"asset_uuid": "a", "n": -1, "sent_us": 1}"#,
            r#"{"asset_uuid": "a"#,
        ] {
            assert_eq!(read_value(value.as_bytes()), None, "{value}");
        }
    }
}
