//! The built `forwarder` binary as a child process.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::port::Port;
use e2e::process::{Process, Spec};
use forwarder_core::document::{self, Config};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::{http, wait};

pub use self::metrics::Metrics;

mod metrics;

/// The environment variable that names the binary.
pub const BINARY_VARIABLE: &str = "FANOUT_E2E_FORWARDER_BIN";

/// The subject below which [`beacon`] announces the ring.
pub const BEACON: &str = "_FANOUT.e2e.assets";

/// From the start to ready: a group join, on a machine that is busy.
pub const READY: Duration = Duration::from_secs(60);

/// A drop asks in good order first, so that the log of a failed test ends as the process would.
const GRACE: Duration = Duration::from_secs(3);

/// A forwarder. It ends when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    process: Process,
    admin: Port,
    dir: TempDir,
    /// Where its ring is, if that is a document of its own.
    ring_file: Option<PathBuf>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // A failed test shows how its forwarders stood. Their logs follow.
        if std::thread::panicking() {
            let address = self.admin.address();
            // A runtime of its own: the test's may be busy with this very panic.
            let asked = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map(|runtime| runtime.block_on(http::get(&address, "/status")))
            });
            match asked.join() {
                Ok(Ok(Ok((_, status)))) => complain(&format!("--- status of {} ---\n{status}", self.process.name())),
                _ => complain(&format!("({} does not tell its status)", self.process.name())),
            }
        }
    }
}

fn complain(text: &str) {
    // Nobody is left to report a broken stderr to.
    drop(writeln!(io::stderr(), "{text}"));
}

/// A configuration for these clusters: earliest, all else as by default. Change what the test is about.
pub fn config(kafka: &Kafka, topic: &str, group: &str, clusters: &[(&str, &Nats)]) -> Config {
    let clusters: Vec<_> = clusters.iter().map(|(name, nats)| cluster(name, &nats.url())).collect();
    Config {
        source: document::Source {
            connection: document::KafkaConnection {
                bootstrap_servers: vec![kafka.bootstrap().to_owned()],
                tls: None,
                sasl: None,
                properties: std::collections::BTreeMap::new(),
            },
            topic: topic.to_owned(),
            further_topics: Vec::new(),
            group: group.to_owned(),
            start_from: document::StartFrom::Earliest,
            missing_offset: document::MissingOffset::default(),
            protocol: document::GroupProtocol::default(),
        },
        ring: document::RingConfig {
            epoch: 1,
            replicas: 128,
            handover_timeout_ms: 60_000,
            clusters,
            beacon: None,
            mirror: None,
        },
        publish: document::Publish::default(),
        dead_letter: None,
        engine: document::Engine::default(),
        admin: document::Admin::default(),
        logging: document::Logging::default(),
        telemetry: None,
    }
}

/// A cluster of a configuration: open to all, no TLS.
pub fn cluster(name: &str, url: &str) -> document::Cluster {
    document::Cluster {
        name: name.to_owned(),
        servers: vec![url.to_owned()],
        weight: 1,
        auth: None,
        tls: None,
        discover_servers: None,
        jet_stream: None,
        inbox_prefix: None,
        client_servers: Vec::new(),
    }
}

