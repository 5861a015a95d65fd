//! A Kafka broker of a test's own, or the one that the whole run shares; and what tests ask of a broker.

mod secure;
pub mod segment;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use e2e::broker::{Broker, Listener, Setup};
use e2e::port::Port;
use e2e::process::Process;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::GroupInfo;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::wait;

pub use self::secure::{Door, Mechanism, Secured, unsecured_token};

/// The environment variable by which the runner names the broker that all tests of a run share.
pub const SHARED_VARIABLE: &str = "FANOUT_E2E_KAFKA";

/// For one request to a broker that is up, on a machine that is busy.
const REQUEST: Duration = Duration::from_secs(20);

/// From listening to answering: the node registers with itself.
const READY: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A further listener with credentials; see [`Kafka::secured`].
    pub door: Option<Door>,
    /// The address of a proxy that stands before the broker: a further listener tells clients to come back through it. The proxy's target is
    /// [`Kafka::behind_proxy`].
    pub proxied: Option<String>,
    /// Where it listens, if not on 127.0.0.1: an address of this machine that pods reach.
    pub host: Option<Ipv4Addr>,
    /// Properties of the server.
    pub properties: Vec<(String, String)>,
    /// Heap in MiB; 0: 512.
    pub heap_mb: u32,
}

/// A broker. One that was started here ends when this is dropped; the shared one is only looked at.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    own: Option<Own>,
    secured: Option<Secured>,
    behind_proxy: Option<String>,
}

/// A second broker beside a test's own one. It ends when this is dropped.
#[derive(Debug)]
pub struct SecondBroker {
    // Before its files.
    broker: Broker,
    _dir: TempDir,
}

impl SecondBroker {
    /// Its node id.
    pub const ID: i32 = 2;

    /// SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.broker.process().kill9()
    }

    /// Starts it again on the same ports and data.
    pub fn start_again(&mut self) -> Result<()> {
        self.broker.start_again()
    }
}

#[derive(Debug)]
struct Own {
    // A lock, because starting blocks and therefore happens on a thread for that.
    broker: Arc<Mutex<Broker>>,
    // After the broker: it must have ended when its files go.
    dir: TempDir,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read; none: nothing committed.
    pub offset: Option<i64>,
    /// The text committed with it.
    pub metadata: String,
}

impl Kafka {
    /// The broker of this run, if the runner has started one, else one of the test's own. Topics and groups need names of their own: [`unique`].
    pub async fn shared() -> Result<Self> {
        match std::env::var(SHARED_VARIABLE) {
            Ok(bootstrap) if !bootstrap.is_empty() => {
                let kafka = Self {
                    bootstrap,
                    own: None,
                    secured: None,
                    behind_proxy: None,
                };
                kafka
                    .wait_ready()
                    .await
                    .with_context(|| format!("the broker that {SHARED_VARIABLE} names"))?;
                Ok(kafka)
            }
            _ => Self::start().await,
        }
    }

    /// Starts one with a plain listener.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one and waits until it answers.
    pub async fn start_with(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-kafka-")
            .tempdir()
            .context("failed to make a directory")?;
        let mut setup = Setup {
            plain: options.host.map(Port::reserve_at).transpose()?,
            properties: options.properties,
            heap_mb: options.heap_mb,
            ..Setup::default()
        };
        let prepared = options
            .door
            .map(|door| secure::prepare(door, dir.path(), &mut setup))
            .transpose()?;
        if options.proxied.is_some() {
            setup.listeners.push(Listener {
                name: "PROXIED".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                advertised: options.proxied,
            });
        }
        let place = dir.path().join("broker");
        let broker = tokio::task::spawn_blocking(move || Broker::start(&place, setup)).await??;
        let secured = match prepared {
            Some(prepared) => {
                let address = broker
                    .listener(secure::LISTENER)
                    .ok_or_else(|| anyhow!("the broker has no secured listener"))?;
                Some(prepared.at(address))
            }
            None => None,
        };
        let kafka = Self {
            bootstrap: broker.address(),
            secured,
            behind_proxy: broker.listener("PROXIED"),
            own: Some(Own {
                broker: Arc::new(Mutex::new(broker)),
                dir,
            }),
        };
        kafka.wait_ready().await?;
        Ok(kafka)
    }

