//! What `.config/nextest.toml` names for the quick tier: each name is a test, and each module has its share.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The suites: a folder each, or a file.
const SUITES: &str = "e2e/rig/tests";

/// Modules of this name run alone, so the quick tier has none of them.
const ALONE: &str = "alone";

/// Tests of such names run with `--full` only.
const LONG: &str = "long_";

#[test]
fn what_the_quick_tier_names_is_a_test() {
    let modules = modules();
    let mut seen = 0;
    for (suite, path) in named() {
        let (module, name) = split(&path);
        let text = &modules[&home(&modules, &suite, module)];
        // A macro makes tests of names with a colon behind them.
        let is_there = [format!("fn {name}("), format!("    {name}: ")]
            .iter()
            .any(|line| text.contains(line));
        assert!(is_there, "{suite} has no test {path}");
        assert!(!name.starts_with(LONG), "{suite}: {path} is a long one");
        assert!(!is_alone(module), "{suite}: {path} runs alone");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} names are found");
}

#[test]
fn each_module_of_a_suite_has_a_test_in_the_quick_tier() {
    let modules = modules();
    let named: Vec<(String, String)> = named()
        .into_iter()
        .map(|(suite, path)| home(&modules, &suite, split(&path).0))
        .collect();
    let mut without = Vec::new();
    for (place, text) in &modules {
        let is_usual = tests(text).iter().any(|name| !name.starts_with(LONG));
        if is_usual && !is_alone(&place.1) && !named.contains(place) {
            without.push(place);
        }
    }
    assert!(without.is_empty(), "[profile.quick] is to name a test of {without:?}");
}

#[test]
fn names_of_tests_are_read() {
    let text =
        "#[test]\nfn a() {}\n\n    #[tokio::test(flavor = \"multi_thread\")]\n    async fn long_b() {}\n\nfn c() {}\n";
    assert_eq!(tests(text), ["a", "long_b"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the quick tier names: the suite and the path of each test.
fn named() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(".config/nextest.toml")).unwrap();
    let (_, quick) = text.split_once("\n[profile.quick]\n").unwrap();
    let quick = quick.split("\n[").next().unwrap();
    let mut named = Vec::new();
    for part in quick.split("binary(").skip(1) {
        let (suite, tests) = part.split_once(')').unwrap();
        for test in tests.split("test(=").skip(1) {
            let path = test.split(')').next().unwrap();
            named.push((suite.to_owned(), path.to_owned()));
        }
    }
    named
}

/// The modules of all suites, each a file: by its suite and its path such as `a::b`, which is empty for the root. With their text.
fn modules() -> BTreeMap<(String, String), String> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(root().join(SUITES)).unwrap() {
        let path = entry.unwrap().path();
        let suite = stem(&path);
        if path.is_dir() {
            collect(&path, &suite, "", &mut modules);
        } else {
            modules.insert((suite, String::new()), fs::read_to_string(&path).unwrap());
        }
    }
    modules
}

/// Reads the modules below a folder.
fn collect(folder: &Path, suite: &str, prefix: &str, modules: &mut BTreeMap<(String, String), String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = stem(&path);
        let module = if !prefix.is_empty() {
            format!("{prefix}::{name}")
        } else if name == "main" {
            String::new()
        } else {
            name
        };
        if path.is_dir() {
            collect(&path, suite, &module, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            modules.insert((suite.to_owned(), module), fs::read_to_string(&path).unwrap());
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The module and the name of a test.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once("::").unwrap_or(("", path))
}

/// The file that holds a module: its own, or that of a module around it.
fn home(modules: &BTreeMap<(String, String), String>, suite: &str, module: &str) -> (String, String) {
    let mut module = module;
    loop {
        let place = (suite.to_owned(), module.to_owned());
        if modules.contains_key(&place) {
            return place;
        }
        assert!(!module.is_empty(), "there is no suite {suite}");
        module = split(module).0;
    }
}

fn is_alone(module: &str) -> bool {
    module.split("::").any(|part| part == ALONE)
}

/// The names of a module's tests. That of tests which a macro makes is `$name`.
fn tests(text: &str) -> Vec<&str> {
    let mut lines = text.lines();
    let mut names = Vec::new();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            let function = lines.by_ref().find_map(|line| line.split_once("fn "));
            names.extend(function.and_then(|(_, rest)| rest.split('(').next()));
        }
    }
    names
}
