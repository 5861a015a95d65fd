//! Container images, by buildah: the pause image, and ours from binaries that were built on this machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::cluster::{Cluster, PAUSE_IMAGE};
use e2e::process::guarded;
use e2e::tools;

use super::steps::Steps;

/// The registry part that a name without one stands for.
const LIBRARY: &str = "docker.io/library";

/// The packages whose binary, of the same name, becomes the image `fanout-PACKAGE:dev`; the Dockerfile has a target for each.
pub(crate) const PACKAGES: [&str; 2] = ["operator", "forwarder"];

/// The image of NATS servers.
const NATS: &str = "fanout-e2e-nats";

/// A program of the rig that stands in for an older forwarder, and the image that is made of it.
const FIRST_FORWARDER: &str = "first-forwarder";
const FIRST_FORWARDER_IMAGE: &str = "fanout-e2e-first-forwarder";

/// A first process that holds a pod's namespaces, ends when told to and takes the exit status of orphans.
const PAUSE: &str = r#"#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t all;
    int signal;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    for (;;) {
        sigwait(&all, &signal);
        if (signal == SIGTERM || signal == SIGINT)
            return 0;
        if (signal == SIGCHLD)
            while (waitpid(-1, 0, WNOHANG) > 0)
                ;
    }
}
"#;

/// An image in the making: the name by which containerd knows it, and the archive it is in.
pub(crate) struct Archive {
    name: String,
    path: PathBuf,
}

/// Makes the archive of the pause image in a directory of the cache.
pub(crate) fn pause(steps: &Steps, dir: &Path) -> Result<()> {
    let context = dir.join("context");
    fs::create_dir(&context).with_context(|| format!("failed to create {}", context.display()))?;
    write(&dir.join("pause.c"), PAUSE)?;
    let mut compile = Command::new("cc");
    compile
        .args(["-static", "-Os", "-s", "-o"])
        .arg(context.join("pause"))
        .arg(dir.join("pause.c"));
    steps.work("compiling the pause program", &mut compile)?;
    write(
        &context.join("Dockerfile"),
        "FROM scratch\nCOPY pause /pause\nUSER 65532\nENTRYPOINT [\"/pause\"]\n",
    )?;
    let store = Store::new(&dir.join("buildah"));
    store.build(steps, "building the pause image", "pause", &context, &[])?;
    store.save(steps, "pause", PAUSE_IMAGE, &dir.join("pause.tar"))?;
    store.remove()?;
    fs::remove_dir_all(&context).with_context(|| format!("failed to delete {}", context.display()))
}

/// Imports the pause image.
pub(crate) fn load_pause(steps: &Steps, cluster: &Cluster) -> Result<()> {
    let pause = Archive {
        name: PAUSE_IMAGE.to_owned(),
        path: tools::pause_image()?,
    };
    import(steps, cluster, &pause)
}

/// Makes images of the binaries in `built` (a directory of cargo's), by the Dockerfile of the checkout, and imports them: `fanout-…:dev`,
/// and the same again as `…:dev2`; and that of NATS servers.
pub(crate) fn load(steps: &Steps, root: &Path, built: &Path, cluster: &Cluster) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("images-")
        .tempdir_in(cluster.dir())
        .context("failed to make a directory")?;
    // Buildah's own default is not readable by the user that the image runs as.
    let context = work.path().join("context");
    fs::create_dir(&context).with_context(|| format!("failed to create {}", context.display()))?;
    for package in PACKAGES {
        let mut gather = Command::new("sh");
        gather
            .arg(root.join(".docker/root-file-system"))
            .arg(built.join(package))
            .arg(context.join("image").join(package));
        steps.run_quietly(&mut gather)?;
    }
    write(&context.join("Dockerfile"), "FROM scratch\nCOPY . /\n")?;
    let store = Store::new(&work.path().join("buildah"));
    store.build(steps, "packing the binaries", "fanout-files", &context, &[])?;
    for package in PACKAGES {
        let name = format!("fanout-{package}");
        let args = [
            format!("--file={}", root.join("Dockerfile").display()),
            format!("--target={package}"),
            "--build-arg=FILES=localhost/fanout-files".to_owned(),
        ];
        store.build(steps, &format!("building the image {name}"), &name, work.path(), &args)?;
        let archive = Archive {
            name: format!("{LIBRARY}/{name}:dev"),
            path: work.path().join(format!("{name}.tar")),
        };
        store.save(steps, &name, &archive.name, &archive.path)?;
        import(steps, cluster, &archive)?;
        tag_second(steps, cluster, &name, &archive)?;
    }
    nats(steps, work.path(), &store, cluster)
}

