//! The processes of the cluster: their arguments and their configuration files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::plan::{API_PORT, Addresses, Files, NODE, Programs};
use crate::process::Spec;

/// The name of the image whose container holds a pod's namespaces, as containerd asks for it. It is [`crate::tools::pause_image`].
pub const PAUSE_IMAGE: &str = "docker.io/library/fanout-e2e-pause:1";

/// Who wrote what, and when it was done. Reads are too many, and tests ask for none of them.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
";

/// One process of the cluster.
pub(super) struct Component {
    /// How to start it.
    pub(super) spec: Spec,
    /// The port of 127.0.0.1 or the socket that says it is there, where others wait for it.
    pub(super) listens: Option<Listens>,
}

/// What others wait for.
pub(super) enum Listens {
    Port(u16),
    Socket(PathBuf),
}

/// All of them, in the order in which they start.
pub(super) fn all(programs: &Programs, addresses: Addresses) -> Vec<Component> {
    let start = Start {
        programs,
        files: Files::inside(),
        addresses,
    };
    vec![
        start.etcd(),
        start.containerd(),
        start.apiserver(),
        start.controller_manager(),
        start.scheduler(),
        start.kubelet(),
        start.proxy(),
        start.dns(),
    ]
}

/// Writes the files that they read. The paths in them are those inside.
pub(super) fn configure(outside: &Files, addresses: Addresses) -> Result<()> {
    let inside = Files::inside();
    for (name, text) in [
        ("containerd.toml", containerd_config(&inside)),
        ("cni/10-bridge.conflist", cni(addresses)),
        ("kubelet.yaml", kubelet_config(&inside, addresses)),
        ("kube-proxy.yaml", proxy_config(&inside, addresses)),
        ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
        ("Corefile", corefile(&inside)),
    ] {
        let path = outside.at(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

struct Start<'a> {
    programs: &'a Programs,
    files: Files,
    addresses: Addresses,
}

impl Start<'_> {
    fn spec(&self, name: &str, program: PathBuf) -> Spec {
        Spec::new(name, program, self.files.log(name))
    }

    fn built(&self, name: &str) -> Spec {
        self.spec(name, self.programs.built(name))
    }

    fn etcd(&self) -> Component {
        // Only processes of this network namespace reach 127.0.0.1.
        let client = "http://127.0.0.1:2379";
        let peer = "http://127.0.0.1:2380";
        let spec = self
            // The name that `go install` gives to etcd's main package.
            .spec("etcd", self.programs.built("server"))
            .arg("--name=e2e")
            .arg(format!("--data-dir={}", self.files.at("etcd").display()))
            // What a power cut would lose is thrown away anyway.
            .arg("--unsafe-no-fsync")
            .arg("--log-level=warn")
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ])
            .arg(format!("--initial-cluster=e2e={peer}"));
        Component {
            spec,
            listens: Some(Listens::Port(2379)),
        }
    }

    fn apiserver(&self) -> Component {
        let files = &self.files;
        let spec = self
            .built("kube-apiserver")
            .arg("--etcd-servers=http://127.0.0.1:2379")
            .arg(format!("--secure-port={API_PORT}"))
            .arg(format!("--advertise-address={}", self.addresses.node()))
            .arg(format!("--service-cluster-ip-range={}", self.addresses.services()))
            .arg(format!("--tls-cert-file={}", files.certificate("apiserver").display()))
            .arg(format!("--tls-private-key-file={}", files.key("apiserver").display()))
            .arg(format!("--client-ca-file={}", files.certificate("ca").display()))
            // The public half.
            .arg(format!(
                "--service-account-key-file={}",
                files.certificate("service-accounts").display()
            ))
            .arg(format!(
                "--service-account-signing-key-file={}",
                files.key("service-accounts").display()
            ))
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg("--authorization-mode=Node,RBAC")
            .arg("--enable-admission-plugins=NodeRestriction")
            .arg("--allow-privileged=true")
            .arg(format!(
                "--kubelet-client-certificate={}",
                files.certificate("admin").display()
            ))
            .arg(format!("--kubelet-client-key={}", files.key("admin").display()))
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(format!(
                "--audit-policy-file={}",
                files.at("audit-policy.yaml").display()
            ))
            .arg(format!("--audit-log-path={}", files.audit_log().display()))
            // In MiB, as the disk is: three files of this are some 200,000 writes.
            .args(["--audit-log-maxsize=64", "--audit-log-maxbackup=2"]);
        Component {
            spec,
            listens: Some(Listens::Port(API_PORT)),
        }
    }

    fn controller_manager(&self) -> Component {
        let files = &self.files;
        let spec = self
            .built("kube-controller-manager")
            .arg(format!("--kubeconfig={}", files.kubeconfig("admin").display()))
            .arg(format!(
                "--service-account-private-key-file={}",
                files.key("service-accounts").display()
            ))
            .arg(format!("--root-ca-file={}", files.certificate("ca").display()))
            .arg("--use-service-account-credentials=false")
            .arg("--leader-elect=false")
            // As clusters of some size have it. With 20 a second for each of its controllers, a thousand Deployments take minutes to be
            // seen, whatever an operator does.
            .args(["--kube-api-qps=200", "--kube-api-burst=400"])
            .arg("--bind-address=127.0.0.1");
        Component { spec, listens: None }
    }

    fn scheduler(&self) -> Component {
        let spec = self
            .built("kube-scheduler")
            .arg(format!("--kubeconfig={}", self.files.kubeconfig("admin").display()))
            .arg("--leader-elect=false")
            .arg("--bind-address=127.0.0.1");
        Component { spec, listens: None }
    }

    fn containerd(&self) -> Component {
        let spec = self
            .spec("containerd", "containerd".into())
            .arg("--config")
            .arg(self.files.at("containerd.toml"));
        Component {
            spec,
            listens: Some(Listens::Socket(self.files.containerd_socket())),
        }
    }

    fn kubelet(&self) -> Component {
        let spec = self
            .built("kubelet")
            .arg(format!("--config={}", self.files.at("kubelet.yaml").display()))
            .arg(format!("--kubeconfig={}", self.files.kubeconfig("kubelet").display()))
            .arg(format!("--node-ip={}", self.addresses.node()))
            .arg(format!("--hostname-override={NODE}"));
        Component { spec, listens: None }
    }

    fn proxy(&self) -> Component {
        let spec = self
            .built("kube-proxy")
            .arg(format!("--config={}", self.files.at("kube-proxy.yaml").display()));
        Component { spec, listens: None }
    }

    fn dns(&self) -> Component {
        let spec = self.built("coredns").arg("-conf").arg(self.files.at("Corefile"));
        Component { spec, listens: None }
    }
}

