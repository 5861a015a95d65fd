//! A stand-in for the forwarder of the first release, where tests need pods that are older than the operator.
//!
//! It forwards nothing. It reads the ring as that release does (the types here are a copy that never changes), refuses a ring with a field
//! that it does not know, goes on with the one that it had, and says so in `/status`, without a version. A real older forwarder would need
//! the sources of that release, which a checkout need not have.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// How often the ring is looked at.
const EVERY: Duration = Duration::from_millis(300);

/// The file that names the version of the mounted credentials.
const CREDENTIALS_VERSION: &str = "/etc/fanout/credentials/version";

#[derive(Parser)]
enum Cli {
    /// What an operator has its pods do.
    Run(Run),
}

#[derive(Args)]
struct Run {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    ring_file: PathBuf,
    #[arg(long)]
    ring_config_map: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ring {
    epoch: u64,
    #[serde(rename = "replicas")]
    _replicas: u32,
    #[serde(rename = "handoverTimeoutMs")]
    _handover_timeout_ms: u64,
    clusters: Vec<Cluster>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cluster {
    name: String,
    #[serde(rename = "servers")]
    _servers: Vec<String>,
    #[serde(rename = "weight")]
    _weight: u32,
    #[serde(rename = "auth")]
    _auth: Option<Value>,
    #[serde(rename = "tls")]
    _tls: Option<Value>,
}

/// What it knows of its ring.
#[derive(Clone, Default)]
struct Known {
    epoch: u64,
    clusters: Vec<String>,
    refused: Option<String>,
    refusals: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Cli::Run(Run {
        config,
        ring_file: _,
        ring_config_map,
    }) = Cli::parse();
    std::fs::metadata(&config).with_context(|| format!("failed to find {}", config.display()))?;
    let (namespace, name) = ring_config_map.split_once('/').context("no NAMESPACE/NAME")?;
    let client = Client::try_default().await.context("failed to find the API server")?;
    let maps = Api::<ConfigMap>::namespaced(client, namespace);
    let (said, known) = watch::channel(Known::default());
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 4000))
        .await
        .context("failed to listen")?;
    let mut told_to_end = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    tokio::select! {
        _ = told_to_end.recv() => Ok(()),
        () = look(&maps, name, &said) => Ok(()),
        result = serve(&listener, known) => result,
    }
}

/// Looks at the ring, for ever.
async fn look(maps: &Api<ConfigMap>, name: &str, said: &watch::Sender<Known>) {
    loop {
        if let Ok(Some(map)) = maps.get_opt(name).await
            && let Some(text) = map.data.as_ref().and_then(|data| data.get("ring.yaml"))
        {
            said.send_if_modified(|known| known.hear(text));
        }
        sleep(EVERY).await;
    }
}

impl Known {
    fn hear(&mut self, text: &str) -> bool {
        match serde_saphyr::from_str::<Ring>(text) {
            Ok(ring) if ring.epoch > self.epoch => {
                self.epoch = ring.epoch;
                self.clusters = ring.clusters.into_iter().map(|cluster| cluster.name).collect();
                self.refused = None;
                true
            }
            Ok(_) => self.refused.take().is_some(),
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&mut self, error: &impl fmt::Display) -> bool {
        let reason = Some(error.to_string());
        let is_new = self.refused != reason;
        if is_new {
            self.refused = reason;
            self.refusals += 1;
        }
        is_new
    }

    /// As that release says it; how often it has refused a ring is on top, for the test.
    fn status(&self) -> Value {
        let clusters: Map<String, Value> = self
            .clusters
            .iter()
            .map(|name| (name.clone(), json!({"connected": true})))
            .collect();
        let mut status = json!({
            "phase": "idle",
            "ringEpoch": self.epoch,
            "ring": {"epoch": self.epoch, "movedShare": 0.0, "waitingAssets": 0},
            "assignment": {},
            "clusters": clusters,
            "membershipProven": true,
            "refusals": self.refusals,
        });
        if self.epoch == 0 {
            status["phase"] = json!("withoutRing");
            status["reason"] = json!("there is none that it can read");
        }
        if let Some(refused) = &self.refused {
            status["ring"]["refused"] = json!(refused);
        }
        if let Ok(version) = std::fs::read_to_string(CREDENTIALS_VERSION) {
            status["credentialsVersion"] = json!(version.trim());
        }
        status
    }
}

async fn serve(listener: &TcpListener, known: watch::Receiver<Known>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("failed to accept")?;
        let known = known.borrow().clone();
        tokio::spawn(async move { drop(answer(stream, &known).await) });
    }
}

async fn answer(mut stream: TcpStream, known: &Known) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "the request has no end");
    }
    let path = String::from_utf8_lossy(&request);
    let path = path.split(' ').nth(1).unwrap_or_default();
    let (code, body) = match path {
        "/healthz" => (200, "ok\n".to_owned()),
        "/readyz" if known.epoch > 0 => (200, "ok\n".to_owned()),
        "/readyz" => (503, "there is no ring\n".to_owned()),
        "/status" => (200, known.status().to_string()),
        _ => (404, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {code} \r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
