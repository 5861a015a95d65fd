//! What a cluster will be like: its addresses, its files, its tools. Nothing here touches the machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The largest instance number. The instances are told apart by the second byte of their addresses.
pub const LAST_INSTANCE: u8 = 9;

/// The second byte of instance 0: far from the ranges that container engines choose by default (10.88, 10.244, 172.17, 192.168).
const FIRST_NET: u8 = 190;

/// The only node's name.
pub(super) const NODE: &str = "node";

/// The port of the API.
pub(super) const API_PORT: u16 = 6443;

/// The API server's audit log, beside the kubeconfig of the administrator.
pub const AUDIT_LOG: &str = "logs/audit.log";

/// Where the directory of the instance appears inside the cluster's own mount namespace: short, because paths of Unix sockets have an end.
const INSIDE: &str = "/run/fanout-e2e";

/// The addresses of an instance: all in one /16 of its own, so that clusters run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    instance: u8,
}

impl Addresses {
    /// Those of an instance, 0 to [`LAST_INSTANCE`].
    pub fn of(instance: u8) -> Self {
        Self {
            instance: instance.min(LAST_INSTANCE),
        }
    }

    fn at(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, FIRST_NET + self.instance, third, fourth)
    }

    /// The node: the API, the kubelet, DNS and what else listens in the cluster's network namespace.
    pub fn node(self) -> Ipv4Addr {
        self.at(255, 2)
    }

    /// This machine, as pods reach it.
    pub fn host(self) -> Ipv4Addr {
        self.at(255, 1)
    }

    /// The range of pods.
    pub fn pods(self) -> String {
        format!("{}/17", self.at(0, 0))
    }

    /// The range of Services.
    pub fn services(self) -> String {
        format!("{}/18", self.at(128, 0))
    }

    /// The address of the Service `kubernetes`: the first of the range.
    pub(super) fn kubernetes_service(self) -> Ipv4Addr {
        self.at(128, 1)
    }

    /// The host's end of the cable. Interface names have 15 bytes at most.
    pub(super) fn host_interface(self) -> String {
        format!("fanout-e2e-{}", self.instance)
    }

    /// The control group beneath which all pods run.
    pub(super) fn cgroup(self) -> String {
        format!("fanout-e2e-{}", self.instance)
    }
}

/// The programs of the cluster.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The directory of those that were built from Go modules.
    pub built: PathBuf,
}

impl Programs {
    /// One of those that were built.
    pub fn built(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }
}

/// The files of an instance, as seen from the host or from inside.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// As the host sees them.
    pub(super) fn outside(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// As the cluster's own processes see them.
    pub(super) fn inside() -> Self {
        Self { root: INSIDE.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.root.join("certificates").join(format!("{name}.crt"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.root.join("certificates").join(format!("{name}.key"))
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Who wrote what by the API.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.root.join(AUDIT_LOG)
    }

    /// A kubeconfig: `admin` or `kubelet`.
    pub(super) fn kubeconfig(&self, of: &str) -> PathBuf {
        self.root.join(format!("{of}.kubeconfig"))
    }

    pub(super) fn containerd_socket(&self) -> PathBuf {
        self.root.join("containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_no_address_and_no_name() {
        let (one, other) = (Addresses::of(0), Addresses::of(1));
        assert_eq!(one.node().to_string(), "10.190.255.2");
        assert_eq!(other.pods(), "10.191.0.0/17");
        assert_eq!(other.services(), "10.191.128.0/18");
        assert_ne!(one.host_interface(), other.host_interface());
        assert_ne!(one.cgroup(), other.cgroup());
    }

    #[test]
    fn the_host_and_the_node_are_in_no_range_that_is_given_out() {
        // 255 is beyond 0–127 (pods) and 128–191 (Services).
        assert_eq!(Addresses::of(9).host().octets()[2], 255);
        assert_eq!(Addresses::of(9).node().octets()[2], 255);
    }

    #[test]
    fn interface_names_fit() {
        assert!(Addresses::of(LAST_INSTANCE).host_interface().len() <= 15);
    }
}
