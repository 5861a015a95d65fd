//! What is built from Go modules: Kubernetes itself, its etcd and DNS, kubectl, helm, kubeconform; Flux's kustomize-controller. There are no
//! archives of them that a package registry serves; the Go module proxy serves the source, and `go.sum` says what is in it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use e2e::process::guarded;
use e2e::tools::{self, FLUX_DEFINITIONS, GO, KUBERNETES, KUSTOMIZE_CONTROLLER, Module, SOURCE_CONTROLLER};

use super::{Steps, once};

/// The SHA-256 of the toolchain's archives, by the name that Go has for the machine's architecture. The public checksum database knows them too.
const TOOLCHAINS: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "amd64",
        "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7",
    ),
    (
        "aarch64",
        "arm64",
        "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99",
    ),
];

/// Fetches an archive of the module proxy and unpacks it without its first two directories.
const FETCH: &str = r"import hashlib, io, os, sys, urllib.request, zipfile
url, wanted, place = sys.argv[1:]
data = urllib.request.urlopen(url, timeout=300).read()
found = hashlib.sha256(data).hexdigest()
if found != wanted:
    sys.exit(f'{url} has the SHA-256 {found}, not {wanted}')
archive = zipfile.ZipFile(io.BytesIO(data))
for name in archive.namelist():
    path = os.path.join(place, name.split('/', 2)[2])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        file.write(archive.read(name))
    # Archives of modules know no permissions.
    if '/bin/' in name or '/pkg/tool/' in name:
        os.chmod(path, 0o755)
";

/// Builds Kubernetes and what is beside it, once per version: some minutes.
pub(crate) fn kubernetes(steps: &Steps) -> Result<()> {
    let [major, minor, _] = parts(KUBERNETES).context("our version of Kubernetes has no three parts")?;
    let version = "k8s.io/component-base/version";
    let build = Build {
        module: tools::kubernetes_module(),
        says: format!("building Kubernetes {KUBERNETES} and helm (some minutes, once)"),
        // Without these it calls itself v0.0.0, and clients and charts that ask for a version refuse it.
        link: format!(
            " -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        ),
    };
    build.once(steps, |_, _| Ok(()))
}

/// Builds what judges us as GitOps tools do, once per version: some minutes. The definitions of Flux's resources go beside it.
pub(crate) fn gitops(steps: &Steps) -> Result<()> {
    let build = Build {
        module: tools::gitops_module(),
        says: format!("building Flux's kustomize-controller {KUSTOMIZE_CONTROLLER} (some minutes, once)"),
        link: String::new(),
    };
    build.once(steps, |go, dir| {
        let definitions = dir.join(FLUX_DEFINITIONS);
        fs::create_dir(&definitions).with_context(|| format!("failed to create {}", definitions.display()))?;
        // Its source alone: what it is built of is not needed. The module's go.sum says what is in it all the same.
        let sources = format!("github.com/fluxcd/source-controller@v{SOURCE_CONTROLLER}");
        let mut download = go.command(&["mod", "download", &sources]);
        steps.work(
            &format!("fetching Flux's source-controller {SOURCE_CONTROLLER}"),
            &mut download,
        )?;
        let controller = format!("github.com/fluxcd/kustomize-controller@v{KUSTOMIZE_CONTROLLER}");
        for module in [sources, controller] {
            let from = go.modules.join(module).join("config/crd/bases");
            let files = fs::read_dir(&from).with_context(|| format!("failed to read {}", from.display()))?;
            for file in files {
                let file = file.with_context(|| format!("failed to read {}", from.display()))?;
                let to = definitions.join(file.file_name());
                fs::copy(file.path(), &to).with_context(|| format!("failed to write {}", to.display()))?;
            }
        }
        Ok(())
    })
}

/// How one of our modules is built into the cache.
struct Build<'a> {
    module: Module<'a>,
    /// What the person is told meanwhile.
    says: String,
    /// Further flags for the linker.
    link: String,
}

/// A Go that is ready to work in a module of ours.
struct Go {
    program: PathBuf,
    /// Our module.
    dir: PathBuf,
    /// Where the sources of other modules are.
    modules: PathBuf,
    cache: PathBuf,
}

