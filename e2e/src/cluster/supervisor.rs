//! The first process of the cluster's own namespaces: sets them up, starts the components and starts again what dies.
//!
//! As the first of its process namespace it takes all others with it when it dies, however it dies.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

use super::components::{self, Component, Listens};
use super::place::Record;
use super::plan::{Addresses, Files, Programs};
use super::{cgroups, network, plant};
use crate::process::Process;

/// A component listens within a second or three, on a busy machine of two cores in ten times that.
const START: Duration = Duration::from_secs(60);

/// Between two looks at the components.
const POLL: Duration = Duration::from_millis(100);

/// A component that ends at once is started this often, not as fast as it can fail.
const PACE: Duration = Duration::from_secs(1);

/// One that ends sooner than this has failed to start.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// After this many such failures in a row the cluster ends: it will not come up, and says why.
const PATIENCE: u32 = 10;

/// Parameters of the whole machine, and what the kubelet wants them to be. It ends where it can neither find nor set them so.
const PARAMETERS: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What the supervisor is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The instance.
    pub instance: u8,
    /// Its directory, prepared.
    pub dir: PathBuf,
    /// The programs.
    pub programs: Programs,
    /// Whether Kafka and NATS run beside it.
    pub plant: bool,
}

/// Holds a cluster up. It must be the first process of new process, mount and network namespaces.
pub fn supervise(orders: &Orders) -> Result<Infallible> {
    // The mounted /proc is still the host's, and so is the id in it.
    Record::own()?.write(&orders.dir)?;
    anyhow::ensure!(
        std::process::id() == 1,
        "a supervisor must be the first process of its process namespace: `cargo e2e cluster up` starts it as such"
    );
    let addresses = Addresses::of(orders.instance);
    mounts(&orders.dir)?;
    network::set_up(addresses)?;
    cgroups::create(&addresses.cgroup())?;

    let mut running = Vec::new();
    for component in components::all(&orders.programs, addresses) {
        running.push(start(component)?);
    }
    let _plant = orders
        .plant
        .then(|| plant::start(&Files::inside(), addresses))
        .transpose()?;
    say("all components have been started");
    watch(running)
}

/// Everything here is this mount namespace's alone.
fn mounts(dir: &Path) -> Result<()> {
    // Mounts reach the containers, and those that containers make reach the kubelet.
    bind_flags(Path::new("/"), MsFlags::MS_SHARED | MsFlags::MS_REC)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).context("failed to mount /proc")?;
    hide_parameters(dir)?;
    // What the components keep in fixed places goes into the instance's directory, or into memory.
    let (lib, log) = (dir.join("var-lib"), dir.join("var-log"));
    for made in [&lib, &log] {
        fs::create_dir_all(made).with_context(|| format!("failed to create {}", made.display()))?;
    }
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("failed to mount /run")?;
    let inside = Files::inside();
    fs::create_dir_all(inside.root()).with_context(|| format!("failed to create {}", inside.root().display()))?;
    bind(dir, inside.root())?;
    bind(&inside.at("var-lib"), Path::new("/var/lib"))?;
    bind(&inside.at("var-log"), Path::new("/var/log"))
}

/// Shows the kubelet what it wants to see, and leaves the machine as it is.
fn hide_parameters(dir: &Path) -> Result<()> {
    for (index, (name, value)) in PARAMETERS.iter().enumerate() {
        let shown = Path::new("/proc/sys").join(name);
        if shown.exists() {
            let file = dir.join(format!("parameter-{index}"));
            fs::write(&file, value).with_context(|| format!("failed to write {}", file.display()))?;
            bind(&file, &shown)?;
        }
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to mount {} at {}", from.display(), to.display()))
}

fn bind_flags(at: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("failed to change the mount at {} ({flags:?})", at.display()))
}

struct Running {
    process: Process,
    started: Instant,
    /// Whether its end has been noted, and it waits for its next start.
    ended: bool,
    /// How often in a row it has ended soon.
    failures: u32,
}

fn start(component: Component) -> Result<Running> {
    let Component { spec, listens } = component;
    let mut process = Process::start(spec)?;
    let started = Instant::now();
    let there = || match &listens {
        None => true,
        Some(Listens::Port(port)) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
        Some(Listens::Socket(path)) => UnixStream::connect(path).is_ok(),
    };
    while !there() {
        if let Some(status) = process.try_exit()? {
            bail!(
                "{} ended while starting ({status})\n{}",
                process.name(),
                process.log_tail()
            );
        }
        if started.elapsed() >= START {
            bail!(
                "{} does not listen after {START:?}\n{}",
                process.name(),
                process.log_tail()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(Running {
        process,
        started,
        ended: false,
        failures: 0,
    })
}

/// Starts again what has ended, and takes the exit status of orphans: the shims of containers come to us.
fn watch(mut running: Vec<Running>) -> Result<Infallible> {
    loop {
        for one in &mut running {
            let Some(status) = one.process.try_exit()? else {
                continue;
            };
            let (name, lived) = (one.process.name(), one.started.elapsed());
            if !one.ended {
                one.ended = true;
                one.failures = if lived < SHORT_LIFE { one.failures + 1 } else { 1 };
                say(&format!("{name} has ended after {} s ({status})", lived.as_secs()));
                if one.failures > PATIENCE {
                    bail!("{name} does not stay up\n{}", one.process.log_tail());
                }
            }
            if lived >= PACE {
                one.process.start_again()?;
                one.started = Instant::now();
                one.ended = false;
            }
        }
        reap(&running)?;
        thread::sleep(POLL);
    }
}

fn reap(running: &[Running]) -> Result<()> {
    loop {
        // Only a look: the status of a component is its owner's to take.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let ended = match waitid(Id::All, look) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => pid,
            Ok(_) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error).context("failed to look after orphans"),
        };
        let own = |one: &Running| i64::from(one.process.pid()) == i64::from(ended.as_raw());
        if running.iter().any(own) {
            return Ok(());
        }
        waitpid(ended, Some(WaitPidFlag::WNOHANG)).context("failed to take an orphan's status")?;
    }
}

/// A line in the supervisor's log.
fn say(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
