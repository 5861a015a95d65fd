//! A single-node Kafka (KRaft) as a child process. Clients and credentials are the rig's; here is what a process needs.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::port::Port;
use crate::process::{Process, Spec};
use crate::tools;

/// The broker answers in 3 s on an idle machine; a machine of two cores that compiles at the same time needs ten times that.
const START: Duration = Duration::from_secs(90);

/// Any fixed one will do: each node stands alone.
const CLUSTER_ID: &str = "ZmFub3V0LWUyZS1ydW4tMQ";

/// A further listener besides the plain one.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Its name, in capitals.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub protocol: String,
    /// The address that clients are told, if it is not its own: a proxy's.
    pub advertised: Option<String>,
}

/// What to start.
#[derive(Debug, Default)]
pub struct Setup {
    /// Where the plain listener listens, and what clients are told: a port of 127.0.0.1 if none is given. Further listeners have the
    /// same address.
    pub plain: Option<Port>,
    /// Further listeners.
    pub listeners: Vec<Listener>,
    /// Properties added to the server's, last wins.
    pub properties: Vec<(String, String)>,
    /// SCRAM users: mechanism (`SCRAM-SHA-256`, `SCRAM-SHA-512`), name, password.
    pub scram: Vec<(String, String, String)>,
    /// Heap in MiB; 0: 512.
    pub heap_mb: u32,
    /// The [controller](Broker::controller) of a node that runs, for a second broker beside that.
    pub beside: Option<String>,
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    plain: Port,
    listeners: Vec<(String, Port)>,
    controller: Port,
}

impl Broker {
    /// Formats its storage under `dir` (which must be empty or absent), starts it and waits until it listens.
    pub fn start(dir: &Path, mut setup: Setup) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        let plain = match setup.plain.take() {
            Some(plain) => plain,
            None => Port::reserve()?,
        };
        let controller = Port::reserve()?;
        let mut listeners = Vec::new();
        for listener in &setup.listeners {
            listeners.push((listener.name.clone(), Port::reserve_at(plain.host())?));
        }
        let file = dir.join("server.properties");
        let text = properties(dir, &setup, &plain, &controller, &listeners);
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
        let classes = class_path()?;
        format_storage(&classes, &file, &setup)?;

        let heap = if setup.heap_mb == 0 { 512 } else { setup.heap_mb };
        let spec = Spec::new("kafka", "java", dir.join("kafka.log"))
            .args([format!("-Xmx{heap}m"), format!("-Xms{}m", heap.min(256))])
            .args(QUICK)
            .arg("-cp")
            .arg(&classes)
            .arg("kafka.Kafka")
            .arg(&file)
            .dir(dir);
        let mut broker = Self {
            process: Process::start(spec)?,
            plain,
            listeners,
            controller,
        };
        broker.wait_listening()?;
        Ok(broker)
    }

    /// The plain listener, `host:port`.
    pub fn address(&self) -> String {
        self.plain.address()
    }

    /// Where a second broker finds its controller, `host:port`.
    pub fn controller(&self) -> String {
        self.controller.address()
    }

    /// A further listener's own address, `host:port`.
    pub fn listener(&self, name: &str) -> Option<String> {
        self.listeners
            .iter()
            .find(|(of, _)| of == name)
            .map(|(_, port)| port.address())
    }

    /// Gives a SCRAM user another password. Connections that are there stay.
    pub fn set_password(&self, mechanism: &str, user: &str, password: &str) -> Result<()> {
        let mut command = java(&class_path()?, "kafka.admin.ConfigCommand");
        command
            .args(["--bootstrap-server", &self.address(), "--alter"])
            .args(["--entity-type", "users", "--entity-name", user, "--add-config"])
            .arg(format!("{mechanism}=[password={password}]"));
        run(&mut command)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again after it has ended, on the same ports and storage, and waits until it listens.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.wait_listening()
    }

    fn wait_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while let Err(error) = TcpStream::connect((self.plain.host(), self.plain.number())) {
            if let Some(status) = self.process.try_exit()? {
                bail!("Kafka ended while starting ({status})\n{}", self.process.log_tail());
            }
            if Instant::now() >= deadline {
                bail!(
                    "Kafka does not listen on {} after {START:?}: {error}\n{}",
                    self.plain.address(),
                    self.process.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(25));
        }
        Ok(())
    }
}

/// A short life on a shared machine: no second compiler, no collector threads, no performance files, no wait for randomness.
const QUICK: [&str; 5] = [
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.security.egd=file:/dev/./urandom",
];

