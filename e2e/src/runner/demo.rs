//! `cargo e2e demo`: on Kubernetes, or as processes of this machine.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::cluster;
use super::steps::Steps;
use super::{build_release, fetch, say, start};

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Processes on this machine, without Kubernetes.
    #[arg(long)]
    pub(crate) local: bool,
    /// Leaves the cluster up, with all that is in it; `cargo e2e cluster down` ends it.
    #[arg(long, conflicts_with = "local")]
    keep: bool,
    /// How long records are sent at least, such as 30s or 2m; by default 30s with --local, else 90s.
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,
    /// Records per second.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Number of assets.
    #[arg(long, default_value_t = 10_000)]
    assets: u32,
    /// Number of subscribers, each of one asset.
    #[arg(long, default_value_t = 1_000)]
    subscribers: u32,
}

/// Runs it.
pub(crate) fn run(steps: &Steps, root: &Path, demo: Demo) -> Result<ExitCode> {
    let Demo {
        local,
        keep,
        lasting,
        rate,
        assets,
        subscribers,
    } = demo;
    let mut args = vec![
        "--rate".to_owned(),
        rate.to_string(),
        "--assets".to_owned(),
        assets.to_string(),
        "--subscribers".to_owned(),
        subscribers.to_string(),
    ];
    if let Some(lasting) = lasting {
        args.extend(["--for".to_owned(), lasting]);
    }
    fetch::servers(steps)?;
    if local {
        args.push("--local".to_owned());
        let built = build_release(steps, root)?;
        if built != ExitCode::SUCCESS {
            return Ok(built);
        }
        return steps.show(start(root, "demo")?.args(args));
    }
    cluster::fetch(steps)?;
    let built = build_release(steps, root)?;
    if built != ExitCode::SUCCESS {
        return Ok(built);
    }
    let stage = cluster::for_demo(steps, root, keep)?;
    let mut program = start(root, "demo")?;
    stage.tell(&mut program)?;
    let code = steps.show(program.args(args))?;
    stage.end()?;
    if keep {
        say(
            "the cluster is left up: `eval \"$(cargo e2e cluster env)\"` is for kubectl and helm, `cargo e2e cluster down` ends it",
        );
    }
    Ok(code)
}
