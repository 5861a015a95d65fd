//! Watches the configuration document for a new ring.
//!
//! The file is read twice a second and compared: a mounted ConfigMap is replaced by switching symbolic links, which a
//! watch on the file itself would miss. Only what two looks in a row have found is taken up: half of a document that is being written
//! in place may well be a ring with fewer members, and its epoch could not be taken back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forwarder_core::config::{Checked, Config, RingConfig};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

/// The time between two looks at the file. Writing it in place takes less.
const INTERVAL: Duration = Duration::from_millis(500);

/// Where new rings are put up: none until the first one.
pub type Rings = watch::Receiver<Option<Arc<RingConfig>>>;

/// What is wrong with the document now, for people; none: nothing.
pub type Refusal = watch::Receiver<Option<String>>;

/// See the module.
#[derive(Debug)]
pub struct RingWatch {
    file: PathBuf,
    /// What is in use.
    current: Config,
    /// What the last look found: the text, or why it cannot be read.
    seen: Option<Result<String, String>>,
    /// What was found twice in a row, and acted upon.
    judged: Option<Result<String, String>>,
    rings: watch::Sender<Option<Arc<RingConfig>>>,
    refusal: watch::Sender<Option<String>>,
}

/// What a document brings.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// What is in use.
    Same,
    /// A new ring. `rest`: other sections have changed too, which takes a new process.
    New { ring: Box<RingConfig>, rest: bool },
    /// Only what takes a new process.
    RestOnly,
    /// It cannot be used, and why.
    Refused(String),
}

impl RingWatch {
    /// A watch over the file that `config` came from.
    #[must_use]
    pub fn new(file: PathBuf, config: &Checked) -> (Self, Rings, Refusal) {
        let (rings, rings_out) = watch::channel(None);
        let (refusal, refusal_out) = watch::channel(None);
        let watch = Self {
            file,
            current: config.clone().into_inner(),
            seen: None,
            judged: None,
            rings,
            refusal,
        };
        (watch, rings_out, refusal_out)
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let read = tokio::fs::read_to_string(&self.file).await;
            self.look(read.map_err(|error| format!("failed to read {}: {error}", self.file.display())));
        }
    }

    fn look(&mut self, read: Result<String, String>) {
        if self.seen.as_ref() != Some(&read) {
            // It may be half written; while it is replaced it may be gone for a moment.
            self.seen = Some(read);
            return;
        }
        if self.judged.as_ref() == Some(&read) {
            return;
        }
        match &read {
            Ok(text) => self.take_up(text),
            Err(reason) => self.refuse(reason.clone()),
        }
        self.judged = Some(read);
    }

    fn take_up(&mut self, text: &str) {
        match judge(&self.current, text) {
            Verdict::Same => {}
            Verdict::RestOnly => {
                warn!("the configuration has changed outside of its ring: that takes effect at the next start");
            }
            Verdict::New { ring, rest } => {
                if rest {
                    warn!("the configuration has changed outside of its ring too: that takes effect at the next start");
                }
                info!(epoch = ring.epoch, "a new ring is declared");
                self.current.ring = (*ring).clone();
                self.rings.send_replace(Some(Arc::from(ring)));
            }
            Verdict::Refused(reason) => return self.refuse(reason),
        }
        self.refusal.send_replace(None);
    }

    fn refuse(&self, reason: String) {
        let news = self.refusal.send_if_modified(|refusal| {
            let news = refusal.as_ref() != Some(&reason);
            if news {
                *refusal = Some(reason.clone());
            }
            news
        });
        if news {
            error!(
                reason,
                "the configuration cannot be used; what was read before stays in use"
            );
        }
    }
}

