//! The Python package: its own tests, its types, its style, and its wheel.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e_rig::{python, tools};

/// The package's tests start servers of their own; they take less than a minute on an idle machine.
const TESTS: Duration = Duration::from_secs(170);

/// A tool that only reads the package.
const READING: Duration = Duration::from_secs(120);

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../forwarder/subscriber/python")
        .canonicalize()
        .unwrap()
}

#[tokio::test]
async fn the_python_packages_own_tests_pass() {
    let package = package();
    let server = tools::nats_server().unwrap();
    let said = python::run_module(
        &package,
        "pytest",
        ["-q", "-p", "no:cacheprovider", "tests"],
        &[&package.join("src")],
        &[("NATS_SERVER", server.as_os_str())],
        TESTS,
    )
    .await
    .unwrap();
    let last = said
        .lines()
        .rev()
        .find(|line| line.contains(" passed"))
        .unwrap_or_default();
    assert!(!last.is_empty() && !last.contains("skipped"), "{said}");
}

#[tokio::test]
async fn the_python_package_is_typed_and_its_style_is_clean() {
    let package = package();
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("mypy");
    let args = ["--strict", "--cache-dir", cache.to_str().unwrap(), "src"];
    python::run_module(&package, "mypy", args, &[], &[], READING)
        .await
        .unwrap();
    let args = ["check", "--no-cache", "."];
    python::run_module(&package, "ruff", args, &[], &[], READING)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_wheel_has_all_that_a_program_imports() {
    let package = package();
    let scratch = tempfile::tempdir().unwrap();
    let (wheels, installed) = (scratch.path().join("wheels"), scratch.path().join("installed"));
    // The build leaves traces beside its source.
    let copy = scratch.path().join("package");
    copy_tree(&package, &copy);
    let args: [&OsStr; 7] = [
        "wheel".as_ref(),
        "--no-deps".as_ref(),
        "--no-build-isolation".as_ref(),
        "--disable-pip-version-check".as_ref(),
        "--wheel-dir".as_ref(),
        wheels.as_os_str(),
        ".".as_ref(),
    ];
    python::run_module(&copy, "pip", args, &[], &[], READING).await.unwrap();
    let wheel = std::fs::read_dir(&wheels).unwrap().next().unwrap().unwrap().path();
    let args: [&OsStr; 6] = [
        "install".as_ref(),
        "--no-deps".as_ref(),
        "--disable-pip-version-check".as_ref(),
        "--target".as_ref(),
        installed.as_os_str(),
        wheel.as_os_str(),
    ];
    python::run_module(scratch.path(), "pip", args, &[], &[], READING)
        .await
        .unwrap();
    assert!(
        installed.join("fanout_client/py.typed").is_file(),
        "the types are not in the wheel"
    );
    // `-m` runs a module of the wheel itself.
    let program = scratch.path().join("program.py");
    std::fs::write(
        &program,
        "import fanout_client.aio, fanout_client.sync, fanout_client.openfactory\nprint(fanout_client.__file__)\n",
    )
    .unwrap();
    let said = python::run_module(
        scratch.path(),
        "program",
        [""; 0],
        &[&installed, scratch.path()],
        &[],
        READING,
    )
    .await
    .unwrap();
    assert!(said.contains(installed.to_str().unwrap()), "{said}");
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