    /// Starts a second broker beside one of the test's own.
    pub async fn start_second(&self) -> Result<SecondBroker> {
        let beside = self
            .own()?
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .controller();
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-kafka-second-")
            .tempdir()
            .context("failed to make a directory")?;
        let place = dir.path().join("broker");
        let setup = Setup {
            beside: Some(beside),
            ..Setup::default()
        };
        let broker = tokio::task::spawn_blocking(move || Broker::start(&place, setup)).await??;
        wait::eventually(READY, "the second broker is of the cluster", || async {
            let config = self.client();
            blocking(move || {
                let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
                Ok(consumer.fetch_metadata(None, REQUEST)?.brokers().len() == 2)
            })
            .await
        })
        .await?;
        Ok(SecondBroker { broker, _dir: dir })
    }

    /// `host:port` of the plain listener.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The listener with credentials, if [`Options::door`] asked for one.
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.as_ref()
    }

    /// Where a proxy must connect to, if [`Options::proxied`] announced one.
    pub fn behind_proxy(&self) -> Option<&str> {
        self.behind_proxy.as_deref()
    }

    /// The directory of a broker of the test's own: configuration, log, data.
    pub fn dir(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.dir.path())
    }

    /// A configuration for the rig's own clients.
    pub fn client(&self) -> ClientConfig {
        client(&self.bootstrap)
    }

    /// Makes a topic and waits until the broker serves it. `config` are topic properties such as `("retention.ms", "1000")`.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let results = self.admin()?.create_topics([&topic], &options()).await;
        checked(results.with_context(|| format!("failed to create topic {name}"))?)?;
        self.wait_partitions(name, partitions).await
    }

    /// Makes a topic whose partitions are on these brokers, in their order.
    pub async fn create_topic_on(&self, name: &str, brokers: &[i32]) -> Result<()> {
        let replicas: Vec<&[i32]> = brokers.iter().map(std::slice::from_ref).collect();
        let partitions = i32::try_from(brokers.len())?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Variable(&replicas));
        let results = self.admin()?.create_topics([&topic], &options()).await;
        checked(results.with_context(|| format!("failed to create topic {name}"))?)?;
        self.wait_partitions(name, partitions).await
    }

    /// Waits until a partition is without a leader, or has one.
    pub async fn wait_led(&self, topic: &str, partition: i32, led: bool) -> Result<()> {
        wait::eventually(READY, &format!("{topic}/{partition} has a leader: {led}"), || async {
            let (config, topic) = (self.client(), topic.to_owned());
            blocking(move || {
                let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
                let metadata = consumer.fetch_metadata(Some(&topic), REQUEST)?;
                let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                let found = partitions.find(|found| found.id() == partition);
                Ok(found.is_some_and(|found| (found.leader() >= 0) == led))
            })
            .await
        })
        .await
    }

    /// Makes a topic of a name that nobody else uses and yields the name.
    pub async fn topic(&self, stem: &str, partitions: i32) -> Result<String> {
        let name = unique(stem);
        self.create_topic(&name, partitions, &[]).await?;
        Ok(name)
    }

    /// Gives a topic more partitions.
    pub async fn add_partitions(&self, topic: &str, total: i32) -> Result<()> {
        let more = NewPartitions::new(topic, usize::try_from(total)?);
        let results = self.admin()?.create_partitions([&more], &options()).await;
        checked(results.with_context(|| format!("failed to add partitions to {topic}"))?)?;
        self.wait_partitions(topic, total).await
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let results = self.admin()?.delete_topics(&[topic], &options()).await;
        checked(results.with_context(|| format!("failed to delete topic {topic}"))?)?;
        wait::eventually(READY, &format!("topic {topic} is gone"), || async {
            Ok(self.partitions(topic).await.unwrap_or(0) == 0)
        })
        .await
    }

    /// Deletes a partition's records before `before`: what retention does, at once.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let result = self.admin()?.delete_records(&offsets, &options()).await;
        let result = result.with_context(|| format!("failed to delete records of {topic}/{partition}"))?;
        result.elements().iter().try_for_each(|element| {
            element
                .error()
                .with_context(|| format!("failed to delete records of {topic}/{partition} before {before}"))
        })
    }

    /// The offset after the last record, of each partition.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<i64>> {
        Ok(self.watermarks(topic).await?.into_iter().map(|(_, end)| end).collect())
    }

    /// The first offset and the one after the last record, of each partition.
    pub async fn watermarks(&self, topic: &str) -> Result<Vec<(i64, i64)>> {
        let partitions = self.partitions(topic).await?;
        let (config, topic) = (self.client(), topic.to_owned());
        blocking(move || {
            let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
            (0..partitions)
                .map(|partition| {
                    consumer
                        .fetch_watermarks(&topic, partition, REQUEST)
                        .with_context(|| format!("failed to ask for the end of {topic}/{partition}"))
                })
                .collect()
        })
        .await
    }

    /// What a group has committed, for each partition of a topic.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        let partitions = self.partitions(topic).await?;
        let (mut config, topic, group) = (self.client(), topic.to_owned(), group.to_owned());
        blocking(move || {
            // It only asks: it never subscribes, so it does not become a member of the group.
            let consumer: BaseConsumer = config
                .set("group.id", &group)
                .create()
                .context("failed to make a consumer")?;
            let mut asked = TopicPartitionList::new();
            for partition in 0..partitions {
                asked.add_partition(&topic, partition);
            }
            let answer = consumer
                .committed_offsets(asked, REQUEST)
                .with_context(|| format!("failed to ask what {group} has committed of {topic}"))?;
            let mut elements = answer.elements();
            elements.sort_by_key(|element| element.partition());
            Ok(elements
                .iter()
                .map(|element| Committed {
                    offset: match element.offset() {
                        Offset::Offset(offset) => Some(offset),
                        _ => None,
                    },
                    metadata: element.metadata().to_owned(),
                })
                .collect())
        })
        .await
    }

    /// How many records of a topic a group has not committed yet, counting a partition without a commit from its first record.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<i64> {
        let committed = self.committed(group, topic).await?;
        let marks = self.watermarks(topic).await?;
        Ok(marks
            .iter()
            .zip(&committed)
            .map(|((first, end), committed)| end - committed.offset.map_or(*first, |offset| offset.max(*first)))
            .sum())
    }

    /// Commits offsets for a group that has no members: `(partition, offset)`.
    pub async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let (mut config, topic, group, offsets) = (self.client(), topic.to_owned(), group.to_owned(), offsets.to_vec());
        blocking(move || {
            let consumer: BaseConsumer = config
                .set("group.id", &group)
                .create()
                .context("failed to make a consumer")?;
            let mut list = TopicPartitionList::new();
            for (partition, offset) in offsets {
                list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            }
            consumer
                .commit(&list, rdkafka::consumer::CommitMode::Sync)
                .with_context(|| format!("failed to commit offsets of {topic} for {group}"))
        })
        .await
    }

    /// As [`Kafka::commit`], with a text each: `(partition, offset, metadata)`.
    pub async fn commit_with(&self, group: &str, topic: &str, commits: &[(i32, i64, String)]) -> Result<()> {
        let (mut config, topic, group, commits) = (self.client(), topic.to_owned(), group.to_owned(), commits.to_vec());
        blocking(move || {
            let consumer: BaseConsumer = config
                .set("group.id", &group)
                .create()
                .context("failed to make a consumer")?;
            let mut list = TopicPartitionList::new();
            for (partition, offset, metadata) in commits {
                let mut element = list.add_partition(&topic, partition);
                element.set_offset(Offset::Offset(offset))?;
                element.set_metadata(metadata);
            }
            consumer
                .commit(&list, rdkafka::consumer::CommitMode::Sync)
                .with_context(|| format!("failed to commit offsets of {topic} for {group}"))
        })
        .await
    }

    /// How many members a group has, as the broker sees it.
    pub async fn members(&self, group: &str) -> Result<usize> {
        self.ask_of_group(group, |found| found.map_or(0, |found| found.members().len()))
            .await
    }

    /// The state of a group, in the broker's words; empty, if there is none.
    pub async fn group_state(&self, group: &str) -> Result<String> {
        self.ask_of_group(group, |found| {
            found.map(|found| found.state().to_owned()).unwrap_or_default()
        })
        .await
    }

    async fn ask_of_group<T: Send + 'static>(
        &self,
        group: &str,
        what: impl FnOnce(Option<&GroupInfo>) -> T + Send + 'static,
    ) -> Result<T> {
        let (config, group) = (self.client(), group.to_owned());
        blocking(move || {
            let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
            let list = consumer
                .fetch_group_list(Some(&group), REQUEST)
                .with_context(|| format!("failed to ask for the members of {group}"))?;
            Ok(what(list.groups().iter().find(|found| found.name() == group)))
        })
        .await
    }

    /// How many partitions a topic has; 0: there is no such topic.
    pub async fn partitions(&self, topic: &str) -> Result<i32> {
        let (config, topic) = (self.client(), topic.to_owned());
        blocking(move || {
            let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
            let metadata = consumer
                .fetch_metadata(Some(&topic), REQUEST)
                .with_context(|| format!("failed to ask for the partitions of {topic}"))?;
            let count = metadata
                .topics()
                .iter()
                .find(|found| found.name() == topic)
                .map_or(0, |found| found.partitions().len());
            Ok(i32::try_from(count)?)
        })
        .await
    }

    /// SIGKILL to a broker of the test's own.
    pub fn kill9(&self) -> Result<()> {
        self.process(Process::kill9)
    }

    /// SIGTERM to a broker of the test's own, and waits for its end.
    pub fn shut_down(&self) -> Result<()> {
        self.process(|process| {
            process.terminate()?;
            process.wait_exit(READY).map(drop)
        })
    }

    /// SIGSTOP to a broker of the test's own.
    pub fn pause(&self) -> Result<()> {
        self.process(Process::stop)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process(Process::cont)
    }

    /// Starts a broker of the test's own again on the same ports and data, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let broker = Arc::clone(&self.own()?.broker);
        tokio::task::spawn_blocking(move || broker.lock().unwrap_or_else(PoisonError::into_inner).start_again())
            .await??;
        self.wait_ready().await
    }

    /// Gives the user of [`Kafka::secured`] another password for SCRAM-SHA-512. Connections that are there stay.
    pub async fn set_password(&self, password: &str) -> Result<()> {
        let broker = Arc::clone(&self.own()?.broker);
        let secured = self
            .secured
            .as_ref()
            .ok_or_else(|| anyhow!("the broker asks for no password"))?;
        let (user, password) = (secured.username.clone(), password.to_owned());
        tokio::task::spawn_blocking(move || {
            let broker = broker.lock().unwrap_or_else(PoisonError::into_inner);
            broker.set_password(Mechanism::ScramSha512.name(), &user, &password)
        })
        .await?
    }

    /// Ends it in good order and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.shut_down()?;
        self.start_again().await
    }

    fn own(&self) -> Result<&Own> {
        self.own
            .as_ref()
            .ok_or_else(|| anyhow!("the shared broker is not this test's to end: use Kafka::start"))
    }

    fn process<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        act(self
            .own()?
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .process())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.client().create().context("failed to make an admin client")
    }

    async fn wait_ready(&self) -> Result<()> {
        let ready = wait::eventually(READY, &format!("Kafka at {} answers", self.bootstrap), || async {
            let config = self.client();
            blocking(move || {
                let consumer: BaseConsumer = config.create().context("failed to make a consumer")?;
                let metadata = consumer
                    .fetch_metadata(None, Duration::from_secs(5))
                    .context("no metadata")?;
                Ok(!metadata.brokers().is_empty())
            })
            .await
        })
        .await;
        match &self.own {
            Some(_) => ready.with_context(|| self.process(|process| Ok(process.log_tail())).unwrap_or_default()),
            None => ready,
        }
    }

    async fn wait_partitions(&self, topic: &str, count: i32) -> Result<()> {
        wait::eventually(
            READY,
            &format!("topic {topic} has {count} partitions that are led"),
            || async {
                // Watermarks are asked of the leaders, so they tell that there are some.
                Ok(self.watermarks(topic).await?.len() == usize::try_from(count)?)
            },
        )
        .await
    }
}

/// A name that no other test of this machine uses now: the stem, the process id and a count.
pub fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Process ids come around again within the life of a shared broker; with the time they do not.
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis());
    format!(
        "{stem}-{}-{:x}-{}",
        std::process::id(),
        millis & 0xfff_ffff,
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A configuration for a client of the rig's own at this address.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // localhost has two addresses on many machines; the broker listens on one.
        .set("broker.address.family", "v4")
        // A broker that was just started is tried again at once, not after the default of up to 10 s.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        // The default level writes lines about each broker restart to stderr: tests restart brokers.
        .set("log_level", "2");
    config
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST))
        .operation_timeout(Some(REQUEST))
}

fn checked(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<()> {
    for result in results {
        if let Err((topic, code)) = result {
            bail!("the broker refused it for topic {topic}: {code}");
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread of the rig ended early")?
}