fn judge(current: &Config, text: &str) -> Verdict {
    let config = match Checked::from_yaml(text) {
        Ok(config) => config.into_inner(),
        Err(error) => return Verdict::Refused(error.to_string()),
    };
    let Config {
        source,
        ring,
        publish,
        dead_letter,
        engine,
        admin: _,
        logging,
    } = &config;
    let rest = *source != current.source
        || *publish != current.publish
        || *dead_letter != current.dead_letter
        || *engine != current.engine
        || *logging != current.logging;
    let epoch = current.ring.epoch;
    if *ring == current.ring {
        return if rest { Verdict::RestOnly } else { Verdict::Same };
    }
    if ring.epoch <= epoch {
        return Verdict::Refused(format!(
            "ring: has changed, but its epoch {} is not above {epoch}, which is in use; raise ring.epoch with every change",
            ring.epoch
        ));
    }
    Verdict::New {
        ring: Box::new(config.ring),
        rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "
source: {connection: {bootstrapServers: ['k:9092']}, topic: t, group: g}
ring: {epoch: 3, clusters: [{name: C1, servers: ['nats://c1:4222']}]}
";

    /// A watch over [`DOCUMENT`], and what it puts up.
    fn watch() -> (RingWatch, Rings, Refusal) {
        RingWatch::new("ring.yaml".into(), &Checked::from_yaml(DOCUMENT).unwrap())
    }

    fn text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_document_that_is_still_being_written_is_not_taken_up() {
        let whole = DOCUMENT.replace(
            "epoch: 3, clusters: [{name: C1, servers: ['nats://c1:4222']}]}",
            "epoch: 4\n  clusters:\n  - {name: C1, servers: ['nats://c1:4222']}\n  - {name: C2, servers: ['nats://c2:4222']}\n",
        );
        let whole = whole.replace("ring: {", "ring:\n  ");
        let half = &whole[..whole.find("  - {name: C2").unwrap()];
        let (mut watch, rings, refusal) = watch();
        let clusters = || rings.borrow().as_ref().map(|ring| ring.clusters.len());
        watch.look(text(half));
        assert_eq!(clusters(), None, "who reads it once does not know that it is whole");
        watch.look(text(&whole));
        assert_eq!(clusters(), None);
        watch.look(text(&whole));
        assert_eq!(clusters(), Some(2));
        assert_eq!(*refusal.borrow(), None);
    }

    #[test]
    fn a_document_that_can_be_read_again_is_no_longer_refused() {
        let (mut watch, _rings, refusal) = watch();
        let said = || refusal.borrow().clone();
        let look_twice = |watch: &mut RingWatch, read: Result<String, String>| {
            watch.look(read.clone());
            watch.look(read);
        };
        look_twice(&mut watch, text(DOCUMENT));
        assert_eq!(said(), None);
        watch.look(Err("gone".to_owned()));
        assert_eq!(said(), None, "while it is replaced it may be gone for a moment");
        look_twice(&mut watch, Err("gone".to_owned()));
        assert_eq!(said().as_deref(), Some("gone"));
        look_twice(&mut watch, text(DOCUMENT));
        assert_eq!(said(), None);
        // What was wrong with the text before is wrong with it still.
        let faulty = DOCUMENT.replace("epoch: 3", "epoch: 0");
        look_twice(&mut watch, text(&faulty));
        let fault = said();
        assert!(fault.is_some());
        look_twice(&mut watch, Err("gone".to_owned()));
        look_twice(&mut watch, text(&faulty));
        assert_eq!(said(), fault);
    }

    fn judged(change: impl Fn(&str) -> String) -> Verdict {
        let current = Checked::from_yaml(DOCUMENT).unwrap().into_inner();
        judge(&current, &change(DOCUMENT))
    }

    #[test]
    fn the_same_ring_is_no_news() {
        assert_eq!(judged(|text| format!("{text}\n# a comment")), Verdict::Same);
    }

    #[test]
    fn a_greater_epoch_is_taken_up() {
        let verdict = judged(|text| text.replace("epoch: 3", "epoch: 4"));
        assert!(matches!(verdict, Verdict::New { ring, rest: false } if ring.epoch == 4));
        let verdict = judged(|text| text.replace("epoch: 3", "epoch: 4").replace("group: g", "group: h"));
        assert!(matches!(verdict, Verdict::New { rest: true, .. }));
    }

    #[test]
    fn epochs_only_grow() {
        for epoch in ["epoch: 3", "epoch: 2"] {
            let verdict = judged(|text| text.replace("epoch: 3", epoch).replace("name: C1", "name: C9"));
            assert!(
                matches!(&verdict, Verdict::Refused(reason) if reason.contains("raise ring.epoch")),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_takes_a_new_process_changes_nothing() {
        assert_eq!(judged(|text| text.replace("group: g", "group: h")), Verdict::RestOnly);
    }

    #[test]
    fn a_document_with_a_fault_is_refused_with_its_path() {
        let verdict = judged(|text| text.replace("epoch: 3", "epoch: 0"));
        assert!(
            matches!(&verdict, Verdict::Refused(reason) if reason.contains("ring.epoch")),
            "{verdict:?}"
        );
    }
}
