//! A Prometheus as a child process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::port::Port;
use e2e::process::{Process, Spec};
use e2e::tools;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{http, wait};

/// Ready takes less than a second on an idle machine.
const START: Duration = Duration::from_secs(30);

/// What is scraped, each second.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`; the page is `/metrics`.
    pub address: String,
    /// What a scrape adds to each series, `job` among them.
    pub labels: BTreeMap<String, String>,
}

/// A Prometheus. It ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: Port,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these targets and evaluates these rule files, each second, and waits until it answers.
    pub async fn start(targets: &[Target], rules: &[&Path]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-prometheus-")
            .tempdir()
            .context("failed to make a directory")?;
        let scrapes: Vec<Value> = targets
            .iter()
            .enumerate()
            .map(|(place, target)| {
                let found = json!([{"targets": [target.address], "labels": target.labels}]);
                json!({"job_name": format!("target-{place}"), "static_configs": found})
            })
            .collect();
        let rules = rules
            .iter()
            .map(|path| path.canonicalize().with_context(|| format!("no {}", path.display())))
            .collect::<Result<Vec<_>>>()?;
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": scrapes,
        });
        let file = dir.path().join("prometheus.yml");
        // JSON is YAML.
        fs::write(&file, config.to_string()).with_context(|| format!("failed to write {}", file.display()))?;
        let port = Port::reserve()?;
        let spec = Spec::new(
            "prometheus",
            tools::prometheus("prometheus")?,
            dir.path().join("prometheus.log"),
        )
        .dir(dir.path())
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={}", port.address()));
        let prometheus = Self {
            process: Process::start(spec)?,
            port,
            _dir: dir,
        };
        wait::eventually(START, "Prometheus is ready", || async {
            http::get_ok(&prometheus.port.address(), "/-/ready").await.map(|_| true)
        })
        .await
        .with_context(|| prometheus.process.log_tail())?;
        Ok(prometheus)
    }

    /// What an expression yields now: a series each, its labels (`__name__` among them) and its value.
    pub async fn query(&self, expression: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let answer = self.get(&format!("query?query={}", escaped(expression))).await?;
        let series = answer["result"].as_array().context("no vector")?;
        let of = |series: &Value| {
            let labels = serde_json::from_value(series["metric"].clone()).context("no labels")?;
            let value = series["value"][1].as_str().context("no value")?;
            Ok((labels, value.parse().context("no number")?))
        };
        series.iter().map(of).collect()
    }

    /// All rules, as its API describes them.
    pub async fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.get("rules").await?;
        let groups = answer["groups"].as_array().context("no groups")?;
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        Ok(rules.collect())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let (code, body) = http::get(&self.port.address(), &format!("/api/v1/{path}")).await?;
        ensure!(code == 200, "Prometheus answers {code}: {body}");
        let mut answer: Value = serde_json::from_str(&body).context("Prometheus answers no JSON")?;
        Ok(answer["data"].take())
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
