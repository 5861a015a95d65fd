//! What is built from Go modules: Kubernetes itself, its etcd and DNS, kubectl, helm, kubeconform. There are no archives of them that a package
//! registry serves; the Go module proxy serves the source, and `go.sum` says what is in it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use e2e::process::guarded;
use e2e::tools::{self, GO, GO_MOD, GO_SUM, KUBERNETES};

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

/// Builds all of it, once per version: some minutes.
pub(crate) fn kubernetes(steps: &Steps) -> Result<()> {
    once(&tools::kubernetes_name(), |dir| {
        let (module, work) = (dir.join("module"), dir.join("work"));
        for made in [&module, &work] {
            fs::create_dir(made).with_context(|| format!("failed to create {}", made.display()))?;
        }
        let go = go(steps, &work.join("go"))?;
        fs::write(module.join("go.mod"), GO_MOD).context("failed to write go.mod")?;
        fs::write(module.join("go.sum"), GO_SUM).context("failed to write go.sum")?;
        let [major, minor, _] = parts(KUBERNETES).context("our version of Kubernetes has no three parts")?;
        let version = "k8s.io/component-base/version";
        let mut build = guarded(go.as_os_str(), "TERM");
        build
            .current_dir(&module)
            .args(["install", "-p=2", "-trimpath", "-buildvcs=false", "-mod=readonly", "-modcacherw"])
            // Without these it calls itself v0.0.0, and clients and charts that ask for a version refuse it.
            .arg(format!(
                "-ldflags=-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
            ))
            .arg("tool")
            .env("GOBIN", dir)
            .env("CGO_ENABLED", "0")
            // Five gigabytes that nobody needs afterwards.
            .env("GOCACHE", work.join("cache"))
            .env("GOMODCACHE", work.join("modules"))
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "")
            .env_remove("GOOS")
            .env_remove("GOARCH");
        steps.work(
            &format!("building Kubernetes {KUBERNETES} and helm (some minutes, once)"),
            &mut build,
        )?;
        for spent in [&module, &work] {
            fs::remove_dir_all(spent).with_context(|| format!("failed to delete {}", spent.display()))?;
        }
        Ok(())
    })
}

/// The machine's Go, if it is new enough, else one of our own that goes with the build.
fn go(steps: &Steps, place: &Path) -> Result<PathBuf> {
    let needed = GO_MOD
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
