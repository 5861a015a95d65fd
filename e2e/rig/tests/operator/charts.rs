//! The charts: what they render is well formed, and they do what they say when they are installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e_rig::cluster::Cluster;
use tempfile::TempDir;

mod installed;
mod permissions;
mod rendered;
mod schemas;

/// Helm, with a home of its own, and the cluster that it installs in.
struct Helm {
    cluster: Cluster,
    home: TempDir,
}

impl Helm {
    fn new() -> Self {
        Self {
            cluster: Cluster::of_this_run().unwrap(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs it from the directory of the charts.
    fn output(&self, args: &[&str]) -> Output {
        let mut helm = self.cluster.program("helm");
        for kind in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(kind, self.home.path().join(kind));
        }
        helm.current_dir(charts()).args(args).output().unwrap()
    }

    /// What it prints; it must go well.
    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(
            output.status.success(),
            "helm {} failed: {}{}",
            args.join(" "),
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What it says where it must fail.
    fn refusal(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(
            !output.status.success(),
            "helm {} went well: {}",
            args.join(" "),
            text(&output.stdout)
        );
        text(&output.stderr)
    }
}

/// The checkout's charts.
fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts")
}

/// What a command prints; it must go well.
fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The objects of a manifest.
fn objects(manifest: &str) -> Vec<serde_json::Value> {
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(manifest).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}