fn class_path() -> Result<String> {
    Ok(tools::kafka_libs()?.join("*").to_string_lossy().into_owned())
}

fn properties(dir: &Path, setup: &Setup, plain: &Port, controller: &Port, further: &[(String, Port)]) -> String {
    let mut own = vec![
        format!("PLAINTEXT://{}", plain.address()),
        format!("CONTROLLER://{}", controller.address()),
    ];
    let mut told = vec![format!("PLAINTEXT://{}", plain.address())];
    let mut protocols = vec!["PLAINTEXT:PLAINTEXT".to_owned(), "CONTROLLER:PLAINTEXT".to_owned()];
    for (listener, (name, port)) in setup.listeners.iter().zip(further) {
        own.push(format!("{name}://{}", port.address()));
        told.push(format!(
            "{name}://{}",
            listener.advertised.clone().unwrap_or_else(|| port.address())
        ));
        protocols.push(format!("{name}:{}", listener.protocol));
    }
    let mut lines = vec![
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.voters", format!("1@{}", controller.address())),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("listeners", own.join(",")),
        ("advertised.listeners", told.join(",")),
        ("listener.security.protocol.map", protocols.join(",")),
        ("log.dirs", dir.join("data").to_string_lossy().into_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("num.partitions", "3".to_owned()),
        // A single node: nothing can be replicated.
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        // The default of 50 partitions of offsets is 50 directories and 150 files per broker for nothing.
        ("offsets.topic.num.partitions", "4".to_owned()),
        ("transaction.state.log.num.partitions", "4".to_owned()),
        // Tests wait for groups to form, and sometimes want a member gone fast.
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("group.min.session.timeout.ms", "1000".to_owned()),
        ("group.consumer.min.session.timeout.ms", "1000".to_owned()),
        ("group.consumer.min.heartbeat.interval.ms", "500".to_owned()),
        ("group.consumer.session.timeout.ms", "6000".to_owned()),
        ("group.consumer.heartbeat.interval.ms", "500".to_owned()),
        // Retention is seen within a second where a test asks for it.
        ("log.retention.check.interval.ms", "500".to_owned()),
        ("log.cleaner.enable", "false".to_owned()),
    ];
    lines.extend(
        setup
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    if let Some(beside) = &setup.beside {
        own.remove(1);
        lines.extend([
            ("process.roles", "broker".to_owned()),
            ("node.id", "2".to_owned()),
            ("controller.quorum.voters", format!("1@{beside}")),
            ("listeners", own.join(",")),
        ]);
    }
    // A name given twice: the last one counts, as java.util.Properties has it.
    lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// The tool is a JVM of its own and takes as long as half a broker. What it writes depends only on Kafka's version, the cluster's id and the
/// SCRAM users; so without such users it is made once and copied.
fn format_storage(classes: &str, file: &Path, setup: &Setup) -> Result<()> {
    let data = file.with_file_name("data");
    if !setup.scram.is_empty() || setup.beside.is_some() {
        return run_format(classes, file, &setup.scram);
    }
    let template = tools::cache()?
        .join(format!("kafka-{}", tools::KAFKA))
        .join("formatted");
    if !template.join("meta.properties").exists() {
        run_format(classes, file, &[])?;
        // Another process may be here too: each copies to a place of its own, the first rename wins, all are equal.
        let aside = template.with_extension(std::process::id().to_string());
        if copy_dir(&data, &aside).is_ok() && fs::rename(&aside, &template).is_err() {
            drop(fs::remove_dir_all(&aside));
        }
        return Ok(());
    }
    copy_dir(&template, &data).with_context(|| format!("failed to copy {} to {}", template.display(), data.display()))
}

fn run_format(classes: &str, file: &Path, scram: &[(String, String, String)]) -> Result<()> {
    let mut command = java(classes, "kafka.tools.StorageTool");
    command.args(["format", "-t", CLUSTER_ID, "-c"]).arg(file);
    for (mechanism, name, password) in scram {
        command
            .arg("--add-scram")
            .arg(format!("{mechanism}=[name={name},password={password}]"));
    }
    run(&mut command)
}

/// One of Kafka's tools.
fn java(classes: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(QUICK).args(["-Xmx128m", "-cp", classes, class]);
    command
}

fn run(tool: &mut Command) -> Result<()> {
    let output = tool
        .output()
        .context("failed to run java: is a Java runtime (17 or newer) installed? `cargo e2e setup` says")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "Kafka's tool failed ({}): {tool:?}\n{}",
            output.status,
            String::from_utf8_lossy(&said)
        );
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
