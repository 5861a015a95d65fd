//! `cargo e2e cluster`, and the cluster that the operator's tests run on.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use e2e::cluster::{
    self, BIN_VARIABLE, Cluster, FORWARDER_IMAGE_2_VARIABLE, FORWARDER_IMAGE_VARIABLE, HOST_ADDRESS_VARIABLE,
    KUBECONFIG_VARIABLE, Lifetime, OPERATOR_IMAGE_VARIABLE, Options, Orders, PLANT, Programs,
};
use e2e::tools;

use super::steps::Steps;
use super::{fetch, images, say};

/// The instance of people; tests take a free one of the others.
const PEOPLE: u8 = 0;

/// Says that a cluster is given, and shall be used instead of one of our own.
const USE_VARIABLE: &str = "E2E_USE_KUBECONFIG";

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
    instance: u8,
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
pub(crate) fn supervise(task: Supervise) -> Result<ExitCode> {
    let Supervise {
        instance,
        dir,
        programs,
        plant,
    } = task;
    let orders = Orders {
        instance,
        dir,
        programs: Programs { built: programs },
        plant,
    };
    match cluster::supervise(&orders)? {}
}

/// Runs one of the tasks.
pub(crate) fn run(steps: &Steps, root: &Path, task: Task) -> Result<ExitCode> {
    if given() {
        say(&format!(
            "{USE_VARIABLE} is set: the cluster of KUBECONFIG is used, and there is nothing to start, load or end"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    match task {
        Task::Up(profile) => up(steps, root, profile),
        Task::Load(profile) => {
            let cluster = find()?;
            build(steps, root, profile)?;
            images::load(steps, root, &super::target_dir()?.join(profile.dir()), &cluster)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Env => {
            let cluster = find()?;
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
            let ended = steps.quiet("ending the cluster", |_| cluster::down(PEOPLE))?;
            if !ended {
                say("there was none");
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Supervise(task) => supervise(task),
    }
}

fn up(steps: &Steps, root: &Path, profile: Profile) -> Result<ExitCode> {
    root_only()?;
    if Cluster::find(PEOPLE, programs()?)?.is_some() {
        say("the cluster is up already");
        return Ok(ExitCode::SUCCESS);
    }
    build(steps, root, profile)?;
    let options = options(Lifetime::Detached, true)?;
    let started = start(steps, || Cluster::start(PEOPLE, &options)).and_then(|cluster| {
        images::load_pause(steps, &cluster)?;
        images::load(steps, root, &super::target_dir()?.join(profile.dir()), &cluster)?;
        cluster.complete()
    });
    if let Err(error) = started {
        // Half a cluster is of no use, but its logs are.
        return Err(error.context("the cluster is not complete; `cargo e2e cluster down` removes what there is"));
    }
    say(&format!(
        "\nGo on with\n\n  eval \"$(cargo e2e cluster env)\"\n  kubectl get nodes\n\n\
         In the cluster, Kafka is kafka.{PLANT}.svc:9092, and NATS nats-c1.{PLANT}.svc:4222 to nats-c4.{PLANT}.svc:4222.\n\
         Our images are fanout-forwarder:dev and fanout-operator:dev; `cargo e2e cluster load` builds and loads them anew."
    ));
    Ok(ExitCode::SUCCESS)
}

/// A cluster for tests: our own, which ends with this, or the user's.
pub(crate) enum ForTests {
    /// Ends with this.
    Own(Box<Cluster>),
    /// That of KUBECONFIG.
    Given,
}

impl ForTests {
    /// Starts it; it is not ready yet.
    pub(crate) fn start(steps: &Steps) -> Result<Self> {
        if given() {
            return Ok(Self::Given);
        }
        root_only()?;
        let options = options(Lifetime::Owned, false)?;
        start(steps, || Cluster::start_free(PEOPLE + 1, &options)).map(|cluster| Self::Own(Box::new(cluster)))
    }

    /// Loads the images, of binaries that have been built.
    pub(crate) fn load(&self, steps: &Steps, root: &Path) -> Result<()> {
        let Self::Own(cluster) = self else {
            return Ok(());
        };
        images::load_pause(steps, cluster)?;
        images::load(steps, root, &super::target_dir()?.join("debug"), cluster)
    }

    /// Tells a test runner of it.
    pub(crate) fn tell(&self, command: &mut Command) -> Result<()> {
        match self {
            Self::Own(cluster) => {
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

    /// The address at which a server of this machine is reached by pods and by ourselves.
    pub(crate) fn host_address(&self) -> Option<std::net::Ipv4Addr> {
        match self {
            Self::Own(cluster) => Some(cluster.host_address()),
            Self::Given => env::var("E2E_HOST_ADDRESS").ok()?.parse().ok(),
        }
    }
}

fn start(steps: &Steps, act: impl FnOnce() -> Result<Cluster> + Send) -> Result<Cluster> {
    let what = format!("starting Kubernetes {}", tools::KUBERNETES);
    steps.quiet(&what, |cancelled: &AtomicBool| {
        let cluster = act()?;
        cluster.wait_ready(cancelled)?;
        Ok(cluster)
    })
}

fn find() -> Result<Cluster> {
    Cluster::find(PEOPLE, programs()?)?.context("there is no cluster: `cargo e2e cluster up` starts one")
}

fn programs() -> Result<Programs> {
    Ok(Programs {
        built: tools::cache()?.join(tools::kubernetes_name()),
    })
}

fn options(lifetime: Lifetime, plant: bool) -> Result<Options> {
    Ok(Options {
        programs: Programs {
            built: tools::kubernetes()?,
        },
        supervisor: env::current_exe().context("failed to find this program")?,
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
