//! A plant in miniature: records of many assets flow from Kafka to the NATS clusters that own them, while clusters join and leave and
//! forwarders end; the last line says what that did to the records.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;

mod kubernetes;
mod local;
mod rings;
mod subscribers;
mod view;

/// After the traffic: how long nothing new may arrive before what is missing counts as lost. Longer than a group waits for a dead member.
const QUIET: Duration = Duration::from_secs(60);

/// Live traffic through forwarders to three NATS clusters; one more joins, and one leaves.
#[derive(Debug, Parser)]
struct Cli {
    /// Processes on this machine, without Kubernetes.
    #[arg(long)]
    local: bool,
    /// How long records are sent at least, such as 30s or 2m; by default 30s with --local, else 90s.
    #[arg(long = "for", value_parser = time)]
    lasting: Option<Duration>,
    /// Records per second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Number of assets.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    assets: u32,
    /// Number of subscribers, each of one asset. They follow it by the client in Rust.
    #[arg(long, default_value_t = 1_000)]
    subscribers: u32,
}

impl Cli {
    fn lasting(&self) -> Duration {
        // A rolling update takes its time.
        let seconds = if self.local { 30 } else { 90 };
        self.lasting.unwrap_or(Duration::from_secs(seconds))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if cli.local {
        local::run(&cli).await
    } else {
        kubernetes::run(&cli).await
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            view::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn time(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text:?} is no time: write 30s or 2m"))?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(anyhow!("{text:?} is no time: write 30s, 2m or 1h")),
    }
}
