//! The built `operator` binary as a process of this machine, so that a test can kill it.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::port::Port;
use e2e::process::{Process, Spec};
use tempfile::TempDir;

use super::Kubernetes;
use crate::forwarder::Metrics;
use crate::{forwarder, http, wait};

/// From the start to leading: a Lease that nobody holds, on a machine that is busy.
const LEADS: Duration = Duration::from_secs(60);

/// An operator. It ends when this is dropped.
pub struct Operator {
    process: Process,
    metrics: Port,
    router: Port,
    _dir: TempDir,
}

impl Operator {
    /// Starts one that watches a namespace alone, and holds its Lease there.
    pub fn of_namespace(kubernetes: &Kubernetes, namespace: &str, identity: &str) -> Result<Self> {
        let image = &kubernetes.cluster.forwarder_image;
        Self::of_namespace_with(kubernetes, namespace, identity, image)
    }

    /// As [`Operator::of_namespace`], whose forwarders run this image by default.
    pub fn of_namespace_with(kubernetes: &Kubernetes, namespace: &str, identity: &str, image: &str) -> Result<Self> {
        Self::start(
            kubernetes,
            namespace,
            identity,
            image,
            &["--watch-namespace", namespace],
        )
    }

    /// Starts one that watches all namespaces: no other test may run beside it.
    pub fn of_cluster(kubernetes: &Kubernetes, namespace: &str, identity: &str) -> Result<Self> {
        Self::start(
            kubernetes,
            namespace,
            identity,
            &kubernetes.cluster.forwarder_image,
            &[],
        )
    }

    fn start(
        kubernetes: &Kubernetes,
        namespace: &str,
        identity: &str,
        forwarder_image: &str,
        further: &[&str],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-operator-")
            .tempdir()
            .context("failed to make a directory")?;
        let (metrics, router) = (Port::reserve()?, Port::reserve()?);
        let spec = Spec::new(identity, forwarder::built("operator")?, dir.path().join("operator.log"))
            .env("KUBECONFIG", &kubernetes.cluster.kubeconfig)
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
                forwarder_image,
                "--log-format",
                "text",
                "--log-level",
                "debug",
            ])
            .args(further);
        Ok(Self {
            process: Process::start(spec)?,
            metrics,
            router,
            _dir: dir,
        })
    }

    /// Waits until it holds the Lease.
    pub async fn wait_leads(&mut self) -> Result<()> {
        let leads = wait::eventually(LEADS, "the operator leads", || async {
            Ok(self.metrics().await?.sum("fanout_operator_leader", &[]) == 1.0)
        })
        .await;
        leads.with_context(|| self.process.log_tail())
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(
            &http::get_ok(&self.metrics.address(), "/metrics").await?,
        ))
    }

    /// Asks its router.
    pub async fn route(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.router.address(), path).await
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
