//! `cargo e2e cluster`, and the cluster that the operator's tests run on.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use e2e::cluster::{
    self, BIN_VARIABLE, Cluster, FORWARDER_IMAGE_2_VARIABLE, FORWARDER_IMAGE_VARIABLE, HOST_ADDRESS_VARIABLE,
    INSTANCE_VARIABLE, KUBECONFIG_VARIABLE, LAST_INSTANCE, Lifetime, OPERATOR_IMAGE_VARIABLE, Options, Orders, PLANT,
    Programs,
};
use e2e::tools;

use super::steps::Steps;
use super::{fetch, images, say};

/// The cluster of people: what `cargo e2e cluster` is about without a number.
const PEOPLE: u8 = 0;

/// Says that a cluster is given, and shall be used instead of one of our own.
const USE_VARIABLE: &str = "E2E_USE_KUBECONFIG";

#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Which one of several side by side, 0 to 9. Each has addresses and a directory of its own; tests take free ones from 9 down.
    #[arg(long, global = true, env = INSTANCE_VARIABLE, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=i64::from(LAST_INSTANCE)))]
    pub(crate) instance: u8,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Starts a cluster, with Kafka and four NATS servers beside it, and loads our images.
    Up(Profile),
    /// Ends it and removes all that it left.
    Down,
    /// Builds our images and loads them anew.
    Load(Profile),
    /// Prints what a shell needs: `eval "$(cargo e2e cluster env)"`.
    Env,
    /// Holds a cluster up; the others start it.
    #[command(hide = true)]
    Supervise(Supervise),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Profile {
    /// Binaries as for production: they take minutes to build.
    #[arg(long)]
    release: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Supervise {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    programs: PathBuf,
    #[arg(long)]
    plant: bool,
}

impl Profile {
    fn dir(self) -> &'static str {
        if self.release { "release" } else { "debug" }
    }
}

