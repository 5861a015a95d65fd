//! `cargo e2e`: sets the machine up, then runs the demo, the tests and the benchmarks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use e2e::tools;

use crate::runner::cluster;
use crate::runner::demo::Demo;
use crate::runner::steps::Steps;
use crate::runner::suite::{self, Need, Suite, Tier, needs};
use crate::runner::system::Purpose;

mod runner;

/// Sets the machine up, then runs the demo, the tests and the benchmarks against real servers.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The operator on a Kubernetes of one node, with live traffic; a cluster joins, a pod goes, a cluster leaves, and the end says what was lost.
    Demo(Demo),
    /// All tests, or those of one suite.
    Test(Test),
    /// Looks for inputs that break the pure code, by every fuzz target or one, from a new seed each time.
    Fuzz(Fuzz),
    /// How fast, against how fast the client libraries alone are; with --operator, the operator on a Kubernetes of one node.
    Bench(Bench),
    /// A Kubernetes of one node on this machine, to try things on.
    Cluster(cluster::Command),
    /// Only what the others do first: installs and fetches what is missing.
    Setup,
    /// Deletes what was fetched.
    Clean,
}

#[derive(Debug, Args)]
#[command(after_help = suite::list())]
struct Test {
    /// One of the suites below; without one, all tests.
    #[arg(value_parser = Suite::parse)]
    suite: Option<Suite>,
    /// Only the tests that tell most for their time: about twelve minutes for all suites.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also the long ones.
    #[arg(long)]
    full: bool,
    /// Further arguments for cargo-nextest.
    #[arg(last = true)]
    nextest: Vec<String>,
}

#[derive(Debug, Args)]
struct Fuzz {
    /// One of the targets in `forwarder/core/fuzz`.
    target: Option<String>,
    /// How long, for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// In place of all that, arguments for the target itself, such as a file to try again.
    #[arg(last = true)]
    libfuzzer: Vec<String>,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct Bench {
    /// What the program takes: `--help` says it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            runner::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    if let Task::Cluster(cluster::Command {
        instance,
        task: cluster::Task::Supervise(task),
    }) = cli.command
    {
        return cluster::supervise(instance, task);
    }
    let steps = Steps::new()?;
    let root = root()?;
    if matches!(cli.command, Task::Clean) {
        let cache = tools::cache()?;
        if cache.exists() {
            std::fs::remove_dir_all(&cache).with_context(|| format!("failed to delete {}", cache.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(line) = runner::system::prepare(&steps, purpose(&cli.command))? {
        runner::say(&format!(
            "This machine lacks something that only root can install. Type this, then try again:\n\n  {line}\n"
        ));
        return Ok(ExitCode::from(2));
    }
    match cli.command {
        Task::Demo(demo) => runner::demo::run(&steps, &root, demo),
        Task::Bench(Bench { args }) => {
            runner::fetch::servers(&steps)?;
            if needs_cluster(&args) {
                cluster::fetch(&steps)?;
                return runner::program_with_cluster(&steps, &root, "bench", &args);
            }
            runner::program(&steps, &root, "bench", &args)
        }
        Task::Fuzz(Fuzz {
            target,
            seconds,
            libfuzzer,
        }) => runner::fuzz::hunt(&steps, &root, target.as_deref(), seconds, &libfuzzer),
        Task::Test(Test {
            suite: Some(Suite { filter: None, .. }),
            full,
            ..
        }) => runner::fuzz::test(&steps, &root, full),
        Task::Test(Test {
            suite,
            quick,
            full,
            nextest,
        }) => {
            let tier = match (quick, full) {
                (true, _) => Tier::Quick,
                (_, true) => Tier::Full,
                _ => Tier::Usual,
            };
            runner::fetch::servers(&steps)?;
            runner::fetch::nextest(&steps)?;
            if needs(suite, Need::Cluster) {
                cluster::fetch(&steps)?;
            }
            if needs(suite, Need::GitOps) {
                runner::fetch::gitops(&steps)?;
            }
            if needs(suite, Need::Prometheus) {
                runner::fetch::prometheus(&steps)?;
            }
            if needs(suite, Need::Python) {
                runner::fetch::python(&steps)?;
            }
            runner::test(&steps, &root, suite, tier, &nextest)
        }
        Task::Cluster(command) => {
            if matches!(command.task, cluster::Task::Up(_)) && !cluster::given() {
                runner::fetch::servers(&steps)?;
                cluster::fetch(&steps)?;
            }
            cluster::run(&steps, &root, command)
        }
        Task::Setup | Task::Clean => {
            runner::fetch::servers(&steps)?;
            cluster::fetch(&steps)?;
            runner::fetch::gitops(&steps)?;
            runner::fetch::nextest(&steps)?;
            runner::fetch::cargo_deny(&steps)?;
            runner::fetch::mdbook(&steps)?;
            runner::fetch::prometheus(&steps)?;
            runner::fetch::python(&steps)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether the benchmark is that of the operator. Its help needs no cluster.
fn needs_cluster(args: &[String]) -> bool {
    let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
    has("--operator") && !has("--help") && !has("-h")
}

/// What the machine must be ready for.
fn purpose(task: &Task) -> Purpose {
    match task {
        Task::Setup => Purpose::Cluster,
        Task::Cluster(command)
            if matches!(command.task, cluster::Task::Up(_) | cluster::Task::Load(_)) && !cluster::given() =>
        {
            Purpose::Cluster
        }
        Task::Demo(Demo { local: false, .. }) if !cluster::given() => Purpose::Cluster,
        Task::Test(Test { suite, .. }) if needs(*suite, Need::Cluster) => Purpose::Cluster,
        Task::Bench(Bench { args }) if needs_cluster(args) && !cluster::given() => Purpose::Cluster,
        _ => Purpose::Servers,
    }
}

/// The checkout that this was built from.
fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own
        .parent()
        .with_context(|| format!("{} has no parent", own.display()))?;
    anyhow::ensure!(
        root.join("Cargo.toml").is_file(),
        "the checkout that this runner was built from is no longer at {}: run `cargo e2e` in the new one",
        root.display()
    );
    Ok(root.to_owned())
}
