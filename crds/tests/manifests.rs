//! The manifests of `crds/corpus`, on which the API server itself is tried, judged by the rules alone: quickly, and without a server.
//!
//! What types and bounds refuse is left to the API server.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crds::{AssetForwarder, KafkaChannel, NatsCluster, definition};
use kube::core::cel::{CompiledSchema, compile_schema, validate_compiled};
use serde_json::{Map, Value};

#[test]
fn accepted_manifests_break_no_rule_and_are_read_as_the_types() {
    let definitions = Definitions::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/examples");
    let folders = [
        manifests("accepted"),
        examples.join("quickstart"),
        examples.join("joining"),
        examples.join("full"),
        examples.join("managed"),
    ];
    let mut seen = 0;
    for path in folders.iter().flat_map(|folder| files(folder)) {
        // Of a pair the second is the first one's update; elsewhere the documents have nothing to do with each other.
        let is_pair = path.starts_with(&folders[0]);
        let mut before = None;
        for document in documents(&path) {
            let broken = definitions.broken(&document, before.as_ref());
            assert_eq!(broken, Vec::<String>::new(), "{}", path.display());
            read(&document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            before = is_pair.then_some(document);
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// What README.md and the manual tell a reader to declare.
#[test]
fn the_manual_declares_what_the_rules_take() {
    let definitions = Definitions::new();
    let mut found = Vec::new();
    for (page, text) in pages() {
        let blocks = text.split("```yaml\n").skip(1);
        for block in blocks.filter(|block| block.starts_with("apiVersion:")) {
            let text = block.split("```").next().unwrap();
            let declared: Vec<Value> =
                serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{page}: {error}"));
            for document in &declared {
                assert_eq!(
                    definitions.broken(document, None),
                    Vec::<String>::new(),
                    "{page}: {document}"
                );
                read(document).unwrap_or_else(|error| panic!("{page}: {error}"));
            }
            let kinds: Vec<String> = declared.iter().map(kind).collect();
            found.push(format!("{page}: {}", kinds.join(", ")));
        }
    }
    assert_eq!(
        found,
        [
            "README.md: AssetForwarder",
            "README.md: NatsCluster, KafkaChannel, AssetForwarder",
            "charts/docs/src/declare.md: NatsCluster, KafkaChannel, AssetForwarder",
            "charts/docs/src/managed-nats.md: NatsCluster",
            "charts/docs/src/subscribers.md: AssetForwarder, NatsCluster",
        ],
        "what pages declare: add to this list what is new"
    );
}

#[test]
fn every_rule_is_broken_by_the_manifests_that_name_it() {
    let definitions = Definitions::new();
    let mut untried = definitions.rules();
    for path in files(&manifests("refused")) {
        let reason = reason(&path);
        if !definitions.rules().iter().any(|rule| is_of(&reason, rule)) {
            continue;
        }
        let documents = documents(&path);
        let (refused, before) = documents.split_last().unwrap();
        let broken = definitions.broken(refused, before.last());
        assert!(
            broken.iter().any(|message| message.contains(&reason)),
            "{} breaks {broken:#?}",
            path.display()
        );
        untried.retain(|rule| !is_of(&reason, rule));
    }
    assert_eq!(untried, Vec::<String>::new());
}

/// The full examples are what a reader looks fields up in.
#[test]
fn the_full_examples_name_every_field() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/examples/full");
    let definitions = Definitions::new();
    let examples: Vec<Value> = files(&folder).iter().flat_map(|path| documents(path)).collect();
    for example in &examples {
        let missing = unnamed(
            &definitions.of(example).0["properties"]["spec"],
            &example["spec"],
            "spec",
        );
        // One of each union, and what a Kubernetes type has inside is documented elsewhere.
        let left: Vec<_> = missing
            .iter()
            .filter(|field| {
                *field != "spec.deadLetter.channelRef"
                    && *field != "spec.publish.mirrorMovedSeconds"
                    && *field != "spec.managed"
                    && *field != "spec.jetStreamApi.prefix"
                    && !field.starts_with("spec.podTemplate.affinity")
                    && !field.starts_with("spec.podTemplate.tolerations")
                    && !field.starts_with("spec.podTemplate.topologySpreadConstraints")
                    && !field.ends_with(".matchLabels")
                    && !field.ends_with(".matchExpressions")
                    && !field.ends_with("allowedNamespaces.selector")
                    && !field.contains("[].values")
            })
            .collect();
        assert!(left.is_empty(), "{} lacks {left:?}", kind(example));
    }
    assert_eq!(examples.len(), 3);
}

fn manifests(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder)
}

/// README.md and the pages of the manual, by their paths from the root.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = files(&root.join("charts/docs/src"));
    assert!(pages.len() > 1, "the manual has no pages");
    let names = pages
        .iter()
        .map(|path| format!("charts/docs/src/{}", path.file_name().unwrap().to_str().unwrap()));
    std::iter::once("README.md".to_owned())
        .chain(names)
        .map(|name| {
            let text = fs::read_to_string(root.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, text)
        })
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the first line of a refused manifest says that the message must hold.
fn reason(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let first = text.lines().next().unwrap();
    first.strip_prefix("# refused: ").unwrap().to_owned()
}

fn kind(document: &Value) -> String {
    document["kind"].as_str().unwrap().to_owned()
}

/// The definitions' schemas by kind, as they are and with their rules compiled.
struct Definitions(BTreeMap<String, (Value, CompiledSchema)>);

impl Definitions {
    fn new() -> Self {
        let kinds = definition::all().into_iter().map(|definition| {
            let validation = definition.spec.versions[0].schema.clone().unwrap();
            let schema = serde_json::to_value(validation.open_api_v3_schema.unwrap()).unwrap();
            let compiled = compile_schema(&schema);
            (definition.spec.names.kind, (schema, compiled))
        });
        Self(kinds.collect())
    }

    fn of(&self, document: &Value) -> &(Value, CompiledSchema) {
        &self.0[&kind(document)]
    }

    /// The messages of the rules that a document breaks.
    fn broken(&self, document: &Value, before: Option<&Value>) -> Vec<String> {
        let (document, before) = (without_nulls(document), before.map(without_nulls));
        match validate_compiled(&self.of(&document).1, &document, before.as_ref()) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.message).collect(),
        }
    }

    /// The messages of all rules; of one that is put together from the object, its first words.
    fn rules(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (schema, _) in self.0.values() {
            gather_rules(schema, &mut found);
        }
        found
    }
}

