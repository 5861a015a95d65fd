//! Events: what a person should see in `kubectl describe`.
//!
//! kube's recorder counts events of one reason about one object together, and shows the first one's text for all of them. So each change
//! of a ring would be told in the words of the first change. Here two events are the same only where their words are the same.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tracing::warn;

use super::reason::Reason;
use crate::index::Latest;

/// Who reports.
const CONTROLLER: &str = "fanout-operator";

/// A repeat after so long is an event of its own.
const REPEATS_WITHIN: SignedDuration = SignedDuration::from_mins(6);

/// An API server that does not take an event must not hold up what the event tells of: kube's client would try for minutes.
const WITHIN: Duration = Duration::from_secs(5);

/// All events of one look take no longer.
const ALL_WITHIN: Duration = Duration::from_secs(10);

/// The API refuses notes of more than 1 kB.
const MOST_BYTES: usize = 1_000;

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    type_: &'static str,
    reason: Reason,
    note: String,
}

impl Notice {
    /// Something took place.
    #[must_use]
    pub const fn normal(reason: Reason, note: String) -> Self {
        Self {
            type_: "Normal",
            reason,
            note,
        }
    }

    /// Something is worth a look.
    #[must_use]
    pub const fn warning(reason: Reason, note: String) -> Self {
        Self {
            type_: "Warning",
            reason,
            note,
        }
    }
}

/// Publishes events. One for the process: repeats are counted in it.
pub struct Events {
    client: Client,
    instance: String,
    lately: Mutex<Lately>,
}

/// What was published lately: no more of an event than a repeat of it needs.
#[derive(Debug, Default)]
struct Lately {
    told: Latest<u64, Told>,
    /// Its keys are random, so nobody can make two texts collide.
    hashes: RandomState,
}

/// An event that is there.
#[derive(Clone, Debug)]
struct Told {
    name: Option<String>,
    began: Option<MicroTime>,
    last: Timestamp,
    count: i32,
}

/// How many events are remembered. Where more are told within the time, the repeat of an older one is an event of its own.
const MOST_TOLD: usize = 4_096;

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Words {
    /// The UID of the object that it is about.
    about: Option<String>,
    type_: &'static str,
    reason: Reason,
    note: String,
}

impl Events {
    /// For the process `instance`.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        Self {
            client,
            instance,
            lately: Mutex::default(),
        }
    }

    /// Something took place.
    pub async fn normal(&self, about: &ObjectReference, reason: Reason, note: String) {
        self.publish(about, "Normal", reason, note).await;
    }

    /// Something is worth a look.
    pub async fn warning(&self, about: &ObjectReference, reason: Reason, note: String) {
        self.publish(about, "Warning", reason, note).await;
    }

    /// Publishes them, one after the other. All together take no longer than 10 s: what is not told by then is in the status.
    pub async fn publish_all(&self, about: &ObjectReference, notices: Vec<Notice>) {
        let published = async {
            for Notice { type_, reason, note } in notices {
                self.publish(about, type_, reason, note).await;
            }
        };
        // The API server's failures are logged where they are met.
        drop(tokio::time::timeout(ALL_WITHIN, published).await);
    }

    async fn publish(&self, about: &ObjectReference, type_: &'static str, reason: Reason, note: String) {
        let words = Words {
            about: about.uid.clone(),
            type_,
            reason,
            note: bounded(note),
        };
        let event = self.lately().event(&words, about, &self.instance, Timestamp::now());
        // An event is a courtesy: what it tells is in the status too.
        match tokio::time::timeout(WITHIN, self.write(&event)).await {
            Ok(Ok(())) => self.lately().note(&words, &event),
            Ok(Err(error)) => warn!(%error, %reason, "failed to publish an event"),
            Err(_) => warn!(%reason, "failed to publish an event within {WITHIN:?}"),
        }
    }

    async fn write(&self, event: &Event) -> kube::Result<()> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        if event.series.is_some() {
            let params = PatchParams::default();
            match api.patch(&event.name_any(), &params, &Patch::Merge(event)).await {
                // Events do not last: it is told anew, with its count.
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
                written => return written.map(drop),
            }
        }
        api.create(&PostParams::default(), event).await.map(drop)
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lately {
    /// The event to write: a new one, or the one of the same words with one more in its count.
    fn event(&self, words: &Words, about: &ObjectReference, instance: &str, now: Timestamp) -> Event {
        let event = new(words, about, instance, now);
        let known = self.told.get(&self.hashes.hash_one(words));
        let Some(known) = known.filter(|known| now.duration_since(known.last) < REPEATS_WITHIN) else {
            return event;
        };
        Event {
            metadata: ObjectMeta {
                name: known.name.clone(),
                ..event.metadata
            },
            event_time: known.began.clone(),
            series: Some(EventSeries {
                count: known.count.saturating_add(1),
                last_observed_time: MicroTime(now),
            }),
            ..event
        }
    }

    fn note(&mut self, words: &Words, event: &Event) {
        let began = event.event_time.clone();
        let (last, count) = match &event.series {
            Some(series) => (Some(&series.last_observed_time), series.count),
            None => (began.as_ref(), 1),
        };
        let Some(last) = last.map(|last| last.0) else { return };
        let told = Told {
            name: event.metadata.name.clone(),
            began,
            last,
            count,
        };
        self.told.insert(self.hashes.hash_one(words), told);
        if self.told.len() > MOST_TOLD {
            self.told.forget_oldest();
        }
    }
}

