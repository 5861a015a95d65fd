//! Which part of the product may know which: crates by their manifests, files by what they name. As far as that can be told from the text.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The product's crates, each with those of the product that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("crds", &[]),
    ("forwarder/core", &[]),
    ("forwarder/beacon", &["forwarder-core"]),
    ("forwarder/subscriber", &["forwarder-beacon", "forwarder-core"]),
    ("forwarder/simulation", &["forwarder-core"]),
    ("forwarder/service", &["forwarder-core"]),
    ("forwarder/nats", &["forwarder-core"]),
    ("forwarder/kafka", &["forwarder-core"]),
    (
        "forwarder",
        &[
            "forwarder-beacon",
            "forwarder-core",
            "forwarder-kafka",
            "forwarder-nats",
            "forwarder-service",
        ],
    ),
    (
        "operator",
        &[
            "crds",
            "forwarder-beacon",
            "forwarder-core",
            "forwarder-kafka",
            "forwarder-nats",
            "forwarder-service",
        ],
    ),
    ("operator/kubectl-fanout", &["crds", "forwarder-core"]),
];

/// What files of a crate may not name, although nothing else would stop them: from, to, why.
const FORBIDDEN: &[(&str, &str, &str, &str)] = &[
    (
        "forwarder/core",
        "document",
        "delivery",
        "the document is read before anything is delivered",
    ),
    (
        "forwarder/core",
        "document",
        "fanout",
        "whatever is made of the records, its document is read the same way",
    ),
    (
        "forwarder/core",
        "delivery",
        "fanout",
        "a pipeline delivers without a ring",
    ),
    ("forwarder", "outputs", "intake", "records go one way"),
    (
        "forwarder",
        "beacon",
        "intake",
        "what subscribers are told is on no record's way",
    ),
    (
        "forwarder",
        "intake::records",
        "intake::group",
        "a record is handled the same way, whoever is a member",
    ),
    (
        "forwarder",
        "intake::records",
        "intake::flow",
        "a record is handled the same way, however it was fetched",
    ),
    (
        "forwarder",
        "intake::commits",
        "intake::records",
        "what is committed is what the dispatcher says is settled",
    ),
    (
        "forwarder",
        "intake::group",
        "intake::commits",
        "who is a member does not depend on what is committed",
    ),
    (
        "forwarder/core",
        "program",
        "fanout",
        "the engine runs programs that know of no ring",
    ),
    (
        "operator",
        "reconcile",
        "controllers",
        "what controllers share is the same for each of them",
    ),
    (
        "operator",
        "reconcile",
        "serve",
        "what is written does not depend on who looks at it",
    ),
    (
        "operator",
        "index",
        "controllers",
        "every replica has an index, and only the leader its controllers",
    ),
    (
        "operator",
        "index",
        "reconcile",
        "what is known does not depend on what is made of it",
    ),
    (
        "operator",
        "index",
        "serve",
        "HTTP reads the index, not the other way round",
    ),
    (
        "operator",
        "controllers",
        "serve",
        "a reconcile does not know who looks at it",
    ),
    ("operator", "watch", "reconcile", "replicas that do not lead watch too"),
    (
        "operator",
        "controllers::asset_forwarder",
        "controllers::kafka_channel",
        "no controller calls another one",
    ),
    (
        "operator",
        "controllers::asset_forwarder",
        "controllers::nats_cluster",
        "no controller calls another one",
    ),
    (
        "operator",
        "controllers::kafka_channel",
        "controllers::asset_forwarder",
        "no controller calls another one",
    ),
    (
        "operator",
        "controllers::kafka_channel",
        "controllers::nats_cluster",
        "no controller calls another one",
    ),
    (
        "operator",
        "controllers::nats_cluster",
        "controllers::asset_forwarder",
        "no controller calls another one",
    ),
    (
        "operator",
        "controllers::nats_cluster",
        "controllers::kafka_channel",
        "no controller calls another one",
    ),
    (
        "operator/kubectl-fanout",
        "view",
        "api",
        "what is shown does not depend on how it was read",
    ),
    (
        "operator/kubectl-fanout",
        "view",
        "output",
        "what is shown does not depend on where it goes",
    ),
    (
        "operator/kubectl-fanout",
        "api",
        "output",
        "what is read does not depend on who looks at it",
    ),
];

