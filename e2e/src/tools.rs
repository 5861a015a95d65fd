//! Where the tools are that `cargo e2e setup` fetches: a cache outside the checkout, keyed by version.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The version of Kafka.
pub const KAFKA: &str = "4.3.1";
/// The version of nats-server.
pub const NATS_SERVER: &str = "2.15.1";
/// The version of cargo-nextest.
pub const NEXTEST: &str = "0.9.128";
/// The version of cargo-deny.
pub const CARGO_DENY: &str = "0.20.2";
/// The version of mdbook.
pub const MDBOOK: &str = "0.5.4";

/// The version of Kubernetes; what else is built with it says `e2e/tools/kubernetes/go.mod`.
pub const KUBERNETES: &str = "1.36.3";
/// The version of Go that builds it where the machine has none, or an older one.
pub const GO: &str = "1.26.8";
/// The version of Flux's kustomize-controller; `e2e/tools/gitops/go.mod` says so too.
pub const KUSTOMIZE_CONTROLLER: &str = "1.9.5";
/// The version of Flux's source-controller, of which only the definitions of its resources are used.
pub const SOURCE_CONTROLLER: &str = "1.9.5";
/// The directory of those definitions, beside the programs.
pub const FLUX_DEFINITIONS: &str = "definitions";
/// The name, in the cache, of the directory of Prometheus' programs. They are of the version that the system has; any since 2.42 does.
pub const PROMETHEUS: &str = "prometheus-system";
/// The version of our pause image.
pub const PAUSE: &str = "1";

/// Files of ours that say what is fetched or built into a directory of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    name: &'a str,
    /// Its files, by their path. The first one of a Go module is its go.mod.
    pub files: &'a [(&'a str, &'a str)],
    /// How many of them say what is built.
    key: usize,
}

impl Module<'_> {
    /// What its go.mod says.
    #[must_use]
    pub fn go_mod(&self) -> &str {
        self.files.first().map_or("", |(_, text)| text)
    }

    /// The name of its directory in the cache.
    #[must_use]
    pub fn name(&self) -> String {
        // FNV-1a: any other version of any of what is in it is another directory.
        let bytes = self.files.iter().take(self.key).flat_map(|(_, text)| text.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{}-{:08x}", self.name, hash >> 32)
    }
}

/// Kubernetes' programs, kubectl, helm, CoreDNS, etcd (as `server`) and kubeconform.
#[must_use]
pub const fn kubernetes_module() -> Module<'static> {
    Module {
        name: "kubernetes-1.36.3",
        files: &[
            ("go.mod", include_str!("../tools/kubernetes/go.mod")),
            ("go.sum", include_str!("../tools/kubernetes/go.sum")),
        ],
        key: 1,
    }
}

/// What judges us as GitOps tools do: Flux's kustomize-controller, and `kstatus`.
#[must_use]
pub const fn gitops_module() -> Module<'static> {
    Module {
        name: "gitops",
        files: &[
            ("go.mod", include_str!("../tools/gitops/go.mod")),
            ("kstatus/main.go", include_str!("../tools/gitops/kstatus/main.go")),
            ("go.sum", include_str!("../tools/gitops/go.sum")),
        ],
        key: 2,
    }
}

/// What the tests of the Python package need of Python's packages.
#[must_use]
pub const fn python_module() -> Module<'static> {
    Module {
        name: "python",
        files: &[("requirements.txt", include_str!("../tools/python/requirements.txt"))],
        key: 1,
    }
}

/// The environment variable that moves the cache.
pub const CACHE_VARIABLE: &str = "FANOUT_E2E_CACHE";

/// The cache: `$FANOUT_E2E_CACHE`, else `${XDG_CACHE_HOME:-~/.cache}/fanout-e2e`.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(cache) = set(CACHE_VARIABLE) {
        return Ok(cache);
    }
    match set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))) {
        Some(base) => Ok(base.join("fanout-e2e")),
        None => bail!("no place for the tools: set {CACHE_VARIABLE}, XDG_CACHE_HOME or HOME"),
    }
}

/// The directory of Kafka's jars.
pub fn kafka_libs() -> Result<PathBuf> {
    there(cache()?.join(format!("kafka-{KAFKA}")).join("libs"), "Kafka's jars")
}

/// The nats-server binary.
pub fn nats_server() -> Result<PathBuf> {
    there(
        cache()?.join(format!("nats-server-{NATS_SERVER}")).join("nats-server"),
        "nats-server",
    )
}

/// The cargo-nextest binary.
pub fn nextest() -> Result<PathBuf> {
    there(
        cache()?
            .join(format!("cargo-nextest-{NEXTEST}"))
            .join("bin/cargo-nextest"),
        "cargo-nextest",
    )
}

/// The cargo-deny binary.
pub fn cargo_deny() -> Result<PathBuf> {
    there(
        cache()?.join(format!("cargo-deny-{CARGO_DENY}")).join("bin/cargo-deny"),
        "cargo-deny",
    )
}

/// The directory of Kubernetes' programs, as [`kubernetes_module`] says.
pub fn kubernetes() -> Result<PathBuf> {
    there(cache()?.join(kubernetes_module().name()), "Kubernetes")
}

/// The directory of what [`gitops_module`] makes.
pub fn gitops() -> Result<PathBuf> {
    there(cache()?.join(gitops_module().name()), "what judges as GitOps tools do")
}

/// The directory of Python's packages, as [`python_module`] says: what `PYTHONPATH` names.
pub fn python() -> Result<PathBuf> {
    there(cache()?.join(python_module().name()), "Python's packages")
}

/// The archive of the pause image.
pub fn pause_image() -> Result<PathBuf> {
    there(
        cache()?.join(format!("pause-{PAUSE}")).join("pause.tar"),
        "the pause image",
    )
}

/// A program of Prometheus, `prometheus` or `promtool`: the machine's own, else the one that was fetched.
pub fn prometheus(program: &str) -> Result<PathBuf> {
    match find_in_path(program) {
        Some(path) => Ok(path),
        None => there(cache()?.join(PROMETHEUS).join(program), program),
    }
}

/// The first file of this name in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn there(path: PathBuf, what: &str) -> Result<PathBuf> {
    if Path::exists(&path) {
        Ok(path)
    } else {
        bail!(
            "{what} should be at {} but is not there: run `cargo e2e setup` once",
            path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_that_are_told_are_those_that_are_built() {
        let kubernetes = format!("k8s.io/kubernetes v{KUBERNETES}");
        assert!(kubernetes_module().go_mod().contains(&kubernetes), "{kubernetes}");
        assert!(
            kubernetes_module()
                .name()
                .starts_with(&format!("kubernetes-{KUBERNETES}-"))
        );
        let controller = format!("github.com/fluxcd/kustomize-controller v{KUSTOMIZE_CONTROLLER}");
        assert!(gitops_module().go_mod().contains(&controller), "{controller}");
    }

    #[test]
    fn what_is_downloaded_beside_a_module_has_its_checksum_too() {
        let (_, sums) = gitops_module().files.last().copied().unwrap();
        let line = format!("github.com/fluxcd/source-controller v{SOURCE_CONTROLLER} h1:");
        assert!(sums.contains(&line), "`go mod tidy` has taken it away: {line}");
    }
}
