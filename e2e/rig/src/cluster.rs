//! The Kubernetes that the run's tests share, and namespaces of their own in it.

use std::env;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use e2e::cluster::{
    self as own, BIN_VARIABLE, FORWARDER_IMAGE_2_VARIABLE, FORWARDER_IMAGE_VARIABLE, HOST_ADDRESS_VARIABLE,
    KUBECONFIG_VARIABLE, OPERATOR_IMAGE_VARIABLE, Programs,
};
use e2e::tools;

/// The cluster that `cargo e2e cluster up` starts, unless E2E_CLUSTER has another number.
const OF_PEOPLE: u8 = 0;

/// How to reach the cluster, and what is in it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The kubeconfig of somebody who may do everything.
    pub kubeconfig: PathBuf,
    /// Where a server of this machine must listen to be reached by pods. Tests reach it there too.
    pub host_address: Ipv4Addr,
    /// The directory of kubectl, helm and kubeconform.
    pub bin: PathBuf,
    /// The operator's image.
    pub operator_image: String,
    /// The forwarder's image.
    pub forwarder_image: String,
    /// The same under another name, for what happens when an image changes.
    pub forwarder_image_2: String,
}

impl Cluster {
    /// The cluster that the runner names, else the one that `cargo e2e cluster up` has started.
    pub fn of_this_run() -> Result<Self> {
        let named = |variable: &str| env::var(variable).ok().filter(|value| !value.is_empty());
        let Some(kubeconfig) = named(KUBECONFIG_VARIABLE) else {
            return Self::of_people();
        };
        let must = |variable: &str| {
            named(variable).with_context(|| format!("{KUBECONFIG_VARIABLE} is set, and so must {variable} be"))
        };
        let host_address = must(HOST_ADDRESS_VARIABLE)?;
        Ok(Self {
            kubeconfig: kubeconfig.into(),
            host_address: host_address
                .parse()
                .with_context(|| format!("{HOST_ADDRESS_VARIABLE} is no IPv4 address: {host_address}"))?,
            bin: must(BIN_VARIABLE)?.into(),
            operator_image: must(OPERATOR_IMAGE_VARIABLE)?,
            forwarder_image: must(FORWARDER_IMAGE_VARIABLE)?,
            forwarder_image_2: must(FORWARDER_IMAGE_2_VARIABLE)?,
        })
    }

    fn of_people() -> Result<Self> {
        let bin = tools::kubernetes()?;
        let programs = Programs { built: bin.clone() };
        let instance = match env::var(own::INSTANCE_VARIABLE) {
            Ok(number) => number
                .parse()
                .with_context(|| format!("{} is no number: {number}", own::INSTANCE_VARIABLE))?,
            Err(_) => OF_PEOPLE,
        };
        let cluster = own::Cluster::find(instance, programs)?.context(
            "this test needs a cluster: run its suite by `cargo e2e test`, or `cargo e2e cluster up` before it",
        )?;
        Ok(Self {
            kubeconfig: cluster.kubeconfig(),
            host_address: cluster.host_address(),
            bin,
            operator_image: "fanout-operator:dev".to_owned(),
            forwarder_image: "fanout-forwarder:dev".to_owned(),
            forwarder_image_2: "fanout-forwarder:dev2".to_owned(),
        })
    }

    /// One of the programs in [`Cluster::bin`], told which cluster it is about.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }

    /// Runs kubectl and yields what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")
    }

    /// Creates or changes what a manifest describes, YAML or JSON.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["apply", "--filename=-"], manifest).map(drop)
    }

    /// Makes a namespace whose name begins with `name`, and in which no pod may have more rights than it needs.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        self.namespace_with(name, &[])
    }

    /// As [`Cluster::namespace`], with further labels.
    pub fn namespace_with(&self, name: &str, labels: &[(&str, &str)]) -> Result<Namespace> {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let name = format!("{name}-{:x}-{:x}", std::process::id(), nanos & 0xffff_ffff);
        let further: String = labels
            .iter()
            .map(|(key, value)| format!(", {key}: \"{value}\""))
            .collect();
        self.apply(&format!(
            "apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{pod-security.kubernetes.io/enforce: restricted{further}}}
"
        ))?;
        Ok(Namespace {
            cluster: self.clone(),
            name,
        })
    }

    /// As [`Cluster::kubectl`], with this on its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .program("kubectl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run kubectl")?;
        // Dropped at once, so that it sees an end.
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .context("failed to write to kubectl")?;
        }
        let output = child.wait_with_output().context("failed to wait for kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {} failed ({}): {}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A namespace that is deleted, with all in it, when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(args);
        self.cluster.kubectl(&all)
    }

    /// Creates or changes in it what a manifest describes.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let args = ["--namespace", &self.name, "apply", "--filename=-"];
        self.cluster.kubectl_with(&args, manifest).map(drop)
    }

    /// Waits until `kubectl wait --for=CONDITION` of an object (`pod/name`) holds. Fails with what the object looks like.
    pub fn wait(&self, object: &str, condition: &str, within: Duration) -> Result<()> {
        let (condition, timeout) = (format!("--for={condition}"), format!("--timeout={}s", within.as_secs()));
        self.kubectl(&["wait", object, &condition, &timeout])
            .map(drop)
            .with_context(|| match self.kubectl(&["describe", object]) {
                Ok(text) => format!("{object} is now\n{text}"),
                Err(error) => format!("({object} cannot be described: {error:#})"),
            })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody waits for it; the cluster goes anyway.
        drop(
            self.cluster
                .kubectl(&["delete", "namespace", &self.name, "--wait=false"]),
        );
    }
}
