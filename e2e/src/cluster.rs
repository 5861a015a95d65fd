//! A Kubernetes of one node on this machine, for development and tests.
//!
//! ```text
//!  host ── veth ──▶ namespaces of its own (processes, mounts, network)
//!                     supervisor ─┬─ etcd, apiserver, controller-manager, scheduler
//!                                 ├─ containerd, kubelet ─▶ pods (cni0)
//!                                 ├─ kube-proxy, CoreDNS
//!                                 └─ for people: Kafka, NATS
//! ```
//! Everything hangs on one process, the supervisor: when it ends, the kernel ends all others and takes their mounts, interfaces and rules away.
//! What stays is a directory and empty control groups; [`down`] removes them, and so does the next [`Cluster::start`].
//! The host has routes to pods and Services; pods reach servers on the host at [`Cluster::host_address`].

mod certificates;
mod cgroups;
mod components;
mod network;
mod place;
mod plan;
mod plant;
mod supervisor;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::place::{Place, State};
use self::plan::NODE;
use crate::process::{Process, Spec};
use crate::tools;

pub use self::components::PAUSE_IMAGE;
pub use self::plan::{AUDIT_LOG, Addresses, LAST_INSTANCE, Programs};
pub use self::plant::NAMESPACE as PLANT;
pub use self::supervisor::{Orders, supervise};

/// The environment variable with the number of the cluster that `cargo e2e cluster` is about.
pub const INSTANCE_VARIABLE: &str = "E2E_CLUSTER";
/// The environment variable by which the runner names the cluster's kubeconfig to the tests.
pub const KUBECONFIG_VARIABLE: &str = "FANOUT_E2E_KUBECONFIG";
/// The one with the address at which pods reach servers of this machine.
pub const HOST_ADDRESS_VARIABLE: &str = "FANOUT_E2E_HOST_ADDRESS";
/// The one with the directory of kubectl, helm and kubeconform.
pub const BIN_VARIABLE: &str = "FANOUT_E2E_BIN";
/// The one with the operator's image.
pub const OPERATOR_IMAGE_VARIABLE: &str = "FANOUT_E2E_OPERATOR_IMAGE";
/// The one with the forwarder's image.
pub const FORWARDER_IMAGE_VARIABLE: &str = "FANOUT_E2E_FORWARDER_IMAGE";
/// The one with a second name of the forwarder's image, for tests of updates.
pub const FORWARDER_IMAGE_2_VARIABLE: &str = "FANOUT_E2E_FORWARDER_IMAGE_2";

/// Ready takes 15 s on an idle machine of two cores. One that compiles at the same time needs some times that.
const READY: Duration = Duration::from_secs(180);

/// The supervisor's first act is to record itself.
const RECORDED: Duration = Duration::from_secs(20);

/// Between two looks at the API: each is a process.
const POLL: Duration = Duration::from_millis(200);

/// How long a cluster lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as its [`Cluster`], and never longer than this process.
    Owned,
    /// Until [`down`].
    Detached,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs.
    pub programs: Programs,
    /// The program that [`supervise`]s when it is called with `cluster supervise`: the runner itself.
    pub supervisor: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether Kafka and NATS run beside it, with Services in namespace [`PLANT`].
    pub plant: bool,
}

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    programs: Programs,
    plant: bool,
    /// One that is owned ends with this.
    owned: Option<Process>,
    /// Nobody else builds here, or tears down.
    _lock: Option<File>,
}

impl Cluster {
    /// The instance's cluster, if it is up.
    pub fn find(instance: u8, programs: Programs) -> Result<Option<Self>> {
        let place = Place::of(instance)?;
        Ok((place.state()? == State::Up).then_some(Self {
            place,
            programs,
            plant: false,
            owned: None,
            _lock: None,
        }))
    }

