//! Watches what declares the ring, and hands each new one to the engine.
//!
//! ```text
//!  file (twice a second) ──▶ ┐
//!                            ├─▶ the newest one ──▶ its credentials are all there? ──▶ engine
//!  ConfigMap, by the API ──▶ ┘   (higher epoch)     (twice a second, until they are)
//! ```
//!
//! Two sources may declare the same ring: a ConfigMap by the Kubernetes API, at once, and the file that it is mounted as, a
//! minute later, which goes on where the API cannot be asked. The first ring of a process is used as soon as it is known:
//! there is no other one to go on with, and a publisher without its credentials tries again. Every later one waits until all
//! credential files that it names are there, because the ring in use is better than one with a member that cannot connect.

pub mod config_map;
mod credentials;
mod declared;
mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forwarder_core::document::{Checked, Document, RingConfig};
use forwarder_core::status::RingStatus;
use forwarder_service::log_limit::LogLimit;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

pub use self::config_map::ConfigMapKey;
use self::declared::{Declared, Said, Source, Verdict};
use self::file::RingFile;

/// The time between two looks at files. Writing one in place takes less.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a process that begins waits for the API where the file tells a ring already: with an older ring it would have to
/// leave partitions alone that others have served under a newer one.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the log repeats what is waited for, and why the API cannot be asked.
const REPEAT: Duration = Duration::from_secs(60);

/// What the API has said and was not heard yet. It says little; a bound is all that matters.
const HEARD_LATER: usize = 4;

/// Where new rings are put up: none until there is a first one.
pub type Rings = watch::Receiver<Option<Arc<Checked<RingConfig>>>>;

/// Where a process has its ring from.
#[derive(Clone, Debug)]
pub enum RingOrigin {
    /// It came with all the rest.
    Given {
        /// The ring to begin with.
        ring: Box<Checked<RingConfig>>,
        /// The document that it came from, if that can change.
        watched: Option<PathBuf>,
    },
    /// It is a document of its own.
    Apart {
        /// The file that holds it, or will.
        file: PathBuf,
        /// The ConfigMap that holds it too, watched by the Kubernetes API.
        config_map: Option<ConfigMapKey>,
    },
}

/// What is known of the declared ring, for `/status` and people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The epoch of the newest ring that is declared and sound.
    pub declared: Option<u64>,
    /// Files that it names and that are not there, while it waits for them.
    pub waits_for: Vec<PathBuf>,
    /// Why something that is declared cannot be used.
    pub refused: Option<String>,
    /// Why the API does not tell a ring.
    pub api_fault: Option<String>,
    /// Why the file does not tell a ring, where it never has.
    pub file_fault: Option<String>,
}

impl Outlook {
    /// Adds it to what the engine says of its ring.
    pub fn show(&self, status: &mut RingStatus) {
        let Self {
            declared,
            waits_for,
            refused,
            api_fault,
            file_fault: _,
        } = self;
        status.declared = declared.filter(|epoch| *epoch > status.epoch && Some(*epoch) != status.announced);
        if status.declared.is_some() {
            status.waits_for.clone_from(waits_for);
        }
        status.refused.clone_from(refused);
        status.api_fault.clone_from(api_fault);
    }

