//! The built `operator` binary as a process of this machine, so that a test can kill it.

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::port::Port;
use e2e::process::{Process, Spec};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::rights::OPERATORS;
use super::{ApiProxy, Kubernetes};
use crate::forwarder::Metrics;
use crate::{forwarder, http, wait};

/// From the start to leading: a Lease that nobody holds, on a machine that is busy.
const LEADS: Duration = Duration::from_secs(60);

/// An operator. It ends when this is dropped.
pub struct Operator {
    process: Process,
    metrics: Port,
    router: Port,
    user: String,
    _dir: TempDir,
}

/// What is not as usual.
#[derive(Clone, Copy)]
struct With<'a> {
    /// The default image of its forwarders.
    image: Option<&'a str>,
    /// What stands before the API server.
    proxy: Option<&'a ApiProxy>,
    /// Flags of its log.
    log: &'a [&'a str],
}

impl Default for With<'_> {
    fn default() -> Self {
        Self {
            image: None,
            proxy: None,
            log: &["--log-format", "text", "--log-level", "debug"],
        }
    }
}

impl Operator {
    /// Starts one that watches a namespace alone, and holds its Lease there.
    pub fn of_namespace(kubernetes: &Kubernetes, namespace: &str, identity: &str) -> Result<Self> {
        Self::start(
            kubernetes,
            namespace,
            identity,
            With::default(),
            &["--watch-namespace", namespace],
        )
    }

    /// As [`Operator::of_namespace`], whose forwarders run this image by default.
    pub fn of_namespace_with(kubernetes: &Kubernetes, namespace: &str, identity: &str, image: &str) -> Result<Self> {
        let with = With {
            image: Some(image),
            ..With::default()
        };
        Self::start(kubernetes, namespace, identity, with, &["--watch-namespace", namespace])
    }

    /// As [`Operator::of_namespace`], with its Lease in the namespace `home`.
    pub fn from_elsewhere(kubernetes: &Kubernetes, home: &str, namespace: &str, identity: &str) -> Result<Self> {
        let further = ["--watch-namespace", namespace];
        Self::start(kubernetes, home, identity, With::default(), &further)
    }

    /// As [`Operator::of_namespace`], with a proxy before the API server.
    pub fn behind(proxy: &ApiProxy, kubernetes: &Kubernetes, namespace: &str, identity: &str) -> Result<Self> {
        Self::behind_from_elsewhere(proxy, kubernetes, namespace, namespace, identity)
    }

    /// As [`Operator::behind`], with its Lease in the namespace `home`.
    pub fn behind_from_elsewhere(
        proxy: &ApiProxy,
        kubernetes: &Kubernetes,
        home: &str,
        namespace: &str,
        identity: &str,
    ) -> Result<Self> {
        let with = With {
            proxy: Some(proxy),
            ..With::default()
        };
        Self::start(kubernetes, home, identity, with, &["--watch-namespace", namespace])
    }

    /// Starts one that watches all namespaces: no other test may run beside it.
    pub fn of_cluster(kubernetes: &Kubernetes, namespace: &str, identity: &str) -> Result<Self> {
        Self::start(kubernetes, namespace, identity, With::default(), &[])
    }

    /// Starts one with these flags.
    pub fn with_flags(kubernetes: &Kubernetes, namespace: &str, identity: &str, flags: &[&str]) -> Result<Self> {
        Self::start(kubernetes, namespace, identity, With::default(), flags)
    }

    /// Starts one to be measured, with these flags: its log is that of an installed one, not the long one that tests want.
    pub fn measured(
        kubernetes: &Kubernetes,
        namespace: &str,
        identity: &str,
        proxy: Option<&ApiProxy>,
        flags: &[&str],
    ) -> Result<Self> {
        let with = With {
            proxy,
            log: &[],
            ..With::default()
        };
        Self::start(kubernetes, namespace, identity, with, flags)
    }

    fn start(
        kubernetes: &Kubernetes,
        namespace: &str,
        identity: &str,
        with: With<'_>,
        further: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-operator-")
            .tempdir()
            .context("failed to make a directory")?;
        let user = format!("{identity}.{namespace}");
        let kubeconfig = dir.path().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(&user, kubernetes, with.proxy)?.to_string())
            .context("failed to write a kubeconfig")?;
        let (metrics, router) = (Port::reserve()?, Port::reserve()?);
        let spec = Spec::new(identity, forwarder::built("operator")?, dir.path().join("operator.log"))
            .env("KUBECONFIG", &kubeconfig)
            .args([
                "--namespace",
                namespace,
                "--identity",
                identity,
                "--address",
                "127.0.0.1",
            ])
            .args(["--metrics-port".to_owned(), metrics.number().to_string()])
            .args(["--router-port".to_owned(), router.number().to_string()])
            .args([
                "--forwarder-image",
                with.image.unwrap_or(&kubernetes.cluster.forwarder_image),
            ])
            .args(with.log)
            .args(further);
        Ok(Self {
            process: Process::start(spec)?,
            metrics,
            router,
            user,
            _dir: dir,
        })
    }

    /// Its name in the API server's audit log.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Waits until it holds the Lease.
    pub async fn wait_leads(&mut self) -> Result<()> {
        let leads = wait::eventually(LEADS, "the operator leads", || async {
            Ok(self.metrics().await?.sum("fanout_operator_leader", &[]) == 1.0)
        })
        .await;
        leads.with_context(|| self.process.log_tail())
    }

    /// `host:port` of its metrics.
    pub fn metrics_address(&self) -> String {
        self.metrics.address()
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(
            &http::get_ok(&self.metrics.address(), "/metrics").await?,
        ))
    }

    /// `host:port` of its router.
    pub fn router_address(&self) -> String {
        self.router.address()
    }

    /// Asks its router.
    pub async fn route(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.router_address(), path).await
    }

    /// The process, to signal it and to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGKILL, as when its node goes.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// Starts it again after [`Operator::kill9`], under the same name.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.start_again()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.process.wait_exit(Duration::from_secs(30))
    }
}

/// An administrator's kubeconfig that acts as another user, who may do what the chart grants. The audit log tells operators apart by their
/// names. The API server gives them the priority of ServiceAccounts.
fn kubeconfig_of(user: &str, kubernetes: &Kubernetes, proxy: Option<&ApiProxy>) -> Result<Value> {
    let named = json!({"as": user, "as-groups": [OPERATORS, "system:serviceaccounts"]});
    if let Some(proxy) = proxy {
        return Ok(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "clusters": [{"name": "proxy", "cluster": {"server": proxy.url()}}],
            "users": [{"name": "operator", "user": named}],
        }));
    }
    let path = &kubernetes.cluster.kubeconfig;
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("failed to understand {}", path.display()))?;
    for entry in config["users"].as_array_mut().into_iter().flatten() {
        for (field, value) in named.as_object().into_iter().flatten() {
            entry["user"][field] = value.clone();
        }
    }
    Ok(config)
}