/// Makes and imports the image of NATS servers that run in pods: the program alone, in the path, as in the official one.
fn nats(steps: &Steps, work: &Path, store: &Store, cluster: &Cluster) -> Result<()> {
    let context = work.join("nats");
    fs::create_dir(&context).with_context(|| format!("failed to create {}", context.display()))?;
    let program = tools::nats_server()?;
    fs::copy(&program, context.join("nats-server")).with_context(|| format!("failed to copy {}", program.display()))?;
    write(
        &context.join("Dockerfile"),
        "FROM scratch\nCOPY nats-server /nats-server\nENV PATH=/\nENTRYPOINT [\"/nats-server\"]\n",
    )?;
    store.build(steps, &format!("building the image {NATS}"), NATS, &context, &[])?;
    let archive = Archive {
        name: format!("{LIBRARY}/{NATS}:dev"),
        path: work.join("nats.tar"),
    };
    store.save(steps, NATS, &archive.name, &archive.path)?;
    import(steps, cluster, &archive)?;
    tag_second(steps, cluster, NATS, &archive)
}

/// Makes and imports the image of what stands in for an older forwarder, for tests alone.
pub(crate) fn load_first_forwarder(steps: &Steps, root: &Path, built: &Path, cluster: &Cluster) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("images-")
        .tempdir_in(cluster.dir())
        .context("failed to make a directory")?;
    let context = work.path().join("context");
    fs::create_dir(&context).with_context(|| format!("failed to create {}", context.display()))?;
    let mut gather = Command::new("sh");
    gather
        .arg(root.join(".docker/root-file-system"))
        .arg(built.join(FIRST_FORWARDER))
        .arg(context.join("image"));
    steps.run_quietly(&mut gather)?;
    write(
        &context.join("Dockerfile"),
        &format!("FROM scratch\nCOPY image /\nUSER 65532:65532\nENTRYPOINT [\"/usr/bin/{FIRST_FORWARDER}\"]\n"),
    )?;
    let store = Store::new(&work.path().join("buildah"));
    let what = format!("building the image {FIRST_FORWARDER_IMAGE}");
    store.build(steps, &what, FIRST_FORWARDER_IMAGE, &context, &[])?;
    let archive = Archive {
        name: format!("{LIBRARY}/{FIRST_FORWARDER_IMAGE}:dev"),
        path: work.path().join("first-forwarder.tar"),
    };
    store.save(steps, FIRST_FORWARDER_IMAGE, &archive.name, &archive.path)?;
    import(steps, cluster, &archive)
}

/// The same again under another tag, for tests of a change.
fn tag_second(steps: &Steps, cluster: &Cluster, name: &str, archive: &Archive) -> Result<()> {
    let second = format!("{LIBRARY}/{name}:dev2");
    steps.run_quietly(ctr(cluster).args(["images", "tag", "--force", &archive.name, &second]))
}

/// Buildah's storage, of our own: the machine's may be anybody's.
struct Store {
    dir: PathBuf,
}

impl Store {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn buildah(&self) -> Command {
        let mut buildah = guarded("buildah".as_ref(), "TERM");
        buildah
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            // It needs neither mounts nor a kernel's overlay, at the price of a copy for each layer: ours are few and small.
            .args(["--storage-driver", "vfs"]);
        buildah
    }

    fn build(&self, steps: &Steps, what: &str, tag: &str, context: &Path, args: &[String]) -> Result<()> {
        let mut build = self.buildah();
        build
            .args(["build", "--isolation", "chroot", "--pull-never", "--tag", tag])
            .args(args)
            .arg(context);
        steps.work(what, &mut build)
    }

    fn save(&self, steps: &Steps, tag: &str, name: &str, archive: &Path) -> Result<()> {
        let mut push = self.buildah();
        push.args(["push", "--quiet", tag])
            .arg(format!("docker-archive:{}:{name}", archive.display()));
        steps.run_quietly(&mut push)
    }

    fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("failed to delete {}", self.dir.display()))
    }
}

fn import(steps: &Steps, cluster: &Cluster, archive: &Archive) -> Result<()> {
    let mut import = ctr(cluster);
    import.args(["images", "import"]).arg(&archive.path);
    steps
        .run_quietly(&mut import)
        .with_context(|| format!("failed to import the image {}", archive.name))
}

fn ctr(cluster: &Cluster) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address")
        .arg(cluster.containerd_socket())
        .args(["--namespace", "k8s.io"]);
    ctr
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o644)))
        .with_context(|| format!("failed to write {}", path.display()))
}
