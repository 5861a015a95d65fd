//! What must come from the system: compilers, headers, Java, Maven, Python.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use e2e::tools::find_in_path;

use super::steps::Steps;

/// Something the machine must have, the package of Debian and Ubuntu that has it, and how it is recognized.
struct Need {
    what: &'static str,
    package: &'static str,
    there: fn() -> bool,
}

/// Anything else is compiled from source by cargo (zstd, lz4) or fetched into the cache.
const NEEDS: [Need; 9] = [
    Need {
        what: "a C compiler",
        package: "gcc",
        there: || program("cc"),
    },
    Need {
        what: "a C++ compiler",
        package: "g++",
        there: || program("c++"),
    },
    Need {
        what: "make",
        package: "make",
        there: || program("make"),
    },
    Need {
        what: "pkg-config",
        package: "pkg-config",
        there: || program("pkg-config"),
    },
    Need {
        what: "the OpenSSL headers",
        package: "libssl-dev",
        there: || library("openssl"),
    },
    Need {
        what: "the zlib headers",
        package: "zlib1g-dev",
        there: || library("zlib"),
    },
    Need {
        what: "Java 17 or newer",
        package: "openjdk-17-jre-headless",
        there: || java_version() >= Some(17),
    },
    Need {
        what: "Maven",
        package: "maven",
        there: || program("mvn"),
    },
    Need {
        what: "Python with pip, or Go",
        package: "python3-pip",
        there: || pip().is_some() || program("go"),
    },
];

/// What a Kubernetes of our own needs besides.
const CLUSTER_NEEDS: [Need; 10] = [
    Need {
        what: "openssl",
        package: "openssl",
        there: || program("openssl"),
    },
    Need {
        what: "containerd",
        package: "containerd",
        there: || program("containerd") && program("ctr"),
    },
    Need {
        what: "runc",
        package: "runc",
        there: || program("runc"),
    },
    Need {
        what: "the CNI plugins",
        package: "containernetworking-plugins",
        there: || {
            ["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"]
                .iter()
                .any(|plugin| Path::new(plugin).is_file())
        },
    },
    Need {
        what: "buildah",
        package: "buildah",
        there: || program("buildah"),
    },
    Need {
        what: "iproute2",
        package: "iproute2",
        there: || program("ip"),
    },
    Need {
        what: "nftables",
        package: "nftables",
        there: || program("nft"),
    },
    Need {
        what: "conntrack",
        package: "conntrack",
        there: || program("conntrack"),
    },
    Need {
        what: "mount and umount",
        package: "mount",
        there: || program("mount") && program("umount"),
    },
    Need {
        what: "Python",
        package: "python3",
        // Only to fetch Go with.
        there: || program("python3") || program("go"),
    },
];

/// What the run is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Builds and servers.
    Servers,
    /// A Kubernetes of our own besides.
    Cluster,
}

/// Installs what is missing, if this is root on Debian or Ubuntu. Otherwise yields the line that root must type.
pub(crate) fn prepare(steps: &Steps, purpose: Purpose) -> Result<Option<String>> {
    let further: &[Need] = match purpose {
        Purpose::Servers => &[],
        Purpose::Cluster => &CLUSTER_NEEDS,
    };
    let missing: Vec<&Need> = NEEDS.iter().chain(further).filter(|need| !(need.there)()).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let whats: Vec<&str> = missing.iter().map(|need| need.what).collect();
    if !program("apt-get") {
        bail!(
            "this machine lacks {}. Install them with its package manager (Debian calls them: {}), then try again",
            whats.join(", "),
            packages.join(" ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some(format!(
            "sudo apt-get update && sudo apt-get install -y {}",
            packages.join(" ")
        )));
    }
    steps.work("updating the list of system packages", apt().arg("update"))?;
    let what = format!("installing {}", whats.join(", "));
    steps.work(
        &what,
        apt().args(["install", "-y", "--no-install-recommends"]).args(&packages),
    )?;
    if packages.contains(&"containerd") && Path::new("/run/systemd/system").exists() {
        // The package starts a service at once and at each boot. We need the program only, and nobody here has asked for the service.
        let mut disable = Command::new("systemctl");
        steps.work(
            "ending the containerd service that came with the package",
            disable.args(["disable", "--now", "containerd.service"]),
        )?;
    }
    let still: Vec<&str> = missing
        .iter()
        .filter(|need| !(need.there)())
        .map(|need| need.what)
        .collect();
    if !still.is_empty() {
        bail!(
            "apt-get went well, but this machine still lacks {}; install it by hand, then try again",
            still.join(", ")
        );
    }
    Ok(None)
}

/// The command that stands for pip.
pub(crate) fn pip() -> Option<Command> {
    let mut pip = Command::new(find_in_path("python3")?);
    pip.args(["-m", "pip"]);
    let mut tried = Command::new(find_in_path("python3")?);
    succeeds(tried.args(["-m", "pip", "--version"])).then_some(pip)
}

/// apt-get, which neither asks nor draws.
pub(crate) fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    // It must neither ask nor draw; another apt at work is waited for.
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"]);
    apt
}

fn program(name: &str) -> bool {
    find_in_path(name).is_some()
}

fn library(name: &str) -> bool {
    let header = match name {
        "openssl" => "openssl/ssl.h",
        _ => "zlib.h",
    };
    let mut pkg_config = Command::new("pkg-config");
    // The header too, where pkg-config itself is what is missing.
    succeeds(pkg_config.args(["--exists", name])) || Path::new("/usr/include").join(header).is_file()
}

fn java_version() -> Option<u32> {
    let output = Command::new("java")
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    // openjdk version "17.0.15" 2025-04-15; before 9 it was "1.8.0".
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse().ok()
}

fn succeeds(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