/// What a crate must not need, by its name, however far down in its tree: the crate, what it does without, why.
const WITHOUT: &[(&str, &[&str], &str)] = &[(
    "kubectl-fanout",
    &["rdkafka", "rdkafka-sys", "openssl-sys"],
    "it is installed on people's machines, where librdkafka and its libraries are not",
)];

/// The parts of the forwarder that any program needs: the record's path, and what that stands on.
const ENGINE: &[&str] = &["intake", "outputs", "message", "lease", "metrics", "traces", "tasks"];

/// The parts of the forwarder that are this program's own, each with the reason why the engine's parts do not name it.
const BINARY: &[(&str, &str)] = &[
    ("admin", "the record's path does not know who looks at it"),
    ("ring_watch", "the ring is brought, wherever it is from"),
    ("router", "who owns an asset is a question about the ring alone"),
    ("cli", "whoever starts a process says what it is to do"),
    ("run", "whoever starts a process says when it ends"),
    ("engine", "the page shows the parts, and none of them shows the page"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn crates_depend_on_no_others_of_the_product() {
    let ours: BTreeSet<String> = CRATES.iter().map(|(path, _)| path.replace('/', "-")).collect();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.lines().find(|line| line.starts_with("members = ")).unwrap();
    let members: BTreeSet<String> = members
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|member| !member.starts_with("e2e"))
        .map(|member| member.replace('/', "-"))
        .collect();
    assert_eq!(
        members, ours,
        "each crate of the product says here what it may depend on"
    );
    for (path, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
        assert!(
            !manifest.contains("[dependencies.") && !manifest.contains("[target."),
            "{path}/Cargo.toml: one list of dependencies, which this test reads"
        );
        let (_, from) = manifest.split_once("\n[dependencies]\n").unwrap();
        let dependencies = from.split("\n[").next().unwrap();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            assert!(
                !ours.contains(name) || allowed.contains(&name),
                "{path}/Cargo.toml: {path} must not depend on {name}"
            );
        }
    }
}

#[test]
fn trees_are_without_what_their_crates_must_not_need() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut needs = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in lock.split("[[package]]\n").skip(1) {
        let name = package.lines().next().unwrap();
        let name = name
            .strip_prefix("name = \"")
            .and_then(|name| name.strip_suffix('"'))
            .unwrap();
        // ` "name",` or ` "name version",`: of several versions of a crate, all count.
        let names = package.lines().filter_map(|line| line.strip_prefix(" \""));
        let names = names.map(|line| line.split([' ', '"']).next().unwrap());
        needs.entry(name).or_default().extend(names);
    }
    assert!(
        needs["forwarder-kafka"].contains("rdkafka"),
        "the lock file is not understood"
    );
    for (crate_, without, why) in WITHOUT {
        let mut tree = BTreeSet::new();
        let mut next = vec![*crate_];
        while let Some(name) = next.pop() {
            if tree.insert(name) {
                next.extend(&needs[name]);
            }
        }
        assert!(tree.len() > 50, "{crate_} needs only {tree:?}");
        for name in *without {
            assert!(!tree.contains(name), "{crate_} needs {name}, but {why}");
        }
    }
}

#[test]
fn files_of_a_crate_do_not_name_each_other_in_a_circle() {
    for (path, _) in CRATES {
        let modules = Modules::read(path);
        if let Some(circle) = modules.circle() {
            panic!(
                "{path}: these files name each other in a circle: {}",
                circle.join(" → ")
            );
        }
    }
}

#[test]
fn arrows_that_were_cut_stay_cut() {
    let of_the_engine = ENGINE
        .iter()
        .flat_map(|part| BINARY.iter().map(|(own, why)| ("forwarder", *part, *own, *why)));
    let mut read = BTreeMap::new();
    for (crate_, from, to, why) in FORBIDDEN.iter().copied().chain(of_the_engine) {
        let modules = read.entry(crate_).or_insert_with(|| Modules::read(crate_));
        for part in [from, to] {
            let exists = modules.arrows.keys().any(|module| is_within(module, part));
            assert!(exists, "{crate_} has no module {part}: it was renamed or removed");
        }
        for (module, names) in &modules.arrows {
            let found = names.iter().find(|name| is_within(module, from) && is_within(name, to));
            assert!(found.is_none(), "{crate_}: {module} names {}: {why}", found.unwrap());
        }
    }
}

