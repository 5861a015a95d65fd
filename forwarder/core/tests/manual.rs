//! What README.md and the manual tell a reader to write is what the forwarder takes.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::fs;
use std::path::Path;

use forwarder_core::document::Config;

#[test]
fn every_document_of_the_manual_passes() {
    let mut found = Vec::new();
    for (page, text) in pages() {
        let mut documents = blocks(&text, "yaml");
        // Those of the API are the API's to judge.
        documents.retain(|(_, text)| !text.starts_with("apiVersion:"));
        for (line, text) in &documents {
            let config = Config::from_yaml(text).unwrap_or_else(|error| panic!("{page}:{line}: {error}"));
            config.check().unwrap_or_else(|error| panic!("{page}:{line}: {error}"));
        }
        if !documents.is_empty() {
            found.push(format!("{page}: {}", documents.len()));
        }
    }
    assert_eq!(
        found,
        ["charts/docs/src/forwarder.md: 2"],
        "documents that pages show: add to this list what is new"
    );
}

/// README.md and the pages of the manual, by their paths from the root.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manual = "charts/docs/src";
    let mut paths: Vec<_> = fs::read_dir(root.join(manual))
        .unwrap()
        .map(|entry| format!("{manual}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    paths.sort();
    assert!(paths.len() > 1, "the manual has no pages");
    paths.insert(0, "README.md".to_owned());
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path, text)
        })
        .collect()
}

/// The fenced blocks of a language, each with the line that opens it.
fn blocks(markdown: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(markdown.lines());
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<_> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        if info == language {
            blocks.push((number, body.join("\n")));
        }
    }
    blocks
}
