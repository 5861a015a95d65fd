//! Events: what a person should see in `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tracing::warn;

/// Publishes events. One for the process: repeats are counted in it.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// For the process `instance`.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter {
            controller: "fanout-operator".to_owned(),
            instance: Some(instance),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Something took place.
    pub async fn normal(&self, about: &ObjectReference, reason: &'static str, note: String) {
        self.publish(about, EventType::Normal, reason, note).await;
    }

    /// Something is worth a look.
    pub async fn warning(&self, about: &ObjectReference, reason: &'static str, note: String) {
        self.publish(about, EventType::Warning, reason, note).await;
    }

    async fn publish(&self, about: &ObjectReference, type_: EventType, reason: &'static str, mut note: String) {
        // The API refuses notes of more than 1 kB.
        let most = note.len().min(1_000);
        note.truncate((0..=most).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An event is a courtesy: what it tells is in the status too.
        if let Err(error) = self.0.publish(&event, about).await {
            warn!(%error, reason, "failed to publish an event");
        }
    }
}
