//! The document from the environment variables of the original container.
//!
//! A variable that is set but blank counts as not set: Compose files pass `${NAME:-}`. The exception is
//! `NATS_CLUSTER_<NAME>`: a member that silently leaves the ring would move its assets, so that is a fault.
//! A member's name is what follows the prefix, as it is written.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::check::Checked;
use super::fault::{ConfigErrors, Fault};
use super::process::{Admin, Engine, LogLevel, Logging};
use super::{Cluster, Config, KafkaConnection, MissingOffset, Publish, RingConfig, Source, StartFrom};

/// The prefix of the members' variables.
const CLUSTER: &str = "NATS_CLUSTER_";

/// The most that `KAFKA_CONSUMER_COMMIT_INTERVAL_MS` can ask for: the answers to commits prove the membership,
/// and a session of ten seconds must hold several.
const MAX_COMMIT_INTERVAL_MS: u64 = 3_000;

/// What the original's deployments set, and what is taken without effect.
const WITHOUT_EFFECT: &[&str] = &[
    "ASSET_FORWARDER_CONCURRENCY",
    "ASSET_FORWARDER_LOG_LEVEL",
    "TASK_SLOT",
    "KSQLDB_URL",
    "OPENFACTORY_ROOT_PATH",
];

/// What a person should know about the environment although it is not a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Variables of the original's deployments that do nothing here.
    WithoutEffect(Vec<String>),
    /// Variables that look like ours but are unknown.
    Unknown(Vec<String>),
    /// Variables that Kubernetes sets for a Service whose name begins like ours.
    KubernetesService(Vec<String>),
    /// A value that is too large for the promises, and the value that is used.
    Lowered {
        /// The variable.
        variable: &'static str,
        /// What it says.
        from: u64,
        /// What is used.
        to: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithoutEffect(names) => write!(f, "without effect here: {}", names.join(", ")),
            Self::Unknown(names) => write!(f, "not known, perhaps misspelt: {}", names.join(", ")),
            Self::KubernetesService(names) => {
                write!(
                    f,
                    "ignored, because a Kubernetes Service sets such variables: {}",
                    names.join(", ")
                )
            }
            Self::Lowered { variable, from, to } => write!(f, "{variable} is {from}, which is too large; using {to}"),
        }
    }
}

/// Makes a document of the variables alone.
///
/// # Errors
/// Every fault, by the name of its variable.
pub fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(Checked, Vec<Notice>), ConfigErrors> {
    let mut variables = Variables::new(variables);
    let config = variables.config();
    variables.notice_the_rest();
    let Variables {
        all: _,
        used: _,
        mut faults,
        notices,
    } = variables;
    let clusters: Vec<_> = config
        .ring
        .clusters
        .iter()
        .map(|cluster| format!("{CLUSTER}{}", cluster.name))
        .collect();
    let checked = match config.checked_from_environment() {
        Ok(checked) => checked,
        Err(wrong) => {
            for fault in wrong.renamed(|path| variable_of(path, &clusters)).faults() {
                // A value that could not be read stands at its default, and is no fault twice.
                if !faults.iter().any(|other| other.path == fault.path) {
                    faults.push(fault.clone());
                }
            }
            return Err(ConfigErrors::of(faults));
        }
    };
    ConfigErrors::from_faults(faults)?;
    Ok((checked, notices))
}

/// Makes only the ring and the logging of the variables, for a router without Kafka.
///
/// # Errors
/// Every fault of theirs, by the name of its variable.
pub fn ring_from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(RingConfig, Logging), ConfigErrors> {
    let mut all: BTreeMap<_, _> = variables.into_iter().collect();
    // What is said of Kafka is for another process: no fault here, whatever it is.
    all.retain(|name, _| !name.starts_with("KAFKA_") && !name.starts_with("ASSET_FORWARDER_") && name != "PORT");
    all.insert("KAFKA_BROKER".to_owned(), "none".to_owned());
    let (config, _) = from_environment(all)?;
    let Config { ring, logging, .. } = config.into_inner();
    Ok((ring, logging))
}

