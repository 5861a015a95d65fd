//! Flux's kustomize-controller as a process of this machine, fed by archives that we serve.
//!
//! It applies with server-side apply, prunes, waits by kstatus and holds drift against what it applied, exactly as in a cluster; what is not
//! here is Flux's source-controller, which would fetch from Git or a registry. In its place stands an `ExternalArtifact`, Flux' own way to let
//! somebody else do that.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::port::Port;
use e2e::process::{Process, Spec};
use e2e::tools::{self, FLUX_DEFINITIONS};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::kubernetes::Kubernetes;
use crate::wait;

/// From the start to the first answer of its probe.
const STARTS: Duration = Duration::from_secs(60);

/// The controller, for the Kustomizations of all namespaces. It ends when this is dropped.
pub struct Flux {
    process: Process,
    kubernetes: Kubernetes,
    served: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    address: String,
    server: JoinHandle<()>,
    dir: TempDir,
}

impl Flux {
    /// Installs Flux's definitions and starts it; returns when it is ready.
    pub async fn start(kubernetes: &Kubernetes) -> Result<Self> {
        let programs = tools::gitops()?;
        let definitions = programs.join(FLUX_DEFINITIONS);
        let definitions = definitions.to_str().context("the cache's path is no text")?;
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename", definitions];
        kubernetes.kubectl(&apply, "").await?;
        for name in ["kustomizations.kustomize", "externalartifacts.source"] {
            let name = format!("crd/{name}.toolkit.fluxcd.io");
            let wait = ["wait", "--for=condition=Established", &name, "--timeout=30s"];
            kubernetes.kubectl(&wait, "").await?;
        }
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-flux-")
            .tempdir()
            .context("failed to make a directory")?;
        let (health, metrics) = (Port::reserve()?, Port::reserve()?);
        let spec = Spec::new(
            "kustomize-controller",
            programs.join("kustomize-controller"),
            dir.path().join("flux.log"),
        )
        .env("KUBECONFIG", &kubernetes.cluster.kubeconfig)
        .env("RUNTIME_NAMESPACE", "flux-system")
        .env("TMPDIR", dir.path())
        .args([
            "--feature-gates=ExternalArtifact=true",
            "--log-encoding=console",
            "--log-level=debug",
        ])
        // What it depends on is looked at again at once, and a reconcile that has failed is tried again soon.
        .args(["--requeue-dependency=1s", "--max-retry-delay=2s"])
        .args([
            format!("--health-addr={}", health.address()),
            format!("--metrics-addr={}", metrics.address()),
        ]);
        let process = Process::start(spec)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen")?;
        let address = listener.local_addr().context("no address")?.to_string();
        let served = Arc::new(Mutex::new(BTreeMap::new()));
        let server = tokio::spawn(serve(listener, Arc::clone(&served)));
        let flux = Self {
            process,
            kubernetes: kubernetes.clone(),
            served,
            address,
            server,
            dir,
        };
        let ready = wait::eventually(STARTS, "Flux is ready", || async {
            let (code, _) = crate::http::get(&health.address(), "/readyz").await?;
            Ok(code == 200)
        });
        ready.await.with_context(|| flux.log_tail())?;
        Ok(flux)
    }

    /// Makes files the newest revision of a source: an `ExternalArtifact` of this name and namespace.
    pub async fn publish(&self, namespace: &str, source: &str, files: &[(String, String)]) -> Result<String> {
        let archive = self.archive(files)?;
        let digest = digest(&archive)?;
        let path = format!("/{namespace}/{source}/{digest}.tar.gz");
        let size = archive.len();
        self.served
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.clone(), archive);
        let metadata = json!({"name": source, "namespace": namespace});
        let kind = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact"});
        let with = |part: Value| {
            let mut object = kind.clone();
            object["metadata"] = metadata.clone();
            if let (Some(object), Value::Object(part)) = (object.as_object_mut(), part) {
                object.extend(part);
            }
            object.to_string()
        };
        let spec = with(json!({"spec": {"sourceRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": source}}}));
        self.kubernetes
            .kubectl(&["apply", "--server-side", "--filename=-"], &spec)
            .await?;
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let revision = format!("main@sha256:{digest}");
        let status = with(json!({"status": {
            "artifact": {
                "digest": format!("sha256:{digest}"),
                "lastUpdateTime": now,
                "path": path,
                "revision": revision,
                "size": size,
                "url": format!("http://{}{path}", self.address),
            },
            "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "served by a test", "lastTransitionTime": now}],
        }}));
        let apply = ["apply", "--server-side", "--subresource=status", "--filename=-"];
        self.kubernetes.kubectl(&apply, &status).await?;
        Ok(revision)
    }

    /// What it has logged last.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    fn archive(&self, files: &[(String, String)]) -> Result<Vec<u8>> {
        let place = tempfile::tempdir_in(self.dir.path()).context("failed to make a directory")?;
        for (path, text) in files {
            let path = place.path().join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
            }
            std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        // The same files are the same archive.
        let output = Command::new("tar")
            .args([
                "--sort=name",
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "--create",
                "--gzip",
                "--directory",
            ])
            .arg(place.path())
            .arg(".")
            .output()
            .context("failed to run tar")?;
        ensure!(
            output.status.success(),
            "tar failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn digest(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run sha256sum")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).context("failed to write to sha256sum")?;
    }
    let output = child.wait_with_output().context("failed to wait for sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split(' ').next() {
        Some(digest) if digest.len() == 64 => Ok(digest.to_owned()),
        _ => bail!("sha256sum says {text}"),
    }
}

/// An HTTP server for archives.
async fn serve(listener: TcpListener, served: Arc<Mutex<BTreeMap<String, Vec<u8>>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let served = Arc::clone(&served);
        // A client that goes away is tried again by it.
        tokio::spawn(async move { drop(answer(stream, &served).await) });
    }
}

async fn answer(mut stream: TcpStream, served: &Mutex<BTreeMap<String, Vec<u8>>>) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "the client went away");
        request.extend(piece.iter().take(read));
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = served.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    Ok(())
}