    /// Starts the instance's cluster, in the place of one that was left broken. It is not ready yet: see [`Cluster::wait_ready`].
    /// One that is up is an error: see [`Cluster::find`].
    pub fn start(instance: u8, options: &Options) -> Result<Self> {
        let place = Place::of(instance)?;
        let Some(lock) = place.try_lock()? else {
            bail!("cluster {instance} is being started, used by tests, or ended by another run");
        };
        Self::start_at(place, lock, instance, options)
    }

    /// Starts a cluster of an instance that nobody has, the last first: people count from the other end.
    pub fn start_free(options: &Options) -> Result<Self> {
        for instance in (0..=LAST_INSTANCE).rev() {
            let place = Place::of(instance)?;
            if let Some(lock) = place.try_lock()?
                && place.state()? != State::Up
            {
                return Self::start_at(place, lock, instance, options);
            }
        }
        bail!(
            "all {} clusters of this machine are in use: end one by `cargo e2e cluster down --instance N`",
            u16::from(LAST_INSTANCE) + 1
        )
    }

    fn start_at(place: Place, lock: File, instance: u8, options: &Options) -> Result<Self> {
        let Options {
            programs,
            supervisor,
            lifetime,
            plant,
        } = options;
        match place.state()? {
            State::Up => bail!("cluster {instance} is up already"),
            State::Broken => place.clear()?,
            State::Empty => {}
        }
        let cache = tools::cache()?;
        for hidden in ["/run", "/var/lib", "/var/log"] {
            if cache.starts_with(hidden) {
                bail!(
                    "the tools are in {}, but the cluster has a {hidden} of its own: move the cache by {}",
                    cache.display(),
                    tools::CACHE_VARIABLE
                );
            }
        }
        let root = place.files.root().to_owned();
        fs::create_dir_all(root.join("logs")).with_context(|| format!("failed to create {}", root.display()))?;
        // Keys that may do everything are inside.
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .with_context(|| format!("failed to restrict {}", root.display()))?;
        certificates::make(&place.files, place.addresses)?;
        components::configure(&place.files, place.addresses)?;

        let mut args: Vec<std::ffi::OsString> = UNSHARE.iter().map(Into::into).collect();
        args.push(supervisor.into());
        args.extend(["cluster", "--instance", &instance.to_string(), "supervise"].map(Into::into));
        args.push("--dir".into());
        args.push(root.clone().into());
        args.push("--programs".into());
        args.push(programs.built.clone().into());
        if *plant {
            args.push("--plant".into());
        }
        let mut cluster = Self {
            place,
            programs: programs.clone(),
            plant: *plant,
            owned: None,
            _lock: Some(lock),
        };
        match lifetime {
            Lifetime::Owned => {
                let spec = Spec::new("the cluster's supervisor", "unshare", cluster.log()).args(args);
                cluster.owned = Some(Process::start(spec)?);
            }
            Lifetime::Detached => detach(&args, &cluster.log())?,
        }
        let started = Instant::now();
        let pid = loop {
            if let Some(pid) = cluster.place.supervisor()? {
                break pid;
            }
            if started.elapsed() >= RECORDED {
                bail!(
                    "the cluster's supervisor did not start within {RECORDED:?}\n{}",
                    cluster.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(5));
        };
        network::plug(cluster.place.addresses, pid)?;
        Ok(cluster)
    }

    /// Waits until the node is ready, DNS and Services answer; returns early with an error when `cancelled` becomes true.
    pub fn wait_ready(&self, cancelled: &AtomicBool) -> Result<()> {
        let Self {
            place,
            plant: with_plant,
            ..
        } = self;
        let node = place.addresses.node();
        let deadline = Instant::now() + READY;
        let ready: &[(&str, &dyn Fn() -> Result<bool>)] = &[
            ("the API is ready", &|| self.says(&["get", "--raw=/readyz"], "ok")),
            ("the node is ready", &|| {
                let path = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
                self.says(&["get", "node", NODE, path], "True")
            }),
            ("pods can be made in the namespace default", &|| {
                self.says(
                    &["get", "serviceaccount", "default", "-o=name"],
                    "serviceaccount/default",
                )
            }),
            ("DNS answers", &|| Ok(listens((node, 53)))),
            ("Services answer", &|| {
                Ok(listens((place.addresses.kubernetes_service(), 443)))
            }),
            ("Kafka and NATS have their Services", &|| {
                if !with_plant {
                    return Ok(true);
                }
                let file = place.files.at("plant.yaml");
                fs::write(&file, plant::manifests(place.addresses)?)
                    .context("failed to write the manifests of the Services")?;
                let applied = self.kubectl().arg("apply").arg("-f").arg(file).output();
                Ok(applied.context("failed to run kubectl")?.status.success())
            }),
        ];
        for (what, holds) in ready {
            while !holds()? {
                if cancelled.load(Ordering::Relaxed) {
                    bail!("ended before the cluster was ready");
                }
                if place.supervisor()?.is_none() {
                    bail!("the cluster has ended while starting\n{}", self.log_tail());
                }
                if Instant::now() >= deadline {
                    bail!(
                        "the cluster is not ready after {READY:?}: not yet so that {what}. Logs are in {}\n{}",
                        place.files.at("logs").display(),
                        self.log_tail()
                    );
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Notes that it is as it shall be: from now on [`Cluster::find`] finds it.
    pub fn complete(&self) -> Result<()> {
        self.place.complete()
    }

    /// The kubeconfig of somebody who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.files.kubeconfig("admin")
    }

    /// The address at which pods reach servers on this machine. It is the machine's own as well: a server that listens there is reached by both.
    pub fn host_address(&self) -> Ipv4Addr {
        self.place.addresses.host()
    }

    /// The node's address.
    pub fn node_address(&self) -> Ipv4Addr {
        self.place.addresses.node()
    }

    /// Where images are imported: the container runtime's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.place.files.containerd_socket()
    }

    /// A directory that ends with the cluster.
    pub fn dir(&self) -> &Path {
        self.place.files.root()
    }

    /// kubectl, as somebody who may do everything.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.programs.built("kubectl"));
        kubectl.arg("--kubeconfig").arg(self.kubeconfig()).stdin(Stdio::null());
        kubectl
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        self.owned = None;
        self.place.clear()
    }

    fn says(&self, args: &[&str], wanted: &str) -> Result<bool> {
        let output = self
            .kubectl()
            .arg("--request-timeout=5s")
            .args(args)
            .output()
            .context("failed to run kubectl")?;
        Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == wanted)
    }

    fn log(&self) -> PathBuf {
        self.place.files.log("supervisor")
    }

    fn log_tail(&self) -> String {
        match fs::read_to_string(self.log()) {
            Ok(text) => format!("--- the supervisor's log ---\n{}", text.trim_end()),
            Err(error) => format!("(the supervisor's log cannot be read: {error})"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(supervisor) = self.owned.take() {
            drop(supervisor);
            // The next start clears what stays; nobody is left to tell.
            drop(self.place.clear());
        }
    }
}

/// Ends the instance's cluster and removes all that it left. Says whether there was one.
pub fn down(instance: u8) -> Result<bool> {
    let place = Place::of(instance)?;
    let _lock = place.lock()?;
    let state = place.state()?;
    place.clear()?;
    Ok(state != State::Empty)
}

const UNSHARE: [&str; 8] = [
    "--mount",
    "--net",
    "--pid",
    "--propagation",
    "private",
    "--fork",
    "--kill-child=KILL",
    "--",
];

/// Starts it so that it outlives us and our terminal.
fn detach(args: &[std::ffi::OsString], log: &Path) -> Result<()> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open {}", log.display()))?;
    Command::new("setsid")
        .arg("unshare")
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("failed to share a log")?)
        .stderr(log)
        .current_dir("/")
        .process_group(0)
        .spawn()
        .context("failed to run setsid: is util-linux installed?")?;
    Ok(())
}

fn listens(address: impl Into<SocketAddr>) -> bool {
    TcpStream::connect_timeout(&address.into(), Duration::from_secs(1)).is_ok()
}