/// Fills in who this process is, if the document does not say it: many pods run one document.
pub fn identify(admin: &mut Admin, variables: &BTreeMap<String, String>) {
    let first = |names: &[&str], default: &str| {
        let value = names
            .iter()
            .filter_map(|name| variables.get(*name))
            .map(|value| value.trim());
        value
            .into_iter()
            .find(|value| !value.is_empty())
            .unwrap_or(default)
            .to_owned()
    };
    let Admin {
        address: _,
        port: _,
        forwarder,
        version,
        node,
        credentials_version_file: _,
    } = admin;
    forwarder.get_or_insert_with(|| first(&["APP_UUID", "HOSTNAME"], "unknown"));
    version.get_or_insert_with(|| first(&["APPLICATION_VERSION"], "UNKNOWN"));
    node.get_or_insert_with(|| first(&["NODE_HOSTNAME"], "unknown"));
}

struct Variables {
    all: BTreeMap<String, String>,
    used: BTreeSet<String>,
    faults: Vec<Fault>,
    notices: Vec<Notice>,
}

impl Variables {
    fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut this = Self {
            all: variables.into_iter().collect(),
            used: BTreeSet::new(),
            faults: Vec::new(),
            notices: Vec::new(),
        };
        let of_services: Vec<_> = this
            .all
            .keys()
            .filter(|name| this.is_of_service(name))
            .cloned()
            .collect();
        this.used.extend(of_services.iter().cloned());
        if of_services.iter().any(|name| is_ours(name)) {
            let names = of_services.into_iter().filter(|name| is_ours(name)).collect();
            this.notices.push(Notice::KubernetesService(names));
        }
        this
    }

    /// A Service `nats-cluster-c1` gives each pod beside it `NATS_CLUSTER_C1_SERVICE_HOST`, `NATS_CLUSTER_C1_PORT` and more:
    /// those must not become members of the ring.
    fn is_of_service(&self, name: &str) -> bool {
        let of = |service: &str| {
            let has = |suffix: &str| self.all.contains_key(&format!("{service}{suffix}"));
            !service.is_empty() && has("_SERVICE_HOST") && has("_SERVICE_PORT")
        };
        let before = |part: &str| name.match_indices(part).any(|(at, _)| of(&name[..at]));
        name.strip_suffix("_SERVICE_HOST").is_some_and(of)
            || name.strip_suffix("_SERVICE_PORT").is_some_and(of)
            || name.strip_suffix("_PORT").is_some_and(of)
            || before("_SERVICE_PORT_")
            || before("_PORT_")
    }

    fn config(&mut self) -> Config {
        let engine = self.engine();
        let ring = self.ring();
        let start_from = self.start_from();
        let mut admin = Admin::default();
        admin.port = self.number("PORT", admin.port);
        identify(&mut admin, &self.all);
        Config {
            source: Source {
                connection: KafkaConnection {
                    bootstrap_servers: self.brokers(),
                    tls: None,
                    sasl: None,
                    properties: BTreeMap::new(),
                },
                topic: self.text("KAFKA_TOPIC").unwrap_or_else(|| "ofa_assets".to_owned()),
                further_topics: Vec::new(),
                group: self
                    .text("KAFKA_GROUP")
                    .unwrap_or_else(|| "ofa_fan_out_layer_group".to_owned()),
                start_from,
                // Whatever the reset says: what the broker still has is not skipped.
                missing_offset: MissingOffset::Earliest,
                protocol: super::GroupProtocol::default(),
            },
            ring,
            publish: Publish::default(),
            dead_letter: None,
            engine,
            admin,
            logging: Logging {
                level: self.log_level(),
                format: super::LogFormat::default(),
                http_requests: self.switch("LOG_HTTP_REQUESTS"),
            },
            telemetry: None,
        }
    }

    fn engine(&mut self) -> Engine {
        let mut engine = Engine {
            batch_size: self.number("KAFKA_CONSUMER_BATCH_SIZE", 100),
            poll_timeout_ms: self.number("KAFKA_CONSUMER_TIME_OUT_MS", 1),
            commit_interval_ms: self.number("KAFKA_CONSUMER_COMMIT_INTERVAL_MS", 100),
            queue_size: self.number("ASSET_FORWARDER_QUEUE_SIZE", 10_000),
            watchdog_interval_ms: self.seconds("KAFKA_WATCHDOG_INTERVAL", 30_000),
            watchdog_timeout_ms: self.seconds("KAFKA_WATCHDOG_TIMEOUT", 300_000),
            ..Engine::default()
        };
        self.lower(
            "KAFKA_CONSUMER_COMMIT_INTERVAL_MS",
            &mut engine.commit_interval_ms,
            MAX_COMMIT_INTERVAL_MS,
        );
        // The original ends at the first look after the timeout, however long the interval is.
        engine.watchdog_interval_ms = engine.watchdog_interval_ms.min(engine.watchdog_timeout_ms);
        // There is no variable for the drain: it makes way for a short watchdog.
        engine.drain_timeout_ms = engine.drain_timeout_ms.min(engine.watchdog_timeout_ms / 2).max(1);
        engine
    }

    fn ring(&mut self) -> RingConfig {
        let of_ring = |name: &&String| name.starts_with(CLUSTER) && !self.used.contains(*name);
        let names: Vec<_> = self.all.keys().filter(of_ring).cloned().collect();
        let mut clusters = Vec::new();
        for variable in names {
            let name = variable[CLUSTER.len()..].to_owned();
            let servers = list(self.all.get(&variable).map_or("", String::as_str));
            if servers.is_empty() {
                self.fault(
                    &variable,
                    "names no server",
                    "write nats://host:port, or remove the variable",
                );
            } else if name.is_empty() {
                self.fault(&variable, "has no cluster name", "write NATS_CLUSTER_<NAME>");
            } else {
                clusters.push(Cluster {
                    name,
                    servers,
                    weight: 1,
                    auth: None,
                    tls: None,
                    discover_servers: None,
                    jet_stream: None,
                    inbox_prefix: None,
                    client_servers: Vec::new(),
                });
            }
            self.used.insert(variable);
        }
        RingConfig {
            epoch: 1,
            replicas: self.number("HASH_RING_REPLICAS", 128),
            handover_timeout_ms: 60_000,
            clusters,
            beacon: None,
            mirror: None,
        }
    }

    fn brokers(&mut self) -> Vec<String> {
        let Some(brokers) = self.text("KAFKA_BROKER") else {
            self.fault(
                "KAFKA_BROKER",
                "is not set",
                "write the bootstrap servers as host:port,host:port",
            );
            return Vec::new();
        };
        // librdkafka takes this scheme, and no other without settings for which there is no variable.
        let plain = |server: String| match server.split_at_checked("PLAINTEXT://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("PLAINTEXT://") => rest.to_owned(),
            Some(_) | None => server,
        };
        list(&brokers).into_iter().map(plain).collect()
    }

    fn start_from(&mut self) -> StartFrom {
        const NAME: &str = "KAFKA_AUTO_OFFSET_RESET";
        let Some(word) = self.text(NAME) else {
            return StartFrom::Latest;
        };
        match word.to_ascii_lowercase().as_str() {
            "latest" | "largest" | "end" => StartFrom::Latest,
            "earliest" | "smallest" | "beginning" => StartFrom::Earliest,
            _ => {
                self.fault(NAME, format!("{word:?} is not known"), "write latest or earliest");
                StartFrom::Latest
            }
        }
    }

    fn log_level(&mut self) -> LogLevel {
        let Some(word) = self.text("LOG_LEVEL") else {
            return LogLevel::Info;
        };
        match word.to_ascii_uppercase().as_str() {
            "DEBUG" => LogLevel::Debug,
            "INFO" => LogLevel::Info,
            "WARNING" | "WARN" => LogLevel::Warn,
            "ERROR" | "CRITICAL" | "FATAL" => LogLevel::Error,
            _ => {
                let problem = format!("{word:?} is not known");
                self.fault("LOG_LEVEL", problem, "write DEBUG, INFO, WARNING, ERROR or CRITICAL");
                LogLevel::Info
            }
        }
    }

    fn switch(&mut self, name: &str) -> bool {
        let Some(word) = self.text(name) else { return false };
        match word.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.fault(name, format!("{word:?} is not a boolean"), "write true or false");
                false
            }
        }
    }

    fn number<N: std::str::FromStr>(&mut self, name: &str, default: N) -> N {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.fault(
                name,
                format!("{text:?} is not a valid number"),
                "write a whole number in range",
            );
            default
        })
    }

    /// Seconds, perhaps with decimals, as milliseconds.
    fn seconds(&mut self, name: &str, default_ms: u64) -> u64 {
        let Some(text) = self.text(name) else { return default_ms };
        let duration = text
            .parse()
            .ok()
            .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
        let millis = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
        millis.unwrap_or_else(|| {
            self.fault(name, format!("{text:?} is not a number of seconds"), "write a number");
            default_ms
        })
    }

    fn lower(&mut self, variable: &'static str, value: &mut u64, most: u64) {
        if *value > most {
            self.notices.push(Notice::Lowered {
                variable,
                from: *value,
                to: most,
            });
            *value = most;
        }
    }

    /// The value without blanks around it; nothing if it is blank.
    fn text(&mut self, name: &str) -> Option<String> {
        self.used.insert(name.to_owned());
        self.all
            .get(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn fault(&mut self, name: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault {
            path: name.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    fn notice_the_rest(&mut self) {
        let rest = || self.all.keys().filter(|name| !self.used.contains(*name));
        let has_no_effect = |name: &String| {
            WITHOUT_EFFECT.contains(&name.as_str())
                || (name.starts_with("APPLICATION_") && name != "APPLICATION_VERSION")
        };
        let without_effect: Vec<_> = rest().filter(|name| has_no_effect(name)).cloned().collect();
        let unknown: Vec<_> = rest()
            .filter(|name| is_ours(name) && !has_no_effect(name))
            .cloned()
            .collect();
        if !without_effect.is_empty() {
            self.notices.push(Notice::WithoutEffect(without_effect));
        }
        if !unknown.is_empty() {
            self.notices.push(Notice::Unknown(unknown));
        }
    }
}

fn is_ours(name: &str) -> bool {
    ["KAFKA_", "NATS_", "ASSET_FORWARDER_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The variable that a field of the document came from.
fn variable_of(path: &str, clusters: &[String]) -> String {
    const VARIABLES: &[(&str, &str)] = &[
        ("source.connection.bootstrapServers", "KAFKA_BROKER"),
        ("source.topic", "KAFKA_TOPIC"),
        ("source.group", "KAFKA_GROUP"),
        ("ring.replicas", "HASH_RING_REPLICAS"),
        ("engine.batchSize", "KAFKA_CONSUMER_BATCH_SIZE"),
        ("engine.pollTimeoutMs", "KAFKA_CONSUMER_TIME_OUT_MS"),
        ("engine.commitIntervalMs", "KAFKA_CONSUMER_COMMIT_INTERVAL_MS"),
        ("engine.queueSize", "ASSET_FORWARDER_QUEUE_SIZE"),
        ("engine.watchdogIntervalMs", "KAFKA_WATCHDOG_INTERVAL"),
        ("engine.watchdogTimeoutMs", "KAFKA_WATCHDOG_TIMEOUT"),
        ("engine.drainTimeoutMs", "KAFKA_WATCHDOG_TIMEOUT"),
        ("admin.forwarder", "APP_UUID or HOSTNAME"),
        ("admin.version", "APPLICATION_VERSION"),
        ("admin.node", "NODE_HOSTNAME"),
    ];
    if let Some(rest) = path.strip_prefix("ring.clusters") {
        let index = rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .and_then(|(index, _)| index.parse().ok());
        let cluster = index.and_then(|index: usize| clusters.get(index));
        return cluster.map_or_else(|| format!("{CLUSTER}<NAME>"), Clone::clone);
    }
    let variable = VARIABLES.iter().find(|(field, _)| path.starts_with(field));
    variable.map_or_else(|| path.to_owned(), |(_, name)| (*name).to_owned())
}
