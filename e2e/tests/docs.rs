//! What is written for people: every link leads somewhere, every file that is named is there, and the manual is whole.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The manual, an mdBook.
const MANUAL: &str = "charts/docs";

/// Its pages, and the list of them.
const PAGES: &str = "charts/docs/src";

/// All documents: files, and folders of them.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    CHANGELOG,
    "forwarder/docs",
    "operator/docs",
    PAGES,
];

/// Tells what was: files that it names may have gone.
const CHANGELOG: &str = "CHANGELOG.md";

/// The languages of code that a page shows. The tests of the crates look for `yaml`.
const LANGUAGES: &[&str] = &["json", "python", "rust", "rust,no_run", "sh", "text", "yaml"];

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    let mut broken = Vec::new();
    for (path, page) in documents() {
        for link in &page.links {
            links += 1;
            if let Err(why) = follow(&path, &page, link) {
                broken.push(format!("{}: {link}: {why}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(links > 100, "only {links} links are found");
}

#[test]
fn the_manual_lists_each_of_its_pages_once() {
    let summary = Path::new(PAGES).join("SUMMARY.md");
    let mut listed: Vec<PathBuf> = Page::read(&summary)
        .links
        .iter()
        .map(|link| resolve(&summary, link).unwrap())
        .collect();
    listed.sort();
    let mut pages = below(PAGES);
    pages.retain(|path| *path != summary);
    pages.sort();
    assert_eq!(listed, pages, "left: SUMMARY.md, right: the files");
    assert!(pages.len() > 15, "only {} pages are found", pages.len());
}

#[test]
fn files_that_are_named_are_there() {
    let mut missing = Vec::new();
    for (path, page) in documents() {
        if path == Path::new(CHANGELOG) {
            continue;
        }
        let named = page.code.iter().filter(|code| names_a_file(code));
        for name in named.flat_map(|code| alternatives(code)) {
            if !root().join(&name).exists() {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What looks like a tag is no text: it would be lost on the page.
#[test]
fn pages_have_no_html_and_only_code_that_is_known() {
    for (path, page) in documents() {
        assert_eq!(page.html, Vec::<String>::new(), "{}", path.display());
        for language in &page.languages {
            assert!(
                LANGUAGES.contains(&language.as_str()),
                "{}: code in `{language}`",
                path.display()
            );
        }
    }
}

/// The README has parts of the programs of the manual's page. That page's are compiled.
#[test]
fn the_readmes_programs_are_those_of_the_page_for_subscribers() {
    let lines = |path: &str, language: &str| -> Vec<String> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let blocks = text.split("```").skip(1).step_by(2);
        let of_it = blocks.filter_map(|block| block.strip_prefix(language));
        of_it.flat_map(str::lines).map(|line| line.trim().to_owned()).collect()
    };
    for language in ["rust", "python"] {
        let page = lines("charts/docs/src/subscribers.md", language);
        let shown = lines("README.md", language);
        let missing: Vec<_> = shown.iter().filter(|line| !page.contains(line)).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(shown.len() > 4, "{shown:?}");
    }
}

#[test]
fn the_manual_is_built_aside_and_is_in_no_chart() {
    let settings = fs::read_to_string(root().join(MANUAL).join("book.toml")).unwrap();
    assert!(settings.contains("\nbuild-dir = \"../../target/book\"\n"), "{settings}");
    // A page that is not there ends the build.
    assert!(settings.contains("\ncreate-missing = false\n"), "{settings}");
    for folder in Path::new(MANUAL).ancestors() {
        let chart = root().join(folder).join("Chart.yaml");
        assert!(!chart.exists(), "{} packages the manual", chart.display());
    }
}

#[test]
fn headings_are_linked_to_as_they_are_rendered() {
    let page = Page::parse("# A `b_c` – d, e-f!\n\n## Same\n\n## Same\n\n[x](y.md#z)\n");
    let headings: Vec<&str> = page.headings.iter().map(String::as_str).collect();
    assert_eq!(headings, ["a-b_c--d-e-f", "same", "same-1"]);
    assert_eq!(page.links, ["y.md#z"]);
}

#[test]
fn paths_are_resolved_from_the_page_and_stay_in_the_checkout() {
    let page = Path::new("a/b/page.md");
    assert_eq!(resolve(page, "../c.md"), Some(PathBuf::from("a/c.md")));
    assert_eq!(resolve(page, "./c.md"), Some(PathBuf::from("a/b/c.md")));
    assert_eq!(resolve(page, "../../../c.md"), None);
    assert_eq!(resolve(page, "/c.md"), None);
}

#[test]
fn names_with_alternatives_are_all_of_them() {
    assert_eq!(alternatives("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert_eq!(alternatives("a/b.rs"), ["a/b.rs"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What is wrong with a link of a page.
fn follow(path: &Path, page: &Page, link: &str) -> Result<(), String> {
    if link.starts_with("https://") {
        return Ok(());
    }
    if link.contains(':') {
        return Err("neither https nor a file".to_owned());
    }
    let (name, heading) = match link.split_once('#') {
        Some((name, heading)) => (name, Some(heading)),
        None => (link, None),
    };
    if name.is_empty() {
        return match heading {
            Some(heading) if page.headings.contains(heading) => Ok(()),
            _ => Err("no such heading on this page".to_owned()),
        };
    }
    let target = resolve(path, name).ok_or("leads out of the checkout")?;
    // Elsewhere it would lead nowhere once the manual is rendered.
    if path.starts_with(PAGES) && !target.starts_with(PAGES) {
        return Err("leads out of the manual: name the path as code".to_owned());
    }
    if !root().join(&target).exists() {
        return Err("no such file".to_owned());
    }
    match heading {
        Some(heading) if !Page::read(&target).headings.contains(heading) => Err("no such heading there".to_owned()),
        _ => Ok(()),
    }
}

/// The path from the root of what a link of a page names; none: it leads out of the checkout.
fn resolve(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            Component::Normal(name) => path.push(name),
            _ => return None,
        }
    }
    Some(path)
}

/// Whether code is the path of a file from the root.
fn names_a_file(code: &str) -> bool {
    let folder = code.split_once('/').map(|(folder, _)| folder);
    let is_ours = folder.is_some_and(|folder| ["charts", "crds", "e2e", "forwarder", "operator"].contains(&folder));
    is_ours && !code.contains([' ', '*'])
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let parts = name.split_once('{').and_then(|(before, rest)| {
        let (within, behind) = rest.split_once('}')?;
        Some((before, within, behind))
    });
    match parts {
        Some((before, within, behind)) => within
            .split(',')
            .map(|part| format!("{before}{part}{behind}"))
            .collect(),
        None => vec![name.to_owned()],
    }
}

/// All documents, by their paths from the root.
fn documents() -> BTreeMap<PathBuf, Page> {
    let paths = DOCUMENTS.iter().flat_map(|name| {
        if root().join(name).is_dir() {
            below(name)
        } else {
            vec![PathBuf::from(name)]
        }
    });
    paths
        .map(|path| {
            let page = Page::read(&path);
            (path, page)
        })
        .collect()
}

/// The files below a folder, by their paths from the root. Each is a document.
fn below(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                assert_eq!(
                    path.extension().and_then(|name| name.to_str()),
                    Some("md"),
                    "{}",
                    path.display()
                );
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has no pages");
    files
}

/// What a document consists of, as far as it matters here.
#[derive(Debug, Default)]
struct Page {
    /// What its links and pictures name.
    links: Vec<String>,
    /// Its headings, as links name them.
    headings: BTreeSet<String>,
    /// Code within text.
    code: Vec<String>,
    /// The languages of its blocks of code.
    languages: BTreeSet<String>,
    html: Vec<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    page.languages.insert(language.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    if let Some(text) = heading.take() {
                        page.add_heading(&text);
                    }
                }
                Event::Text(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.code.push(code.to_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => page.html.push(html.to_string()),
                _ => {}
            }
        }
        page
    }

    /// As mdBook and GitHub name it: in small letters, with dashes for spaces, without signs. Of several with one text the later ones
    /// have a number.
    fn add_heading(&mut self, text: &str) {
        let name: String = text
            .chars()
            .filter_map(|letter| match letter {
                '-' | '_' => Some(letter),
                _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
                _ => letter.is_whitespace().then_some('-'),
            })
            .collect();
        let numbered = (1..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| !self.headings.contains(name));
        self.headings.extend(free);
    }
}
