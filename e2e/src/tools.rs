//! Where the tools are that `cargo e2e setup` fetches: a cache outside the checkout, keyed by version.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The version of Kafka.
pub const KAFKA: &str = "4.3.1";
/// The version of nats-server.
pub const NATS_SERVER: &str = "2.15.1";
/// The version of cargo-nextest.
pub const NEXTEST: &str = "0.9.128";
/// The version of cargo-deny.
pub const CARGO_DENY: &str = "0.20.2";

/// The environment variable that moves the cache.
pub const CACHE_VARIABLE: &str = "FANOUT_E2E_CACHE";

/// The cache: `$FANOUT_E2E_CACHE`, else `${XDG_CACHE_HOME:-~/.cache}/fanout-e2e`.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(cache) = set(CACHE_VARIABLE) {
        return Ok(cache);
    }
    match set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))) {
        Some(base) => Ok(base.join("fanout-e2e")),
        None => bail!("no place for the tools: set {CACHE_VARIABLE}, XDG_CACHE_HOME or HOME"),
    }
}

/// The directory of Kafka's jars.
pub fn kafka_libs() -> Result<PathBuf> {
    there(cache()?.join(format!("kafka-{KAFKA}")).join("libs"), "Kafka's jars")
}

/// The nats-server binary.
pub fn nats_server() -> Result<PathBuf> {
    there(
        cache()?.join(format!("nats-server-{NATS_SERVER}")).join("nats-server"),
        "nats-server",
    )
}

/// The cargo-nextest binary.
pub fn nextest() -> Result<PathBuf> {
    there(
        cache()?
            .join(format!("cargo-nextest-{NEXTEST}"))
            .join("bin/cargo-nextest"),
        "cargo-nextest",
    )
}

/// The cargo-deny binary.
pub fn cargo_deny() -> Result<PathBuf> {
    there(
        cache()?.join(format!("cargo-deny-{CARGO_DENY}")).join("bin/cargo-deny"),
        "cargo-deny",
    )
}

/// The first file of this name in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn there(path: PathBuf, what: &str) -> Result<PathBuf> {
    if Path::exists(&path) {
        Ok(path)
    } else {
        bail!(
            "{what} should be at {} but is not there: run `cargo e2e setup` once",
            path.display()
        )
    }
}