fn gather_rules(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                let fixed = rule["message"].as_str();
                let made = || rule["messageExpression"].as_str()?.split('\'').nth(1);
                found.push(fixed.or_else(made).unwrap().to_owned());
            }
            fields.values().for_each(|value| gather_rules(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| gather_rules(item, found)),
        _ => {}
    }
}

/// Whether a manifest's reason is what a rule says.
fn is_of(reason: &str, rule: &str) -> bool {
    rule.contains(reason) || reason.starts_with(rule)
}

/// As the API server does where `null` is not declared.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn read(document: &Value) -> Result<(), serde_json::Error> {
    let document = document.clone();
    match kind(&document).as_str() {
        "NatsCluster" => serde_json::from_value::<NatsCluster>(document).map(drop),
        "KafkaChannel" => serde_json::from_value::<KafkaChannel>(document).map(drop),
        "AssetForwarder" => serde_json::from_value::<AssetForwarder>(document).map(drop),
        other => panic!("{other} is no kind of ours"),
    }
}

/// The fields of a schema that a value does not have.
fn unnamed(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let Some(properties) = schema["properties"].as_object() else {
        return match (schema["items"].as_object(), value.as_array()) {
            (Some(_), Some(items)) if !items.is_empty() => unnamed(&schema["items"], &items[0], &format!("{path}[]")),
            _ => Vec::new(),
        };
    };
    properties
        .iter()
        .flat_map(|(name, schema)| {
            let path = format!("{path}.{name}");
            match value.get(name) {
                Some(value) => unnamed(schema, value, &path),
                None => vec![path],
            }
        })
        .collect()
}
