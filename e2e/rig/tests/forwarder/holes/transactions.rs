//! Transactions: what was aborted never arrives, what is open holds back what is behind it, and the records that say so take offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::{Kafka, unique};
use e2e_rig::stage::{PARTITIONS, SOON, Stage};
use e2e_rig::traffic::{read_value, write_value};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

const ASSETS: u32 = 60;

/// For one step of a transaction, on a machine that is busy.
const STEP: Duration = Duration::from_secs(30);

/// A producer with transactions of its own.
struct Transactional {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Transactional {
    async fn new(kafka: &Kafka, topic: &str) -> Self {
        let mut config = kafka.client();
        config
            .set("transactional.id", unique("transactions"))
            .set("linger.ms", "5");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
        let this = Self {
            producer,
            topic: topic.to_owned(),
        };
        this.blocking(|producer| producer.init_transactions(STEP)).await;
        this
    }

    /// Begins a transaction and sends record `n` of each asset in it.
    async fn begin(&self, n: u32) {
        self.producer.begin_transaction().unwrap();
        let mut value = String::new();
        for asset in 0..ASSETS {
            let key = key(asset);
            write_value(&mut value, &key, n, 300);
            let record = BaseRecord::to(&self.topic)
                .key(&key)
                .payload(value.as_str())
                .partition(partition(asset));
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.blocking(|producer| producer.flush(STEP)).await;
    }

    async fn commit(&self) {
        self.blocking(|producer| producer.commit_transaction(STEP)).await;
    }

    async fn abort(&self) {
        self.blocking(|producer| producer.abort_transaction(STEP)).await;
    }

    async fn blocking(
        &self,
        step: impl FnOnce(&ThreadedProducer<DefaultProducerContext>) -> rdkafka::error::KafkaResult<()> + Send + 'static,
    ) {
        let producer = self.producer.clone();
        tokio::task::spawn_blocking(move || step(&producer))
            .await
            .unwrap()
            .unwrap();
    }
}

fn key(asset: u32) -> String {
    format!("TRAN01-{asset:04}")
}

fn partition(asset: u32) -> i32 {
    (asset % PARTITIONS.unsigned_abs()).cast_signed()
}

/// The numbers that have arrived, by asset, in the order of their arrival.
async fn arrived(stage: &Stage) -> BTreeMap<String, Vec<u32>> {
    let mut arrived: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for message in [stage.stored(0).await, stage.stored(1).await].concat() {
        let (key, n, _) = read_value(&message.payload).unwrap();
        arrived.entry(key.to_owned()).or_default().push(n);
    }
    arrived
}

fn each(numbers: &[u32]) -> BTreeMap<String, Vec<u32>> {
    (0..ASSETS).map(|asset| (key(asset), numbers.to_vec())).collect()
}

async fn wait_arrived(stage: &Stage, numbers: &[u32]) {
    wait::eventually(
        SOON,
        &format!("records {numbers:?} of each asset have arrived"),
        || async {
            let arrived = arrived(stage).await;
            ensure!(arrived == each(numbers), "{arrived:?}");
            Ok(true)
        },
    )
    .await
    .unwrap();
}

/// How long a transaction stays open. The fault itself, not a wait for luck.
const OPEN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn aborted_records_never_arrive_and_an_open_transaction_holds_back_what_is_behind_it() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let one = Transactional::new(&stage.kafka, &stage.topic).await;
    let two = Transactional::new(&stage.kafka, &stage.topic).await;
    // Two at a time: the records of one that is aborted lie among those of one that is not.
    one.begin(0).await;
    two.begin(1).await;
    one.commit().await;
    one.begin(2).await;
    two.abort().await;
    one.commit().await;
    let mut forwarder = stage.start("forwarder", &stage.config()).await;
    wait_arrived(&stage, &[0, 2]).await;

    two.begin(3).await;
    one.begin(4).await;
    one.commit().await;
    tokio::time::sleep(OPEN).await;
    assert_eq!(
        arrived(&stage).await,
        each(&[0, 2]),
        "what is committed behind an open transaction must wait for it"
    );
    two.commit().await;
    wait_arrived(&stage, &[0, 2, 3, 4]).await;

    // Begun before a restart, ended after it.
    two.begin(5).await;
    one.begin(6).await;
    one.commit().await;
    assert!(forwarder.terminate(SOON).await.unwrap().success());
    let forwarder = stage.start("again", &stage.config()).await;
    two.abort().await;
    wait_arrived(&stage, &[0, 2, 3, 4, 6]).await;
    let missing = forwarder
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_missing_offsets_total", &[]);
    assert_eq!(missing, 0.0);
}

/// The last offsets of the log are records of an aborted transaction and the marks of its end: nothing that could be forwarded, so nothing
/// that could be missing.
#[tokio::test]
async fn the_end_of_an_aborted_transaction_is_committed_and_is_no_lag() {
    let (stage, mut forwarder) = ends_in_marks().await;
    wait::eventually(SOON, "the forwarder sees no lag", || async {
        let lag = forwarder.metrics().await?.sum("asset_forwarder_lag", &[]);
        ensure!(lag == 0.0, "it says {lag}");
        Ok(true)
    })
    .await
    .unwrap();
    stage.wait_committed().await;
    // All of it expires while nobody runs. The group had read it all, so that is no fault.
    assert!(forwarder.terminate(SOON).await.unwrap().success());
    let ends = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    for (partition, end) in ends.iter().enumerate() {
        let partition = i32::try_from(partition).unwrap();
        stage.kafka.delete_records(&stage.topic, partition, *end).await.unwrap();
    }
    let after = stage.start("after", &stage.config()).await;
    stage.traffic.send(1_000).await.unwrap();
    stage.wait_published(&after, 0.0).await;
    stage.wait_committed().await;
    let missing = after
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_missing_offsets_total", &[]);
    assert_eq!(missing, 0.0, "nothing is missing");
}

/// Partitions whose last record that counts is followed by an aborted one and marks.
async fn ends_in_marks() -> (Stage, Forwarder) {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let producer = Transactional::new(&stage.kafka, &stage.topic).await;
    producer.begin(0).await;
    producer.commit().await;
    let forwarder = stage.start("forwarder", &stage.config()).await;
    producer.begin(1).await;
    producer.abort().await;
    wait_arrived(&stage, &[0]).await;
    (stage, forwarder)
}
