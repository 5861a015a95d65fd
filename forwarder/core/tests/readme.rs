//! What the README tells a reader to write is what the forwarder takes.

use forwarder_core::document::Config;

const README: &str = include_str!("../../../README.md");

#[test]
fn every_document_of_the_readme_passes() {
    let mut documents = blocks(README, "yaml");
    // Those of the API are the API's to judge.
    documents.retain(|(_, text)| !text.starts_with("apiVersion:"));
    assert!(!documents.is_empty(), "the README shows documents");
    for (line, text) in documents {
        let config = Config::from_yaml(&text).unwrap_or_else(|error| panic!("README.md:{line}: {error}"));
        config
            .check()
            .unwrap_or_else(|error| panic!("README.md:{line}: {error}"));
    }
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