fn containerd_config(files: &Files) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Not every machine lets its root lower a process's OOM score.
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#,
        root = files.at("containerd").display(),
        socket = files.containerd_socket().display(),
        plugins = cni_plugins(),
        cni = files.at("cni").display(),
    )
}

/// Where Debian's package puts the plugins, and where others do.
fn cni_plugins() -> &'static str {
    ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .find(|dir| std::path::Path::new(dir).join("bridge").is_file())
        .unwrap_or("/usr/lib/cni")
}

fn cni(addresses: Addresses) -> String {
    // Without masquerading: the host has a route back to each pod, and sees who it is.
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "fanout-e2e",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}
    }}
  ]
}}
"#,
        addresses.pods()
    )
}

fn kubelet_config(files: &Files, addresses: Addresses) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{socket}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: Webhook}}
clusterDomain: cluster.local
clusterDNS: [{dns}]
# The host's search domains are not the cluster's, and its file may lead into a /run that is hidden here.
resolvConf: \"\"
# Machines of developers and of CI systems may have either version.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
# It may set neither kernel parameters nor OOM scores here, and goes on without.
featureGates: {{KubeletInUserNamespace: true}}
failSwapOn: false
# Disks of developers are full, and a test that waits for a pod is not to wait for disk pressure to go.
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Tests wait for pods: look often.
syncFrequency: 10s
configMapAndSecretChangeDetectionStrategy: Watch
nodeStatusUpdateFrequency: 5s
registerWithTaints: []
serializeImagePulls: false
",
        socket = files.containerd_socket().display(),
        ca = files.certificate("ca").display(),
        dns = addresses.node(),
        cgroup = addresses.cgroup(),
    )
}

fn proxy_config(files: &Files, addresses: Addresses) -> String {
    // No limits of connection tracking: they are the machine's, not this namespace's.
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {NODE}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: {kubeconfig}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
metricsBindAddress: 127.0.0.1:10249
",
        pods = addresses.pods(),
        kubeconfig = files.kubeconfig("admin").display(),
    )
}

fn corefile(files: &Files) -> String {
    // Nothing is cached, so that a test sees what is. Names outside of the cluster do not exist: no test may need the Internet.
    format!(
        "cluster.local {{
    errors
    kubernetes cluster.local {{
        kubeconfig {}
        ttl 1
    }}
}}
. {{
    errors
    template IN ANY {{
        rcode NXDOMAIN
    }}
}}
",
        files.kubeconfig("admin").display()
    )
}
