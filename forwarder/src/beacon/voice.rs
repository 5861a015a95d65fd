//! What is answered, and whom: signed bodies, and the subjects on which an answer is given.

use std::collections::{HashSet, hash_map::RandomState};
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use forwarder_beacon::{Announcement, Body, KeyError, OpenError, Ready, Signer, Subjects, Verifier};
use forwarder_core::subject::{is_clean, is_within};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::outputs::nats::Answers;

/// A seed has 58 bytes; a wrong path must not be read to its end.
const MAX_SEED: u64 = 1 << 10;

/// Longest subject that is answered.
const MAX_REPLY: usize = 512;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKey {
    #[error("failed to read the beacon's key file {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the beacon's key file {path} cannot be used")]
    Key { path: String, source: KeyError },
}

/// The key that signs what is announced, and opens what other pods of the same ring say.
#[derive(Debug)]
pub(super) struct Key {
    signer: Signer,
    verifier: Verifier,
    opened: Opened,
}

impl Key {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`NoKey`].
    pub(super) async fn read(path: &Path) -> Result<Self, NoKey> {
        let shown = path.display().to_string();
        let mut seed = String::new();
        let read = async {
            let file = File::open(path).await?;
            file.take(MAX_SEED).read_to_string(&mut seed).await
        };
        if let Err(source) = read.await {
            return Err(NoKey::Read { path: shown, source });
        }
        Self::from_seed(&seed).map_err(|source| NoKey::Key { path: shown, source })
    }

    pub(super) fn from_seed(seed: &str) -> Result<Self, KeyError> {
        let signer = Signer::from_seed(seed)?;
        Ok(Self {
            verifier: Verifier::of(&signer.public_key())?,
            signer,
            opened: Opened::default(),
        })
    }

    pub(super) fn public_key(&self) -> String {
        self.signer.public_key()
    }

    /// The body as it is sent; none: it cannot be written, which never happens.
    pub(super) fn sign(&self, body: &Body) -> Option<Vec<u8>> {
        self.signer.sign(body).ok()
    }

    /// As [`Self::sign`], for what comes back to us: it is known then, and not opened.
    pub(super) fn sign_known(&self, body: &Body) -> Option<Vec<u8>> {
        let signed = self.sign(body)?;
        self.opened.note(&signed);
        Some(signed)
    }

    /// The body, unless somebody else has signed it.
    pub(super) fn open(&self, signed: &[u8]) -> Result<Body, OpenError> {
        let body = self.verifier.open(signed)?;
        self.opened.note(signed);
        Ok(body)
    }

    /// Whether these bytes were opened lately: what a pod says comes by each cluster.
    pub(super) fn has_opened(&self, signed: &[u8]) -> bool {
        self.opened.has(signed)
    }
}

/// So many bodies of one generation are remembered. There are two.
const GENERATION: usize = 4_096;

/// The bodies that were opened last, by a hash with a key that nobody outside knows.
#[derive(Debug, Default)]
struct Opened {
    state: RandomState,
    // Held for one look-up or one insertion, by each cluster's task.
    generations: Mutex<[HashSet<u64>; 2]>,
}

impl Opened {
    fn has(&self, signed: &[u8]) -> bool {
        let hash = self.state.hash_one(signed);
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().any(|generation| generation.contains(&hash))
    }

    fn note(&self, signed: &[u8]) {
        let hash = self.state.hash_one(signed);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= GENERATION {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(hash);
    }
}

/// All that is needed to answer subscribers at one cluster.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    pub(super) key: Arc<Key>,
    pub(super) pod: String,
    /// Without a nonce.
    pub(super) announcement: Arc<Announcement>,
    /// The publisher's connection to the cluster, while there is a publisher.
    pub(super) answers: Option<Answers>,
}

impl Voice {
    /// The signed announcement, in answer to a request with this nonce.
    pub(super) fn announce(&self, nonce: String) -> Option<Vec<u8>> {
        let announcement = Announcement {
            nonce,
            ..Announcement::clone(&self.announcement)
        };
        self.key.sign(&Body::Announcement(announcement))
    }

    /// The signed proof for a request with this nonce.
    pub(super) fn ready(&self, cluster: &str, nonce: String) -> Option<Vec<u8>> {
        let ready = Ready {
            ring: self.announcement.ring.clone(),
            nonce,
            pod: self.pod.clone(),
            cluster: cluster.to_owned(),
        };
        self.key.sign(&Body::Ready(ready))
    }
}

/// Whether an answer is given on this subject: it is an inbox, so that nobody has us publish where records are.
///
/// An inbox is below `_INBOX`, below a first token that begins with `_INBOX_`, or below `own`, the cluster's declared prefix.
#[must_use]
pub fn is_answerable(reply: &[u8], own: &str, subjects: &Subjects) -> bool {
    let first = reply.split(|byte| *byte == b'.').next().unwrap_or_default();
    let is_inbox = first == b"_INBOX" || first.starts_with(b"_INBOX_") || is_within(own, reply);
    is_inbox
        && reply.len() > first.len()
        && reply.len() <= MAX_REPLY
        && first.first() != Some(&b'$')
        && is_clean(reply)
        && std::str::from_utf8(reply).is_ok()
        && !is_within(subjects.base(), reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inboxes_are_answered() {
        let subjects = Subjects::new("_INBOX_f.beacon");
        for (reply, answered) in [
            ("_INBOX.abc.1", true),
            ("_INBOX_alice.abc", true),
            ("plant.inbox.abc", true),
            ("_INBOX", false),
            ("plant.inboxes.abc", false),
            ("assets.a.temperature", false),
            ("$SYS.REQ.SERVER.PING", false),
            ("_INBOX.*", false),
            ("_INBOX.a b", false),
            ("_INBOX.a\r\nPUB", false),
            ("_INBOX..a", false),
            ("_INBOX_f.beacon.get", false),
            ("", false),
        ] {
            assert_eq!(
                is_answerable(reply.as_bytes(), "plant.inbox", &subjects),
                answered,
                "{reply}"
            );
        }
        let longest = format!("_INBOX.{}", "a".repeat(MAX_REPLY - 7));
        assert!(is_answerable(longest.as_bytes(), "_INBOX", &subjects));
        assert!(!is_answerable(format!("{longest}a").as_bytes(), "_INBOX", &subjects));
    }

    #[test]
    fn what_was_opened_lately_is_known_and_there_is_a_bound() {
        let opened = Opened::default();
        for number in 0..3 * GENERATION {
            opened.note(&number.to_le_bytes());
        }
        assert!(opened.has(&(3 * GENERATION - 1).to_le_bytes()));
        assert!(!opened.has(&0_usize.to_le_bytes()));
        let kept: usize = opened.generations.lock().unwrap().iter().map(HashSet::len).sum();
        assert!(kept <= 2 * GENERATION, "{kept}");
    }
}
