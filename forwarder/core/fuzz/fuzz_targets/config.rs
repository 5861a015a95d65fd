//! The configuration document: every text is read or refused with a reason, and what is read survives being written.

#![no_main]

use forwarder_core::document::server::ServerUrl;
use forwarder_core::document::{Config, ConfigError, Document, Fault, Misread, RingConfig};
use forwarder_core::subject::{Template, covers};
use libfuzzer_sys::fuzz_target;

const SECTIONS: [&str; 8] = [
    "source",
    "ring",
    "publish",
    "deadLetter",
    "engine",
    "admin",
    "logging",
    "telemetry",
];

fuzz_target!(|text: &str| {
    let config = match Config::from_yaml(text) {
        Ok(config) => config,
        Err(error) => return judge_refusal(&error),
    };
    let written = config.to_yaml().expect("what was read can be written");
    let read = Config::from_yaml(&written);
    assert_eq!(read.as_ref(), Ok(&config), "written as\n{written}");

    // The ring apart from the rest, as an operator writes it.
    let (document, ring) = config.clone().split();
    let (rest, apart) = (document.to_yaml(), ring.to_yaml());
    let rest = Document::from_yaml(&rest.expect("what was read can be written")).ok();
    let apart = RingConfig::from_yaml(&apart.expect("what was read can be written")).ok();
    assert_eq!((rest.as_ref(), apart.as_ref()), (Some(&document), Some(&ring)));
    assert_eq!(config.check().is_ok(), document.check().is_ok() && ring.check().is_ok());

    // As an operator may hold it.
    let json = serde_json::to_string(&config).expect("what was read can be written");
    let read = serde_json::from_str::<Config>(&json).ok();
    assert_eq!(read.as_ref(), Some(&config), "written as {json}");

    match config.check() {
        Err(errors) => judge_faults(errors.faults()),
        Ok(()) => {
            // JSON is YAML but for raw control characters, which no checked document has.
            assert_eq!(Config::from_yaml(&json).as_ref(), Ok(&config), "written as {json}");
            // What the engine takes for granted of a checked document.
            let template = Template::parse(&config.publish.subject).expect("a subject template");
            if let Some(stream) = &config.publish.stream {
                let prefix = template.literal_prefix();
                assert!(!prefix.is_empty());
                let subjects = &stream.subjects;
                assert!(subjects.is_empty() || subjects.iter().any(|subject| covers(subject, prefix)));
            }
            for server in config.ring.clusters.iter().flat_map(|cluster| &cluster.servers) {
                ServerUrl::parse(server).expect("a server");
            }
        }
    }
});

fn judge_refusal(error: &ConfigError) {
    match error {
        ConfigError::Unreadable(errors) => {
            assert!(!errors.misread().is_empty());
            for Misread { fault, line, .. } in errors.misread() {
                assert!(!fault.problem.is_empty());
                // An empty document has no place where something is missing.
                let is_empty = fault.problem.starts_with("missing field");
                assert!(
                    !fault.path.is_empty() || *line > 0 || is_empty,
                    "nobody knows where: {error}"
                );
            }
            if !errors.wrong().is_empty() {
                judge_faults(errors.wrong());
            }
        }
        ConfigError::Wrong(_) => panic!("reading judges no meaning: {error}"),
    }
}

fn judge_faults(faults: &[Fault]) {
    assert!(!faults.is_empty());
    for fault in faults {
        let section = fault.path.split(['.', '[']).next().unwrap_or_default();
        assert!(SECTIONS.contains(&section), "no path of the document: {fault}");
        assert!(!fault.problem.is_empty(), "{}", fault.path);
    }
}