/// Whether the user's own cluster is to be used.
pub(crate) fn given() -> bool {
    env::var_os(USE_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Becomes the supervisor.
pub(crate) fn supervise(instance: u8, task: Supervise) -> Result<ExitCode> {
    let Supervise { dir, programs, plant } = task;
    let orders = Orders {
        instance,
        dir,
        programs: Programs { built: programs },
        plant,
    };
    match cluster::supervise(&orders)? {}
}

/// Runs one of the tasks.
pub(crate) fn run(steps: &Steps, root: &Path, command: Command) -> Result<ExitCode> {
    let Command { instance, task } = command;
    if given() {
        say(&format!(
            "{USE_VARIABLE} is set: the cluster of KUBECONFIG is used, and there is nothing to start, load or end"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    match task {
        Task::Up(profile) => up(steps, root, instance, profile),
        Task::Load(profile) => {
            let cluster = find(instance)?;
            build(steps, root, profile)?;
            images::load(steps, root, &super::target_dir()?.join(profile.dir()), &cluster)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Env => {
            let cluster = find(instance)?;
            let (config, bin) = (cluster.kubeconfig(), tools::kubernetes()?);
            let text = format!(
                "export KUBECONFIG='{}'\nexport PATH='{}':\"$PATH\"\n",
                config.display(),
                bin.display()
            );
            io::stdout().write_all(text.as_bytes()).context("failed to print")?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Down => {
            root_only()?;
            let ended = steps.quiet("ending the cluster", |_| cluster::down(instance))?;
            if !ended {
                say("there was none");
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Supervise(task) => supervise(instance, task),
    }
}

fn up(steps: &Steps, root: &Path, instance: u8, profile: Profile) -> Result<ExitCode> {
    root_only()?;
    if Cluster::find(instance, programs()?)?.is_some() {
        say("the cluster is up already");
        return Ok(ExitCode::SUCCESS);
    }
    build(steps, root, profile)?;
    let cluster = Cluster::start(instance, &options(Lifetime::Detached, true)?)?;
    let filled = wait_ready(steps, &cluster).and_then(|()| {
        images::load_pause(steps, &cluster)?;
        images::load(steps, root, &super::target_dir()?.join(profile.dir()), &cluster)?;
        cluster.complete()
    });
    if let Err(error) = filled {
        return Err(half(steps, cluster, error));
    }
    say(&format!(
        "\nGo on with\n\n  eval \"$(cargo e2e cluster env)\"\n  kubectl get nodes\n\n\
         In the cluster, Kafka is kafka.{PLANT}.svc:9092, and NATS nats-c1.{PLANT}.svc:4222 to nats-c4.{PLANT}.svc:4222.\n\
         Our images are fanout-forwarder:dev and fanout-operator:dev; `cargo e2e cluster load` builds and loads them anew."
    ));
    Ok(ExitCode::SUCCESS)
}

/// Half a cluster is of no use, but its logs are: it ends if the user ended this, and stays if there was a fault.
fn half(steps: &Steps, cluster: Cluster, error: anyhow::Error) -> anyhow::Error {
    if !steps.told_to_end() {
        return error.context("the cluster is not complete; `cargo e2e cluster down` removes what there is");
    }
    match cluster.end() {
        Ok(()) => error,
        Err(further) => error.context(format!("failed to end the cluster as well: {further:#}")),
    }
}

/// A cluster for the demo: the one that people have, if it is up or is to be kept; else one of its own. Kafka and NATS are beside it.
pub(crate) fn for_demo(steps: &Steps, root: &Path, keep: bool) -> Result<ForTests> {
    if given() {
        return Ok(ForTests::Given);
    }
    root_only()?;
    let release = super::target_dir()?.join("release");
    let instance = match env::var(INSTANCE_VARIABLE) {
        Ok(number) => number
            .parse()
            .with_context(|| format!("{INSTANCE_VARIABLE} is no number: {number}"))?,
        Err(_) => PEOPLE,
    };
    if let Some(cluster) = Cluster::find(instance, programs()?)? {
        images::load(steps, root, &release, &cluster)?;
        return Ok(ForTests::Kept(Box::new(cluster)));
    }
    let lifetime = if keep { Lifetime::Detached } else { Lifetime::Owned };
    let options = options(lifetime, true)?;
    let cluster = if keep {
        Cluster::start(instance, &options)?
    } else {
        Cluster::start_free(&options)?
    };
    let filled = wait_ready(steps, &cluster).and_then(|()| {
        images::load_pause(steps, &cluster)?;
        images::load(steps, root, &release, &cluster)?;
        cluster.complete()
    });
    if let Err(error) = filled {
        return Err(half(steps, cluster, error));
    }
    let cluster = Box::new(cluster);
    Ok(if keep {
        ForTests::Kept(cluster)
    } else {
        ForTests::Own(cluster)
    })
}

/// A cluster for tests: our own, which ends with this, or the user's.
pub(crate) enum ForTests {
    /// Ends with this.
    Own(Box<Cluster>),
    /// Stays when we end.
    Kept(Box<Cluster>),
    /// That of KUBECONFIG.
    Given,
}

impl ForTests {
    /// Starts it; it is not ready yet.
    pub(crate) fn start() -> Result<Self> {
        if given() {
            return Ok(Self::Given);
        }
        root_only()?;
        let options = options(Lifetime::Owned, false)?;
        Ok(Self::Own(Box::new(Cluster::start_free(&options)?)))
    }

    /// Waits until it is ready and loads the images, of binaries that have been built.
    pub(crate) fn make_ready(&self, steps: &Steps, root: &Path) -> Result<()> {
        let Self::Own(cluster) = self else {
            return Ok(());
        };
        wait_ready(steps, cluster)?;
        images::load_pause(steps, cluster)?;
        let built = super::target_dir()?.join("debug");
        images::load(steps, root, &built, cluster)?;
        images::load_first_forwarder(steps, root, &built, cluster)
    }

    /// Waits until it is ready, for work that runs no pod: no image is loaded.
    pub(crate) fn wait_ready(&self, steps: &Steps) -> Result<()> {
        match self {
            Self::Own(cluster) => wait_ready(steps, cluster),
            Self::Kept(_) | Self::Given => Ok(()),
        }
    }

    /// Tells a test runner of it.
    pub(crate) fn tell(&self, command: &mut process::Command) -> Result<()> {
        match self {
            Self::Own(cluster) | Self::Kept(cluster) => {
                command
                    .env(KUBECONFIG_VARIABLE, cluster.kubeconfig())
                    .env(HOST_ADDRESS_VARIABLE, cluster.host_address().to_string())
                    .env(OPERATOR_IMAGE_VARIABLE, "fanout-operator:dev")
                    .env(FORWARDER_IMAGE_VARIABLE, "fanout-forwarder:dev")
                    .env(FORWARDER_IMAGE_2_VARIABLE, "fanout-forwarder:dev2");
            }
            Self::Given => {
                for (own, theirs) in [
                    (KUBECONFIG_VARIABLE, "KUBECONFIG"),
                    (HOST_ADDRESS_VARIABLE, "E2E_HOST_ADDRESS"),
                    (OPERATOR_IMAGE_VARIABLE, "E2E_OPERATOR_IMAGE"),
                    (FORWARDER_IMAGE_VARIABLE, "E2E_FORWARDER_IMAGE"),
                    (FORWARDER_IMAGE_2_VARIABLE, "E2E_FORWARDER_IMAGE"),
                ] {
                    match env::var_os(theirs) {
                        Some(value) if !value.is_empty() => command.env(own, value),
                        _ => bail!("{USE_VARIABLE} is set, and so must {theirs} be"),
                    };
                }
            }
        }
        command.env(BIN_VARIABLE, tools::kubernetes()?);
        Ok(())
    }

    /// Ends it, if it is our own.
    pub(crate) fn end(self) -> Result<()> {
        match self {
            Self::Own(cluster) => cluster.end(),
            Self::Kept(_) | Self::Given => Ok(()),
        }
    }

    /// The address at which a server of this machine is reached by pods and by ourselves.
    pub(crate) fn host_address(&self) -> Option<std::net::Ipv4Addr> {
        match self {
            Self::Own(cluster) | Self::Kept(cluster) => Some(cluster.host_address()),
            Self::Given => env::var("E2E_HOST_ADDRESS").ok()?.parse().ok(),
        }
    }
}

fn wait_ready(steps: &Steps, cluster: &Cluster) -> Result<()> {
    let what = format!("starting Kubernetes {}", tools::KUBERNETES);
    steps.quiet(&what, |cancelled: &AtomicBool| cluster.wait_ready(cancelled))
}

fn find(instance: u8) -> Result<Cluster> {
    Cluster::find(instance, programs()?)?.context("there is no cluster: `cargo e2e cluster up` starts one")
}

fn programs() -> Result<Programs> {
    Ok(Programs {
        built: tools::cache()?.join(tools::kubernetes_module().name()),
    })
}

fn options(lifetime: Lifetime, plant: bool) -> Result<Options> {
    Ok(Options {
        programs: Programs {
            built: tools::kubernetes()?,
        },
        supervisor: own_program()?,
        lifetime,
        plant,
    })
}

/// The binaries that images are made of.
fn build(steps: &Steps, root: &Path, profile: Profile) -> Result<()> {
    let mut build = super::cargo(root);
    build
        .arg("build")
        .args(images::PACKAGES.iter().flat_map(|package| ["--package", package]))
        .arg("--bins");
    if profile.release {
        build.arg("--release");
    }
    let built = steps.show(&mut build)?;
    anyhow::ensure!(built == ExitCode::SUCCESS, "the build has failed");
    Ok(())
}

fn root_only() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "a cluster of our own needs root (namespaces, mounts, control groups): run this as root, or set {USE_VARIABLE}=1 to use the cluster of KUBECONFIG"
    )
}

/// What a cluster of our own needs from the cache.
pub(crate) fn fetch(steps: &Steps) -> Result<()> {
    fetch::kubernetes(steps)?;
    fetch::pause(steps)
}

/// This program's file. A build of the whole workspace may have put another one in its place, of the same source: the kernel then calls
/// the path of ours deleted.
fn own_program() -> Result<PathBuf> {
    let own = env::current_exe().context("failed to find this program")?;
    let replaced = own
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
        .map(PathBuf::from);
    Ok(replaced.unwrap_or(own))
}