impl Build<'_> {
    /// Installs the module's tools into its directory of the cache, and lets `finish` add to that.
    fn once(&self, steps: &Steps, finish: impl FnOnce(&Go, &Path) -> Result<()>) -> Result<()> {
        once(&self.module.name(), |dir| {
            let work = dir.join("work");
            let go = Go {
                dir: dir.join("module"),
                // Five gigabytes that nobody needs afterwards.
                modules: work.join("modules"),
                cache: work.join("cache"),
                program: go(steps, self.module.go_mod(), &work.join("go"))?,
            };
            for (path, text) in self.module.files {
                let path = go.dir.join(path);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
                }
                fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
            }
            let mut install = go.command(&[
                "install",
                "-p=2",
                "-trimpath",
                "-buildvcs=false",
                "-mod=readonly",
                "-modcacherw",
            ]);
            install
                .arg(format!("-ldflags=-s -w{}", self.link))
                .arg("tool")
                .env("GOBIN", dir);
            steps.work(&self.says, &mut install)?;
            finish(&go, dir)?;
            for spent in [&go.dir, &work] {
                fs::remove_dir_all(spent).with_context(|| format!("failed to delete {}", spent.display()))?;
            }
            Ok(())
        })
    }
}

impl Go {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = guarded(self.program.as_os_str(), "TERM");
        command
            .current_dir(&self.dir)
            .args(args)
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", &self.cache)
            .env("GOMODCACHE", &self.modules)
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "")
            .env_remove("GOOS")
            .env_remove("GOARCH");
        command
    }
}

/// The machine's Go, if it is new enough, else one of our own that goes with the build.
fn go(steps: &Steps, go_mod: &str, place: &Path) -> Result<PathBuf> {
    let needed = go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .and_then(parts)
        .context("our go.mod does not say which Go it needs")?;
    if let Some(go) = tools::find_in_path("go") {
        let mut version = Command::new(&go);
        version.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local");
        let said = version.output().context("failed to run go")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        if said.trim().strip_prefix("go").and_then(parts) >= Some(needed) {
            return Ok(go);
        }
    }
    let machine = std::env::consts::ARCH;
    let Some((_, architecture, digest)) = TOOLCHAINS.iter().find(|(name, _, _)| *name == machine) else {
        bail!("there is no Go {GO} for {machine} that we know of: install Go {GO} or newer, then try again");
    };
    let url = format!(
        "{}/golang.org/toolchain/@v/v0.0.1-go{GO}.linux-{architecture}.zip",
        proxy(std::env::var_os("GOPROXY"))
    );
    let mut fetch = guarded("python3".as_ref(), "TERM");
    fetch.args(["-c", FETCH, &url, digest]).arg(place);
    steps.work(&format!("fetching Go {GO}"), &mut fetch)?;
    Ok(place.join("bin/go"))
}

/// The first module proxy of a GOPROXY, or the public one.
fn proxy(set: Option<OsString>) -> String {
    let set = set.map(|set| set.to_string_lossy().into_owned()).unwrap_or_default();
    let first = set.split([',', '|']).next().unwrap_or_default().trim_end_matches('/');
    if first.contains("://") {
        first.to_owned()
    } else {
        // It names none: `direct`, `off` or nothing.
        "https://proxy.golang.org".to_owned()
    }
}

/// The three parts of a version. `1.26` is 1.26.0, and what follows a space or a hyphen does not count.
fn parts(version: &str) -> Option<[u32; 3]> {
    let version = version.trim().split([' ', '-']).next()?;
    let mut parts = version.split('.').map(str::parse);
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parts("1.26.8 X:nodwarf5") > parts("1.26.0"));
        assert!(parts("1.9") < parts("1.26"));
        assert!(parts("devel") < parts("1.0"));
    }

    #[test]
    fn the_first_proxy_of_the_list_serves_the_toolchain() {
        let of = |set: &str| proxy(Some(set.into()));
        assert_eq!(of("https://goproxy.example.com/,direct"), "https://goproxy.example.com");
        assert_eq!(
            of("https://a.example.com|https://b.example.com"),
            "https://a.example.com"
        );
        assert_eq!(of("direct"), "https://proxy.golang.org");
        assert_eq!(proxy(None), "https://proxy.golang.org");
    }
}
