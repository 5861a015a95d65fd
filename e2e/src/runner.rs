//! The steps of a run, in their order.

pub(crate) mod cluster;
pub(crate) mod demo;
pub(crate) mod fetch;
pub(crate) mod fuzz;
mod images;
pub(crate) mod steps;
pub(crate) mod suite;
pub(crate) mod system;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use e2e::broker::{Broker, Setup};
use e2e::port::Port;
use e2e::process::guarded;
use e2e::tools;

use self::cluster::ForTests;
use self::steps::Steps;
use self::suite::{Need, Suite, Tier, needs};

/// A line for the person who runs this.
pub(crate) fn say(text: &str) {
    // Nobody is left to report a broken stderr to.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Builds everything that tests start, fuzzes, starts the broker that the tests share, and lets nextest run and close the output.
pub(crate) fn test(
    steps: &Steps,
    root: &Path,
    suite: Option<Suite>,
    tier: Tier,
    further: &[String],
) -> Result<ExitCode> {
    // It comes up while the tests are built.
    let cluster = if needs(suite, Need::Cluster) {
        Some(ForTests::start()?)
    } else {
        None
    };
    // Tests and what they start in one go: cargo then chooses each dependency's features once, so nothing is compiled twice.
    let built = steps.show(cargo(root).args(["build", "--workspace", "--lib", "--bins", "--tests"]))?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    if suite.is_none() && further.is_empty() && tier != Tier::Quick {
        let fuzzed = fuzz::test(steps, root, tier == Tier::Full)?;
        if fuzzed != ExitCode::SUCCESS {
            return Ok(fuzzed);
        }
    }
    let dir = tempfile::Builder::new()
        .prefix("fanout-e2e-run-")
        .tempdir()
        .context("failed to make a directory")?;
    if let Some(cluster) = &cluster {
        cluster.make_ready(steps, root)?;
    }
    let shared = if needs(suite, Need::Kafka) {
        // With a cluster, where pods reach it too.
        let plain = cluster.as_ref().and_then(ForTests::host_address).map(Port::reserve_at);
        let setup = Setup {
            plain: plain.transpose()?,
            ..Setup::default()
        };
        Some(steps.quiet("starting the Kafka that the tests share", |_| {
            Broker::start(dir.path(), setup)
        })?)
    } else {
        None
    };
    let mut nextest = guarded(tools::nextest()?.as_os_str(), "TERM");
    forget_package(&mut nextest);
    nextest
        .current_dir(root)
        .args(["nextest", "run", "--workspace", "--no-input-handler"]);
    if let Some(profile) = tier.profile() {
        nextest.args(["--profile", profile]);
    }
    if let Some(filter) = suite.and_then(|suite| suite.filter) {
        nextest.args(["-E", filter]);
    }
    if let Some(shared) = &shared {
        nextest.env("FANOUT_E2E_KAFKA", shared.address());
    }
    if let Some(cluster) = &cluster {
        cluster.tell(&mut nextest)?;
    }
    let tested = steps.show(nextest.args(further))?;
    if let Some(cluster) = cluster {
        cluster.end()?;
    }
    Ok(tested)
}

/// Builds everything for speed and runs one of the rig's programs.
pub(crate) fn program(steps: &Steps, root: &Path, name: &str, args: &[String]) -> Result<ExitCode> {
    let built = build_release(steps, root)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    steps.show(start(root, name)?.args(args))
}

/// As [`program`], with a cluster for as long as it runs. No pod of ours runs there, so it has no images.
pub(crate) fn program_with_cluster(steps: &Steps, root: &Path, name: &str, args: &[String]) -> Result<ExitCode> {
    // It comes up while the program is built.
    let cluster = ForTests::start()?;
    let built = build_release(steps, root)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    cluster.wait_ready(steps)?;
    let mut program = start(root, name)?;
    cluster.tell(&mut program)?;
    let code = steps.show(program.args(args))?;
    cluster.end()?;
    Ok(code)
}

/// Builds what the demo and the benchmarks start.
fn build_release(steps: &Steps, root: &Path) -> Result<ExitCode> {
    let packages = ["forwarder", "operator", "e2e-rig"];
    let mut build = cargo(root);
    build.args(["build", "--release", "--bins"]);
    steps.show(build.args(packages.iter().flat_map(|package| ["--package", package])))
}

/// One of the rig's programs, built by [`build_release`].
fn start(root: &Path, name: &str) -> Result<Command> {
    // `cargo run` would choose the features for that package alone, and compile most of the tree once more.
    let mut run = guarded(target_dir()?.join("release").join(name).as_os_str(), "TERM");
    run.current_dir(root);
    Ok(run)
}

/// The target directory that we were built in.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find this program")?;
    let profiles = own.parent().and_then(Path::parent);
    Ok(profiles
        .context("this program does not stand in a target directory")?
        .to_owned())
}

/// Cargo, the one that runs us.
fn cargo(dir: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = guarded(&cargo, "TERM");
    forget_package(command.current_dir(dir));
    command
}

/// Cargo runs us with variables about our own package. Build scripts that watch them (ring's does) would compile everything anew for each
/// way in which cargo is called.
fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}
