//! The fuzz targets of `forwarder/core/fuzz`, built and run without cargo-fuzz and on stable Rust.
//!
//! libFuzzer needs coverage from the compiler, and that is stable; only the sanitizers are not. They find what safe code cannot
//! do, so nothing is lost by going without. cargo-fuzz works in that directory all the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::process::guarded;

use super::steps::Steps;

/// From the root of the checkout.
const PLACE: &str = "forwarder/core/fuzz";

/// The targets, and how many inputs each tries among the tests: some ten seconds' worth. A number of inputs and not of seconds, as from
/// one seed the same inputs follow however fast the machine is: what passes here passes there. (Only nearly so for the document, whose
/// reader has hash tables with seeds of their own.)
const TARGETS: [(&str, u64); 4] = [
    ("payload", 600_000),
    ("config", 45_000),
    ("commit", 1_500_000),
    ("headers", 350_000),
];

/// With `--full`, for each target.
const FULL_SECONDS: u64 = 300;

/// A single input that takes longer than this many seconds (typical ones take microseconds) is a fault.
const TIMEOUT: u32 = 10;

/// Megabytes; a run needs about 50.
const MEMORY: u32 = 1_024;

/// What libFuzzer exits with when it was told to end.
const INTERRUPTED: i32 = 72;

/// What libFuzzer must have to see where an input leads and what it was compared with: the flags that cargo-fuzz sets without a sanitizer.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    // Else branches are folded into one, and cannot be told apart.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    // What is instrumented cannot be inlined from another unit.
    "-Ccodegen-units=1",
];

/// How long to go on, and from where.
#[derive(Clone, Copy)]
enum Extent {
    /// This many inputs, always the same ones.
    Runs(u64),
    /// This many seconds; how far that gets depends on the machine, but the way there is always the same one.
    Seconds(u64),
    /// This many seconds of something new, going on from what was found the last times.
    Hunt(u64),
}

/// Every target, as part of the tests.
pub(crate) fn test(steps: &Steps, root: &Path, full: bool) -> Result<ExitCode> {
    let place = match build(steps, root)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    for (target, runs) in TARGETS {
        let extent = if full {
            Extent::Seconds(FULL_SECONDS)
        } else {
            Extent::Runs(runs)
        };
        place.run(steps, target, extent)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One target or every one, from a new seed each time; with `further` arguments, one target with just these.
pub(crate) fn hunt(
    steps: &Steps,
    root: &Path,
    target: Option<&str>,
    seconds: u64,
    further: &[String],
) -> Result<ExitCode> {
    let targets: Vec<_> = TARGETS
        .map(|(name, _)| name)
        .into_iter()
        .filter(|name| target.is_none_or(|target| target == *name))
        .collect();
    ensure!(
        !targets.is_empty(),
        "there is no such target; there are {}",
        TARGETS.map(|(name, _)| name).join(", ")
    );
    let place = match build(steps, root)? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    if let (false, [target]) = (further.is_empty(), targets.as_slice()) {
        return steps.show(place.command(target).args(further));
    }
    ensure!(further.is_empty(), "further arguments are for one target: name it");
    for target in targets {
        place.run(steps, target, Extent::Hunt(seconds))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all targets, in a directory of their own: everything down to the last dependency is instrumented.
fn build(steps: &Steps, root: &Path) -> Result<std::result::Result<Place, ExitCode>> {
    let asked = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "host-tuple"])
        .output()
        .context("failed to run rustc")?;
    let host = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    ensure!(
        asked.status.success() && !host.is_empty(),
        "rustc does not say what it compiles for"
    );
    let target_dir = super::target_dir()?.join("fuzz");
    let mut build = super::cargo(root);
    build
        .args(["build", "--locked", "--release", "--bins"])
        // Named, it keeps the flags away from build scripts and macros, which run without libFuzzer.
        .args(["--target", &host])
        .arg("--manifest-path")
        .arg(Path::new(PLACE).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let built = steps.show(&mut build)?;
    if built != ExitCode::SUCCESS {
        return Ok(Err(built));
    }
    Ok(Ok(Place {
        root: root.to_owned(),
        bin: target_dir.join(host).join("release"),
        target_dir,
    }))
}

/// Where the built targets are, and what belongs to them.
struct Place {
    root: PathBuf,
    target_dir: PathBuf,
    bin: PathBuf,
}

impl Place {
    fn command(&self, target: &str) -> Command {
        let mut command = guarded(self.bin.join(target).as_os_str(), "KILL");
        command.current_dir(&self.root).env("RUST_BACKTRACE", "1");
        command
    }

    fn run(&self, steps: &Steps, target: &str, extent: Extent) -> Result<()> {
        let artifacts = made(self.target_dir.join("artifacts").join(target))?;
        let dictionary = format!("{PLACE}/dictionaries/{target}.dict");
        let mut command = self.command(target);
        command
            // It takes the rest as the first part of a name.
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-dict={dictionary}"))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-rss_limit_mb={MEMORY}"));
        let seeds = Path::new(PLACE).join("corpus").join(target);
        match extent {
            Extent::Runs(runs) => {
                command.arg(format!("-runs={runs}"));
                self.same_way(&mut command, &seeds)?;
            }
            Extent::Seconds(seconds) => {
                command.arg(format!("-max_total_time={seconds}"));
                self.same_way(&mut command, &seeds)?;
            }
            Extent::Hunt(seconds) => {
                // Our own, so that a failure without an input says how it came about.
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                command
                    .arg(format!("-max_total_time={seconds}"))
                    .arg(format!("-seed={}", now.subsec_nanos()))
                    // The first directory also takes what is found.
                    .arg(made(self.target_dir.join("corpus").join(target))?)
                    .arg(seeds);
            }
        }
        let log = self.target_dir.join(format!("{target}.log"));
        let output = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let status = steps.log(&format!("fuzzing {target}"), &mut command, &output)?;
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(INTERRUPTED) {
            bail!("fuzzing {target} was interrupted");
        }
        let said = fs::read(&log).with_context(|| format!("failed to read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        let input = artifact(&said).map_or_else(
            // It cannot write when its stack has overflowed, for one.
            || format!("It has written no input; the same way leads there again:\n\n  {command:?}"),
            |file| format!("The input is {file}; this tries it again:\n\n  cargo e2e fuzz {target} -- {file}"),
        );
        bail!(
            "the fuzz target {target} has failed ({status}):\n\n{}\n\nAll of its output is in {}. {input}\n",
            cause(&said),
            log.display()
        )
    }

    /// The seeds of the checkout, in one order and by themselves: what other runs found on this machine would lead elsewhere.
    fn same_way(&self, command: &mut Command, seeds: &Path) -> Result<()> {
        let dir = self.root.join(seeds);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // cargo-fuzz adds what it finds, under names without an extension.
            if name.contains('.') {
                names.push(seeds.join(name).display().to_string());
            }
        }
        names.sort();
        command
            .arg("-seed=1")
            // It would also learn from pointers that are compared, which are others in each process.
            .arg("-use_cmp=0")
            .arg(format!("-seed_inputs={}", names.join(",")));
        Ok(())
    }
}

fn made(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    Ok(dir)
}

/// The file that libFuzzer says it has written.
fn artifact(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.split_once("Test unit written to "))
        .map(|(_, file)| file.trim())
}