fn new(words: &Words, about: &ObjectReference, instance: &str, now: Timestamp) -> Event {
    let name = about.name.as_deref().unwrap_or(CONTROLLER);
    Event {
        metadata: ObjectMeta {
            namespace: about.namespace.clone(),
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        type_: Some(words.type_.to_owned()),
        reason: Some(words.reason.to_string()),
        note: Some(words.note.clone()),
        action: Some("Reconcile".to_owned()),
        regarding: Some(about.clone()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

fn bounded(mut note: String) -> String {
    let most = note.len().min(MOST_BYTES);
    note.truncate((0..=most).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0));
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Name, note and count of an event that is told and written.
    fn tell(lately: &mut Lately, note: &str, second: i64) -> (String, String, i32) {
        let about = ObjectReference {
            name: Some("assets".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectReference::default()
        };
        let words = Words {
            about: about.uid.clone(),
            type_: "Normal",
            reason: Reason::RingChanged,
            note: note.to_owned(),
        };
        let event = lately.event(&words, &about, "operator-0", at(second));
        lately.note(&words, &event);
        let count = event.series.as_ref().map_or(1, |series| series.count);
        (event.name_any(), event.note.unwrap(), count)
    }

    #[test]
    fn each_change_has_its_own_words_and_only_repeats_are_counted() {
        let mut lately = Lately::default();
        let first = tell(&mut lately, "epoch 1", 1);
        let second = tell(&mut lately, "epoch 2", 2);
        assert_eq!((first.1.as_str(), first.2), ("epoch 1", 1));
        assert_eq!((second.1.as_str(), second.2), ("epoch 2", 1));
        assert_ne!(first.0, second.0, "an event of its own");
        assert_eq!(
            tell(&mut lately, "epoch 2", 100),
            (second.0.clone(), "epoch 2".to_owned(), 2)
        );
        let later = tell(&mut lately, "epoch 2", 1_000);
        assert_eq!(later.2, 1);
        assert_ne!(later.0, second.0);
    }

    #[test]
    fn of_many_events_the_latest_are_kept() {
        let mut lately = Lately::default();
        for number in 0..=MOST_TOLD {
            tell(&mut lately, &number.to_string(), 1);
        }
        assert_eq!(lately.told.len(), MOST_TOLD);
        assert_eq!(tell(&mut lately, "1", 2).2, 2);
        assert_eq!(tell(&mut lately, "0", 2).2, 1);
    }

    #[test]
    fn a_note_is_cut_between_two_characters() {
        assert_eq!(bounded("short".to_owned()), "short");
        assert!(bounded("é".repeat(900)).len() <= MOST_BYTES);
    }
}