/// A beacon of a ring: below [`BEACON`], signed by the seed in this file, with a grace.
pub fn beacon(key_file: &Path, ring: &str, grace: Duration) -> document::Beacon {
    document::Beacon {
        subject: BEACON.to_owned(),
        ring: ring.to_owned(),
        key_file: key_file.to_owned(),
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Forwarder {
    /// Starts one with this configuration; its admin address is replaced by a free one. Does not wait: [`Forwarder::wait_ready`].
    pub fn start(config: &Config) -> Result<Self> {
        Self::start_as("forwarder", config)
    }

    /// As [`Forwarder::start`], with a name for messages where there are several.
    pub fn start_as(name: &str, config: &Config) -> Result<Self> {
        let (dir, admin) = place()?;
        let mut config = config.clone();
        name_and_place(&mut config.admin, name, &admin);
        let file = dir.path().join("forwarder.yaml");
        write(&file, &config)?;
        let spec = spec(name, &dir)?.args(["run", "--config"]).arg(&file);
        Ok(Self {
            process: Process::start(spec)?,
            admin,
            dir,
            ring_file: None,
        })
    }

    /// Starts one whose ring is a document of its own, which is not there before [`Forwarder::declare_ring`].
    pub fn start_without_ring(config: &Config) -> Result<Self> {
        let (dir, admin) = place()?;
        let (mut document, _) = config.clone().split();
        name_and_place(&mut document.admin, "forwarder", &admin);
        let (file, ring_file) = (dir.path().join("forwarder.yaml"), dir.path().join("ring.yaml"));
        let text = document.to_yaml().context("failed to write the configuration")?;
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
        let spec = spec("forwarder", &dir)?
            .args(["run", "--config"])
            .arg(&file)
            .arg("--ring-file")
            .arg(&ring_file);
        Ok(Self {
            process: Process::start(spec)?,
            admin,
            dir,
            ring_file: Some(ring_file),
        })
    }

    /// Starts one without arguments and with only these environment variables (`PORT` is added), as the original's container is.
    pub fn start_from_env(variables: &[(&str, &str)]) -> Result<Self> {
        let (dir, admin) = place()?;
        let mut spec = spec("forwarder", &dir)?.env("PORT", admin.number().to_string());
        for (name, value) in variables {
            spec = spec.env(name, value);
        }
        Ok(Self {
            process: Process::start(spec)?,
            admin,
            dir,
            ring_file: None,
        })
    }

    /// `host:port` of its admin server.
    pub fn admin_address(&self) -> String {
        self.admin.address()
    }

    /// The configuration file that it runs with.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("forwarder.yaml")
    }

    /// Declares another ring in the file that it runs with, as a person or a ConfigMap would: the file is replaced at once.
    pub fn declare_ring(&self, ring: &document::RingConfig) -> Result<()> {
        if let Some(file) = &self.ring_file {
            let new = file.with_extension("new");
            let text = ring.to_yaml().context("failed to write the ring")?;
            fs::write(&new, text).with_context(|| format!("failed to write {}", new.display()))?;
            return fs::rename(&new, file).with_context(|| format!("failed to replace {}", file.display()));
        }
        let file = self.config_file();
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let mut config: Config = serde_json::from_str(&text).context("failed to read the configuration")?;
        config.ring = ring.clone();
        let new = file.with_extension("new");
        write(&new, &config)?;
        fs::rename(&new, &file).with_context(|| format!("failed to replace {}", file.display()))
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let address = self.admin_address();
        let process = &mut self.process;
        let deadline = Instant::now() + READY;
        loop {
            if let Some(status) = process.try_exit()? {
                bail!(
                    "{} ended before it was ready ({status})\n{}",
                    process.name(),
                    process.log_tail()
                );
            }
            let answer = http::get(&address, "/readyz").await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let said = answer.map_or_else(
                    |error| format!("{error:#}"),
                    |(status, body)| format!("{status}: {body}"),
                );
                bail!(
                    "{} is not ready after {READY:?}: /readyz says {said}\n{}",
                    process.name(),
                    process.log_tail()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&http::get_ok(&self.admin_address(), "/metrics").await?))
    }

    /// Waits until a metric, summed over all its labels, is at least so much.
    pub async fn wait_metric(&self, name: &str, at_least: f64, within: Duration) -> Result<()> {
        wait::eventually(
            within,
            &format!("{name} of {} is at least {at_least}", self.process.name()),
            || async {
                let now = self.metrics().await?.sum(name, &[]);
                if now >= at_least {
                    return Ok(true);
                }
                bail!("it is {now}");
            },
        )
        .await
        .with_context(|| self.process.log_tail())
    }

    /// `/status`.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let body = http::get_ok(&self.admin_address(), "/status").await?;
        serde_json::from_str(&body).context("/status is not JSON")
    }

    /// The status code and body of a page of the admin server.
    pub async fn page(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.admin_address(), path).await
    }

    /// SIGTERM, and waits for its end without holding up this thread's other tasks.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.wait_exit(within).await
    }

    /// Waits for its end.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_exit()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} did not end within {within:?}\n{}",
                    self.process.name(),
                    self.process.log_tail()
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// SIGSTOP: it holds still, as in a long pause of its machine.
    pub fn pause(&mut self) -> Result<()> {
        self.process.stop()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.cont()
    }

    /// Starts it again with the same configuration, after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start_again()
    }

    /// The process: id, log, CPU time, memory.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The binary: `$FANOUT_E2E_FORWARDER_BIN`, else the one beside this executable in the target directory.
pub fn binary() -> Result<PathBuf> {
    match std::env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => built("forwarder"),
    }
}

/// A binary of this checkout: the one beside this executable in the target directory.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("failed to ask for this executable's path")?;
    // A test is in target/PROFILE/deps, a binary in target/PROFILE.
    for dir in own.ancestors().skip(1).take(2) {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no {name} binary near {}: run `cargo build -p {name}` (or use `cargo e2e`, which does)",
        own.display()
    )
}

fn name_and_place(of: &mut document::Admin, name: &str, admin: &Port) {
    of.address = "127.0.0.1".to_owned();
    of.port = admin.number();
    if of.forwarder.is_none() {
        of.forwarder = Some(name.to_owned());
    }
}

fn write(file: &Path, config: &Config) -> Result<()> {
    // JSON is YAML.
    let text = serde_json::to_string_pretty(config).context("failed to write the configuration")?;
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

fn place() -> Result<(TempDir, Port)> {
    let dir = tempfile::Builder::new()
        .prefix("fanout-e2e-forwarder-")
        .tempdir()
        .context("failed to make a directory")?;
    Ok((dir, Port::reserve()?))
}

/// With nothing of this process's environment: a test is about what it sets.
fn spec(name: &str, dir: &TempDir) -> Result<Spec> {
    let mut spec = Spec::new(name, binary()?, dir.path().join("forwarder.log"))
        .clear_env()
        .dir(dir.path())
        .grace(GRACE);
    for passed_on in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(passed_on) {
            spec = spec.env(passed_on, value);
        }
    }
    Ok(spec)
}
