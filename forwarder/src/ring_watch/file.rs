//! The file that declares the ring.
//!
//! It is read twice a second and compared: a mounted ConfigMap is replaced by switching symbolic links, which a
//! watch on the file itself would miss. Only what two looks in a row have found is taken up: half of a document that is being written
//! in place may well be a ring with fewer members, and its epoch could not be taken back.

use std::path::PathBuf;

use forwarder_core::document::{Checked, Document, RingConfig};
use tracing::warn;

use super::declared::Said;

/// See the module.
#[derive(Debug)]
pub(super) struct RingFile {
    file: PathBuf,
    content: Content,
    /// What the last look found: the text, or why it cannot be read.
    seen: Option<Result<String, String>>,
    /// What was found twice in a row, and acted upon.
    judged: Option<Result<String, String>>,
}

/// What is in the file.
#[derive(Debug)]
enum Content {
    /// A ring with all the rest, of which this is in use.
    Document(Box<Document>),
    /// The ring alone.
    Ring,
}

impl RingFile {
    /// A whole document. `rest`: what of it, besides the ring, is in use.
    pub(super) fn of_document(file: PathBuf, rest: Document) -> Self {
        Self::new(file, Content::Document(Box::new(rest)))
    }

    /// A ring's own document.
    pub(super) fn of_ring(file: PathBuf) -> Self {
        Self::new(file, Content::Ring)
    }

    const fn new(file: PathBuf, content: Content) -> Self {
        Self {
            file,
            content,
            seen: None,
            judged: None,
        }
    }

    /// What is new in it, if anything is.
    pub(super) async fn observe(&mut self) -> Option<Said> {
        let read = tokio::fs::read_to_string(&self.file).await;
        self.compare(read.map_err(|error| format!("failed to read {}: {error}", self.file.display())))
    }

    fn compare(&mut self, read: Result<String, String>) -> Option<Said> {
        if self.seen.as_ref() != Some(&read) {
            // It may be half written; while it is replaced it may be gone for a moment.
            self.seen = Some(read);
            return None;
        }
        if self.judged.as_ref() == Some(&read) {
            return None;
        }
        let said = match &read {
            Ok(text) => self.content.read(text),
            Err(reason) => Said::Gone(reason.clone()),
        };
        self.judged = Some(read);
        Some(said)
    }
}

impl Content {
    fn read(&self, text: &str) -> Said {
        match self {
            Self::Ring => read_ring(text),
            Self::Document(rest) => match Checked::from_yaml(text) {
                Ok(config) => {
                    let (document, ring) = config.split();
                    if differs(&document, rest) {
                        warn!(
                            "the configuration has changed outside its ring; the change takes effect at the next start"
                        );
                    }
                    Said::Ring(Box::new(ring))
                }
                Err(error) => Said::Wrong(error.to_string()),
            },
        }
    }
}

/// A ring's own document.
pub(super) fn read_ring(text: &str) -> Said {
    let ring = RingConfig::from_yaml(text).and_then(|ring| Ok(ring.checked()?));
    match ring {
        Ok(ring) => Said::Ring(Box::new(ring)),
        Err(error) => Said::Wrong(error.to_string()),
    }
}

/// Whether a process that was started with `used` would run otherwise with `declared`.
fn differs(declared: &Document, used: &Document) -> bool {
    let Document {
        source,
        ring: _,
        publish,
        dead_letter,
        engine,
        // Names that the process fills in by itself are not in the document.
        admin: _,
        logging,
        telemetry,
    } = declared;
    *source != used.source
        || *publish != used.publish
        || *dead_letter != used.dead_letter
        || *engine != used.engine
        || *logging != used.logging
        || *telemetry != used.telemetry
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: &str =
        "epoch: 3\nclusters:\n- {name: C1, servers: ['nats://c1']}\n- {name: C2, servers: ['nats://c2']}\n";

    const DOCUMENT: &str = "
source: {connection: {bootstrapServers: ['k:9092']}, topic: t, group: g}
ring: {epoch: 3, clusters: [{name: C1, servers: ['nats://c1']}]}
";

    fn text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn clusters(said: Option<Said>) -> Option<usize> {
        match said? {
            Said::Ring(ring) => Some(ring.clusters.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_document_that_is_still_being_written_is_not_taken_up() {
        let half = &RING[..RING.find("- {name: C2").unwrap()];
        let mut file = RingFile::of_ring("ring.yaml".into());
        assert_eq!(
            clusters(file.compare(text(half))),
            None,
            "who reads it once does not know that it is whole"
        );
        assert_eq!(clusters(file.compare(text(RING))), None);
        assert_eq!(clusters(file.compare(text(RING))), Some(2));
        assert_eq!(clusters(file.compare(text(RING))), None, "it is no news any more");
    }

    #[test]
    fn what_is_gone_for_a_moment_is_being_replaced() {
        let mut file = RingFile::of_ring("ring.yaml".into());
        let gone = || Err("gone".to_owned());
        file.compare(text(RING));
        assert_eq!(clusters(file.compare(text(RING))), Some(2));
        assert_eq!(file.compare(gone()), None);
        assert_eq!(file.compare(text(RING)), None);
        assert_eq!(file.compare(gone()), None);
        assert_eq!(file.compare(gone()), Some(Said::Gone("gone".to_owned())));
        file.compare(text(RING));
        assert_eq!(
            clusters(file.compare(text(RING))),
            Some(2),
            "said again after it was gone"
        );
    }

    #[test]
    fn a_ring_is_read_out_of_a_document() {
        let (rest, ring) = Checked::from_yaml(DOCUMENT).unwrap().split();
        let content = Content::Document(Box::new(rest.into_inner()));
        assert_eq!(content.read(DOCUMENT), Said::Ring(Box::new(ring)));
        let wrong = content.read(&DOCUMENT.replace("epoch: 3", "epoch: 0"));
        assert!(
            matches!(&wrong, Said::Wrong(reason) if reason.starts_with("ring.epoch: ")),
            "{wrong:?}"
        );
        let wrong = Content::Ring.read(DOCUMENT);
        assert!(
            matches!(&wrong, Said::Wrong(reason) if reason.contains("source")),
            "{wrong:?}"
        );
    }

    #[test]
    fn what_takes_a_new_process_is_told_from_what_does_not() {
        let rest = |text: &str| Checked::from_yaml(text).unwrap().split().0.into_inner();
        let used = rest(DOCUMENT);
        assert!(!differs(&rest(&DOCUMENT.replace("epoch: 3", "epoch: 4")), &used));
        assert!(!differs(&rest(&format!("{DOCUMENT}admin: {{forwarder: x}}")), &used));
        assert!(differs(&rest(&DOCUMENT.replace("group: g", "group: h")), &used));
    }
}