    /// Why there is no ring to begin with.
    #[must_use]
    pub fn why_none(&self) -> String {
        let reasons = [&self.refused, &self.api_fault, &self.file_fault];
        let reasons: Vec<_> = reasons.into_iter().flatten().map(String::as_str).collect();
        if reasons.is_empty() {
            "asking for it".to_owned()
        } else {
            reasons.join("; ")
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct RingWatch {
    file: Option<RingFile>,
    config_map: Option<ConfigMapKey>,
    declared: Declared,
    /// When the watch began, until the first ring is handed on.
    beginning: Option<Instant>,
    /// Files that the newest ring waits for.
    waits_for: Vec<PathBuf>,
    /// That a ring waits, by its epoch. Forgotten with the wait.
    wait_lines: LogLimit<u64>,
    /// That the API cannot be asked.
    api_lines: LogLimit,
    rings: watch::Sender<Option<Arc<Checked<RingConfig>>>>,
    outlook: watch::Sender<Outlook>,
}

impl RingWatch {
    /// A watch over what `origin` says. `document`: what goes with the ring, to tell when that has changed.
    #[must_use]
    pub fn new(document: &Checked<Document>, origin: RingOrigin) -> (Self, Rings, watch::Receiver<Outlook>) {
        let (file, config_map, first) = match origin {
            RingOrigin::Given { ring, watched } => {
                let file = watched.map(|file| RingFile::of_document(file, document.clone().into_inner()));
                (file, None, Some(Arc::from(ring)))
            }
            RingOrigin::Apart { file, config_map } => (Some(RingFile::of_ring(file)), config_map, None),
        };
        let beginning = first.is_none().then(Instant::now);
        let declared = Declared::new(first.clone());
        let (rings, rings_out) = watch::channel(first);
        let (outlook, outlook_out) = watch::channel(declared.outlook());
        let watch = Self {
            file,
            config_map,
            declared,
            beginning,
            waits_for: Vec::new(),
            wait_lines: LogLimit::new(REPEAT),
            api_lines: LogLimit::new(REPEAT),
            rings,
            outlook,
        };
        (watch, rings_out, outlook_out)
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let (said_in, said) = mpsc::channel(HEARD_LATER);
        let config_map = self.config_map.clone();
        let asking = async {
            match config_map {
                Some(config_map) => config_map::watch(&config_map, said_in).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = asking => {}
            () = self.listen(said) => {}
        }
    }

    async fn listen(&mut self, mut api: mpsc::Receiver<Said>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    if let Some(file) = &mut self.file
                        && let Some(said) = file.observe().await
                    {
                        self.hear(Source::File, said);
                    }
                }
                Some(said) = api.recv() => self.hear(Source::Api, said),
            }
            self.hand_on().await;
            self.publish();
        }
    }

    fn hear(&mut self, source: Source, said: Said) {
        match self.declared.hear(source, said) {
            Verdict::Nothing => {}
            Verdict::Older(epoch) => info!(%source, epoch, "read an older copy of the ring; the newer ring stays"),
            Verdict::New(epoch) => info!(%source, epoch, "a new ring is declared"),
            Verdict::Refused(reason) => {
                error!(%source, reason, "the declared ring cannot be used; the previous ring stays");
            }
            Verdict::Silent(reason) => match source {
                Source::File => warn!(%source, reason, "no ring yet"),
                Source::Api => {
                    if self.api_lines.pass(&()).is_some() {
                        warn!(%source, reason, "failed to get the ring from the Kubernetes API; trying again, and still reading the ring file");
                    }
                }
            },
        }
    }

    /// Hands the newest ring to the engine when its time has come.
    async fn hand_on(&mut self) {
        let Some(newest) = self.declared.newest().cloned() else {
            return;
        };
        let known = self
            .rings
            .borrow()
            .as_ref()
            .is_some_and(|ring| ring.epoch >= newest.epoch);
        if known {
            return;
        }
        if let Some(begun) = self.beginning {
            let all_have_spoken = self.declared.has_spoken(Source::File)
                && (self.config_map.is_none() || self.declared.has_spoken(Source::Api));
            if !all_have_spoken && begun.elapsed() < PATIENCE {
                return;
            }
            self.beginning = None;
        } else {
            let missing = credentials::missing(newest.files()).await;
            if !missing.is_empty() {
                self.wait_for(newest.epoch, missing);
                return;
            }
        }
        self.wait_lines.forget();
        self.waits_for = Vec::new();
        self.rings.send_replace(Some(newest));
    }

    fn wait_for(&mut self, epoch: u64, missing: Vec<PathBuf>) {
        if self.wait_lines.pass(&epoch).is_some() {
            warn!(
                epoch,
                ?missing,
                "the new ring waits for credential files that are missing, empty or unreadable; the current ring stays in use"
            );
        }
        self.waits_for = missing;
    }

    fn publish(&self) {
        let outlook = Outlook {
            waits_for: self.waits_for.clone(),
            ..self.declared.outlook()
        };
        self.outlook.send_if_modified(|now| {
            let news = *now != outlook;
            *now = outlook;
            news
        });
    }
}

#[cfg(test)]
mod tests;