/// The files that carry out what a phase of the intake's loop calls for. They alone reach across its parts.
const PHASES: &[&str] = &["regroup", "repair", "renew", "take", "stop"];

#[test]
fn parts_of_the_intake_do_not_name_the_whole() {
    let mut files = BTreeMap::new();
    collect(&root().join("forwarder/src/intake"), "", &mut files);
    for phase in PHASES {
        assert!(files.contains_key(*phase), "intake/{phase}.rs was renamed or removed");
    }
    for (part, text) in files.iter().filter(|(part, _)| !PHASES.contains(&part.as_str())) {
        let mut whole = Whole(false);
        whole.visit_file(&syn::parse_file(text).unwrap());
        assert!(
            !whole.0,
            "intake: {part} names `Intake`: it is to be told what it needs"
        );
    }
}

/// Whether a file names the intake as a whole.
struct Whole(bool);

impl<'ast> Visit<'ast> for Whole {
    fn visit_ident(&mut self, name: &'ast syn::Ident) {
        self.0 |= name == "Intake";
    }
}

/// The modules of a crate, each a file, by their paths such as `a::b`, with those that each names.
struct Modules {
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl Modules {
    fn read(path: &str) -> Self {
        let mut files = BTreeMap::new();
        collect(&root().join(path).join("src"), "", &mut files);
        let modules: BTreeSet<String> = files.keys().cloned().collect();
        let arrows = files.iter().map(|(module, text)| {
            let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {module}: {error}"));
            let mut names = Names {
                module,
                modules: &modules,
                found: BTreeSet::new(),
            };
            names.visit_file(&parsed);
            // A module and its submodules count as one.
            names
                .found
                .retain(|name| !is_within(name, module) && !is_within(module, name));
            (module.clone(), names.found)
        });
        let arrows = arrows.collect();
        Self { arrows }
    }

    /// Modules of which each names the next one, and the last one the first.
    fn circle(&self) -> Option<Vec<&str>> {
        let mut done = BTreeSet::new();
        let mut path = Vec::new();
        self.arrows
            .keys()
            .find_map(|module| self.follow(module, &mut path, &mut done))
    }

    fn follow<'a>(
        &'a self,
        module: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(at) = path.iter().position(|passed| *passed == module) {
            return Some(path[at..].to_vec());
        }
        if !done.contains(module) {
            path.push(module);
            let found = self.arrows[module]
                .iter()
                .find_map(|next| self.follow(next, path, done));
            if found.is_some() {
                return found;
            }
            path.pop();
            done.insert(module);
        }
        None
    }
}

fn is_within(module: &str, other: &str) -> bool {
    other.is_empty() || module == other || module.starts_with(&format!("{other}::"))
}

/// Reads the files below a folder, but for those of tests.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}::{name}")
        };
        if name == "tests" || name == "fake_api" {
            continue;
        }
        if path.is_dir() {
            collect(&path, &module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["lib", "main"].contains(&name.as_str())
        {
            files.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Finds which modules a file names.
struct Names<'a> {
    module: &'a str,
    modules: &'a BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Names<'_> {
    /// Notes the module in which the path `segments` ends, read from our own.
    fn note(&mut self, segments: &[String]) {
        let mut base: Vec<&str> = self.module.split("::").collect();
        let mut rest = segments;
        match rest.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            _ => return,
        }
        while let Some((first, further)) = rest.split_first()
            && first == "super"
        {
            base.pop();
            rest = further;
        }
        let mut path: Vec<&str> = base;
        path.extend(rest.iter().map(String::as_str));
        while !path.is_empty() {
            let name = path.join("::");
            if self.modules.contains(&name) {
                self.found.insert(name);
                return;
            }
            path.pop();
        }
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(name.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_of_tests(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&segments);
        visit::visit_path(self, path);
    }
}

fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|argument| argument == "test")
    })
}