/// What the output says about the failure, without what is told about progress: at most some forty lines.
fn cause(said: &str) -> String {
    const MOST: usize = 40;
    let lines: Vec<_> = said.lines().collect();
    let is_cause = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let from = lines
        .iter()
        .position(is_cause)
        .unwrap_or(lines.len().saturating_sub(MOST));
    lines[from..].iter().take(MOST).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PLACE)
    }

    #[test]
    fn every_target_of_the_package_is_run() {
        let mut there: Vec<_> = fs::read_dir(place().join("fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        there.sort();
        let mut known = TARGETS.map(|(name, _)| name);
        known.sort_unstable();
        assert_eq!(there, known);
        for target in known {
            assert!(
                place().join("corpus").join(target).is_dir(),
                "{target} has seeds to begin with"
            );
            assert!(place().join(format!("dictionaries/{target}.dict")).is_file());
        }
    }

    #[test]
    fn the_targets_are_built_with_what_the_product_is_built_with() {
        // Both lock files are complete; in the product's the targets' own dependencies are missing.
        let locked = |path: PathBuf| -> Vec<String> {
            let text = fs::read_to_string(path).unwrap();
            let packages = text.split("[[package]]\n").skip(1);
            packages
                .map(|package| package.lines().take(2).collect::<Vec<_>>().join(" "))
                .collect()
        };
        let product = locked(place().join("../../../Cargo.lock"));
        let own = ["arbitrary", "forwarder-core-fuzz", "libfuzzer-sys"];
        for package in locked(place().join("Cargo.lock")) {
            assert!(
                product.contains(&package) || own.iter().any(|name| package.contains(name)),
                "{package}: copy the product's Cargo.lock over that of {PLACE}; cargo takes out what is too much"
            );
        }
    }

    #[test]
    fn a_failure_is_told_by_its_cause_and_its_input() {
        let said = "INFO: Seed: 1\n#2 INITED cov: 3\n\nthread '<unnamed>' panicked at x.rs:1:2:\nwhy\n\
                    ==7== ERROR: libFuzzer: deadly signal\n\
                    artifact_prefix='/a/'; Test unit written to /a/crash-0123\nBase64: Ji4=\n";
        assert_eq!(artifact(said), Some("/a/crash-0123"));
        assert!(cause(said).starts_with("thread '<unnamed>' panicked at x.rs:1:2:\nwhy\n"));
        assert_eq!(artifact("INFO: Seed: 1\n"), None);
        assert_eq!(cause("INFO: Seed: 1\n#2 INITED cov: 3\n").lines().count(), 2);
    }
}
