//! The cable between the host and the cluster: a veth pair, and the host's routes to pods and Services.
//!
//! All of it ends with the cluster's network namespace: the pair has one end there, and the routes lead through the other.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::plan::Addresses;

/// The cable's end in the cluster.
const INSIDE: &str = "host0";

/// The host plugs the cable in as soon as it has read our process id.
const PLUG: Duration = Duration::from_secs(20);

/// From the host: plugs the cable into the network namespace of process `pid`.
pub(super) fn plug(addresses: Addresses, pid: u32) -> Result<()> {
    let (name, host, node) = (addresses.host_interface(), addresses.host(), addresses.node());
    ip(&format!(
        "link add {name} type veth peer name {INSIDE} netns {pid}
address add {host}/30 dev {name}
link set {name} up
route add {} via {node} dev {name}
route add {} via {node} dev {name}
",
        addresses.pods(),
        addresses.services()
    ))
    .with_context(|| {
        let [first, second, ..] = host.octets();
        format!("failed to connect this machine with the cluster (if something here uses {first}.{second}.0.0/16 already, it is in the way)")
    })
}

/// From the host: pulls the cable, if it is there. The kernel would, but later.
pub(super) fn pull(addresses: Addresses) -> Result<()> {
    let name = addresses.host_interface();
    if !Path::new("/sys/class/net").join(&name).exists() {
        return Ok(());
    }
    match ip(&format!("link delete {name}\n")) {
        // The kernel was faster.
        Err(_) if !Path::new("/sys/class/net").join(&name).exists() => Ok(()),
        other => other,
    }
}

/// From inside: waits for the cable and sets the namespace up.
pub(super) fn set_up(addresses: Addresses) -> Result<()> {
    let deadline = Instant::now() + PLUG;
    while !interfaces()?.contains(&format!("{INSIDE}:")) {
        if Instant::now() >= deadline {
            bail!("the host has not connected itself within {PLUG:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    ip(&format!(
        "link set lo up
address add {node}/30 dev {INSIDE}
link set {INSIDE} up
route add default via {host}
",
        node = addresses.node(),
        host = addresses.host()
    ))?;
    // Of this namespace alone: the machine itself does not become a router.
    let forward = "/proc/sys/net/ipv4/ip_forward";
    fs::write(forward, "1").with_context(|| format!("failed to write {forward}"))
}

fn interfaces() -> Result<String> {
    // Not /sys/class/net: what is mounted there still shows the host's.
    let path = "/proc/net/dev";
    fs::read_to_string(path).with_context(|| format!("failed to read {path}"))
}

fn ip(batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run ip: is iproute2 installed? `cargo e2e setup` says")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(batch.as_bytes())
            .context("failed to tell ip what to do")?;
    }
    let output = child.wait_with_output().context("failed to wait for ip")?;
    if !output.status.success() {
        bail!(
            "ip failed: {}\nwhile told\n{batch}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
