//! Which ring is declared, by what its sources say. Pure.

use std::fmt;
use std::sync::Arc;

use forwarder_core::document::{Checked, RingConfig};

use super::Outlook;

/// Who says what the ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The configuration's document, or the ring's own file.
    File,
    /// The ConfigMap, by the API.
    Api,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "the file",
            Self::Api => "the Kubernetes API",
        })
    }
}

/// What a source says. Each reason names the place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// A sound ring.
    Ring(Box<Checked<RingConfig>>),
    /// Something that is no sound ring.
    Wrong(String),
    /// There is nothing, or nothing any more.
    Gone(String),
    /// It could not be asked: what it said before still holds.
    Unreachable(String),
}

/// What is new about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was known.
    Nothing,
    /// A ring of this epoch, older than what another source has said: a copy that lags behind.
    Older(u64),
    /// A ring of this epoch is the newest now.
    New(u64),
    /// It cannot be used, and why.
    Refused(String),
    /// It says no ring, and why.
    Silent(String),
}

/// What one source has said so far.
#[derive(Debug, Default)]
struct Standing {
    spoken: bool,
    /// The highest epoch that it has said; 0: none yet.
    highest: u64,
    refused: Option<String>,
    silent: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Declared {
    newest: Option<Arc<Checked<RingConfig>>>,
    file: Standing,
    api: Standing,
}

impl Declared {
    /// `first`: what the file has said already.
    pub(super) fn new(first: Option<Arc<Checked<RingConfig>>>) -> Self {
        let file = Standing {
            highest: first.as_ref().map_or(0, |ring| ring.epoch),
            ..Standing::default()
        };
        Self {
            newest: first,
            file,
            api: Standing::default(),
        }
    }

    /// The newest ring.
    pub(super) fn newest(&self) -> Option<&Arc<Checked<RingConfig>>> {
        self.newest.as_ref()
    }

    /// Whether a source has said what it has, be that nothing.
    pub(super) fn has_spoken(&self, source: Source) -> bool {
        match source {
            Source::File => self.file.spoken,
            Source::Api => self.api.spoken,
        }
    }

    /// Takes up what a source says.
    ///
    /// The higher epoch wins. A source that says less than the other one lags behind it, which is no fault: a mounted
    /// ConfigMap follows the API by a minute. One that says less than it has said itself goes back, which no epoch may.
    pub(super) fn hear(&mut self, source: Source, said: Said) -> Verdict {
        let standing = match source {
            Source::File => &mut self.file,
            Source::Api => &mut self.api,
        };
        standing.spoken |= !matches!(said, Said::Unreachable(_));
        let ring = match said {
            Said::Ring(ring) => ring,
            Said::Wrong(reason) => return standing.refuse(reason),
            // Who has said a ring and now has none is not to be believed; who never had one may have it soon.
            Said::Gone(reason) if standing.highest > 0 => return standing.refuse(reason),
            Said::Gone(reason) => {
                standing.refused = None;
                return standing.fall_silent(reason);
            }
            Said::Unreachable(reason) => return standing.fall_silent(reason),
        };
        standing.silent = None;
        let epoch = ring.epoch;
        let newest = self.newest.as_ref().map_or(0, |newest| newest.epoch);
        let is_same = self.newest.as_ref().is_some_and(|newest| **newest == *ring);
        let goes_back = epoch < standing.highest;
        if !is_same && (epoch == newest || (epoch < newest && goes_back)) {
            return standing.refuse(format!(
                "{}: has changed, but its epoch {epoch} is not above {newest}, the newest declared epoch; raise its epoch with every change",
                match source {
                    Source::File => "ring",
                    Source::Api => "ring of the ConfigMap",
                }
            ));
        }
        standing.refused = None;
        let risen = epoch > standing.highest;
        standing.highest = standing.highest.max(epoch);
        if is_same {
            Verdict::Nothing
        } else if epoch > newest {
            self.newest = Some(Arc::from(ring));
            Verdict::New(epoch)
        } else if risen {
            Verdict::Older(epoch)
        } else {
            Verdict::Nothing
        }
    }

    /// What is to be said of it; nothing is waited for.
    pub(super) fn outlook(&self) -> Outlook {
        let refused: Vec<_> = [&self.api.refused, &self.file.refused]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        Outlook {
            declared: self.newest.as_ref().map(|ring| ring.epoch),
            waits_for: Vec::new(),
            refused: (!refused.is_empty()).then(|| refused.join("; ")),
            api_fault: self.api.silent.clone(),
            file_fault: self.file.silent.clone(),
        }
    }
}

impl Standing {
    fn refuse(&mut self, reason: String) -> Verdict {
        self.silent = None;
        if self.refused.as_ref() == Some(&reason) {
            return Verdict::Nothing;
        }
        self.refused = Some(reason.clone());
        Verdict::Refused(reason)
    }

