//! Programs in Python, with the packages that `cargo e2e setup` fetches.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::tools;
use tokio::process::Command;

/// Runs `python3 -m MODULE ARGS…` in `dir` and yields what it printed. `further` directories are looked for packages first.
///
/// # Errors
/// It cannot be run, it ends with another code than 0, or it takes longer than `within`; with what it printed.
pub async fn run_module(
    dir: &Path,
    module: &str,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    further: &[&Path],
    envs: &[(&str, &OsStr)],
    within: Duration,
) -> Result<String> {
    let fetched = tools::python()?;
    let path = std::env::join_paths(further.iter().copied().chain([fetched.as_path()]))
        .context("a directory's name has a colon")?;
    let mut command = Command::new("python3");
    command
        .current_dir(dir)
        .args(["-m", module])
        .args(args)
        .env("PYTHONPATH", path)
        // Nothing is written into the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(envs.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output())
        .await
        .with_context(|| format!("python3 -m {module} has not ended within {within:?}"))?
        .context("failed to run python3")?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if !output.status.success() {
        bail!("python3 -m {module} ended with {}:\n{said}", output.status);
    }
    Ok(said)
}