    fn fall_silent(&mut self, reason: String) -> Verdict {
        self.silent = Some(reason.clone());
        Verdict::Silent(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::Source::{Api, File};
    use super::*;

    fn ring(epoch: u64, clusters: &[&str]) -> Said {
        let clusters: Vec<_> = clusters
            .iter()
            .map(|name| format!("{{name: {name}, servers: ['nats://{name}']}}"))
            .collect();
        let text = format!("{{epoch: {epoch}, clusters: [{}]}}", clusters.join(", "));
        Said::Ring(Box::new(RingConfig::from_yaml(&text).unwrap().checked().unwrap()))
    }

    fn refused(verdict: &Verdict) -> &str {
        let Verdict::Refused(reason) = verdict else {
            panic!("{verdict:?}")
        };
        reason
    }

    fn epoch(declared: &Declared) -> Option<u64> {
        declared.newest().map(|ring| ring.epoch)
    }

    #[test]
    fn the_higher_epoch_wins_whoever_says_it() {
        for (first, second) in [(Api, File), (File, Api)] {
            let mut declared = Declared::new(None);
            assert_eq!(declared.hear(first, ring(7, &["a"])), Verdict::New(7));
            assert_eq!(declared.hear(second, ring(8, &["a", "b"])), Verdict::New(8));
            assert_eq!(declared.hear(first, ring(8, &["a", "b"])), Verdict::Nothing);
            assert_eq!(declared.hear(first, ring(9, &["b"])), Verdict::New(9));
            assert_eq!(declared.outlook().refused, None);
        }
    }

    #[test]
    fn a_copy_that_lags_behind_is_no_fault() {
        let mut declared = Declared::new(None);
        declared.hear(Api, ring(8, &["a", "b"]));
        assert_eq!(declared.hear(File, ring(6, &["a"])), Verdict::Older(6));
        assert_eq!(declared.hear(File, ring(7, &["c"])), Verdict::Older(7));
        assert_eq!(declared.hear(File, ring(8, &["a", "b"])), Verdict::Nothing);
        assert_eq!((epoch(&declared), declared.outlook().refused), (Some(8), None));
    }

    #[test]
    fn no_source_goes_back() {
        let mut declared = Declared::new(None);
        declared.hear(Api, ring(8, &["a"]));
        let verdict = declared.hear(Api, ring(7, &["a"]));
        assert!(refused(&verdict).contains("its epoch 7 is not above 8"), "{verdict:?}");
        assert!(declared.outlook().refused.is_some());
        declared.hear(File, ring(8, &["a"]));
        assert!(declared.outlook().refused.is_some(), "the other source is no excuse");
        assert_eq!(declared.hear(Api, ring(8, &["a"])), Verdict::Nothing);
        assert_eq!(declared.outlook().refused, None);
    }

    #[test]
    fn two_rings_of_one_epoch_are_refused_once_and_shown_for_as_long() {
        for source in [Api, File] {
            let mut declared = Declared::new(None);
            declared.hear(Api, ring(8, &["a"]));
            let verdict = declared.hear(source, ring(8, &["b"]));
            assert!(refused(&verdict).contains("raise its epoch"), "{verdict:?}");
            assert_eq!(declared.hear(source, ring(8, &["b"])), Verdict::Nothing);
            assert!(declared.outlook().refused.is_some());
            assert_eq!(declared.hear(source, ring(9, &["b"])), Verdict::New(9));
            assert_eq!(declared.outlook().refused, None);
        }
    }

    #[test]
    fn a_deleted_config_map_changes_nothing_and_is_shown() {
        let mut declared = Declared::new(None);
        declared.hear(Api, ring(8, &["a"]));
        declared.hear(File, ring(8, &["a"]));
        let gone = Said::Gone("it is gone".to_owned());
        assert_eq!(refused(&declared.hear(Api, gone)), "it is gone");
        assert_eq!(epoch(&declared), Some(8));
        assert_eq!(declared.outlook().refused.as_deref(), Some("it is gone"));
        assert_eq!(declared.hear(Api, ring(9, &["a", "b"])), Verdict::New(9));
        assert_eq!(declared.outlook().refused, None);
    }

    #[test]
    fn who_never_had_a_ring_is_no_fault_of_it() {
        let mut declared = Declared::new(None);
        let gone = |what: &str| Said::Gone(what.to_owned());
        assert_eq!(
            declared.hear(File, gone("no file")),
            Verdict::Silent("no file".to_owned())
        );
        declared.hear(Api, gone("no ConfigMap"));
        let outlook = declared.outlook();
        assert_eq!(
            (outlook.refused.as_deref(), outlook.why_none()),
            (None, "no ConfigMap; no file".to_owned())
        );
        declared.hear(Api, ring(1, &["a"]));
        let outlook = declared.outlook();
        assert_eq!(
            (outlook.declared, outlook.refused, outlook.api_fault),
            (Some(1), None, None)
        );
    }

    #[test]
    fn an_api_that_cannot_be_asked_takes_nothing_back() {
        let mut declared = Declared::new(None);
        declared.hear(Api, ring(8, &["a"]));
        declared.hear(Api, ring(8, &["b"]));
        declared.hear(Api, Said::Unreachable("403".to_owned()));
        let outlook = declared.outlook();
        assert_eq!(outlook.api_fault.as_deref(), Some("403"));
        assert!(outlook.refused.is_some());
        declared.hear(File, ring(9, &["a"]));
        assert_eq!(epoch(&declared), Some(9), "the file goes on");
    }
}
