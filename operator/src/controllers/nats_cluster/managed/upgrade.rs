//! Which pod template is declared: a new operator restarts no servers by itself.
//!
//! The template that was declared last stands on the StatefulSet with the trigger that it was made for (what a person declares, and the
//! passwords), and stays for as long as that is the same.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;

use super::hashes::hash;
use super::validate::{Passwords, Plan, shared_hash};
use crate::reconcile::apply::{MANAGER, owns};

/// On a StatefulSet: the cluster's generation at the last write.
const GENERATION: &str = "fanout.openfactory.io/generation";
/// On a StatefulSet: a hash of what servers depend upon in the spec.
const SPEC: &str = "fanout.openfactory.io/spec";
/// On a StatefulSet: a hash of the passwords.
const READ_AT_START: &str = "fanout.openfactory.io/read-at-start";
/// On a StatefulSet: the template as it was declared.
const TEMPLATE: &str = "fanout.openfactory.io/template";

/// Writes trigger and template down, and puts the one in that was written down before, if it is to stay.
pub(super) fn hold(plan: &Plan, mut fresh: StatefulSet, live: Option<&StatefulSet>) -> StatefulSet {
    // With the system's password in it, for the same reason as in a pod's hash.
    let Passwords { client, system, .. } = &plan.passwords;
    let read = hash(&format!("{client}\n{system}\n{}", shared_hash(plan)));
    let trigger = [
        // By generation, since another version of the operator may serialize a spec in another way; or by hash, since scaling makes a
        // generation too.
        (GENERATION, plan.generation.to_string()),
        (SPEC, plan.declared.clone()),
        (READ_AT_START, read),
    ];
    let is = |live: &StatefulSet, at: usize| live.annotations().get(trigger[at].0) == Some(&trigger[at].1);
    let kept = live
        .filter(|live| is(live, 2) && (is(live, 0) || is(live, 1)))
        // Of what admission refuses no server runs, and only another template may be let in.
        .filter(|live| !has_no_pod(live))
        .and_then(written_down);
    if let (Some(spec), Some(kept)) = (fresh.spec.as_mut(), kept) {
        spec.template = kept;
    }
    let template = fresh
        .spec
        .as_ref()
        .map(|spec| serde_json::json!(spec.template).to_string());
    let annotations = fresh.metadata.annotations.get_or_insert_default();
    annotations.extend(trigger.map(|(name, value)| (name.to_owned(), value)));
    annotations.extend(template.map(|template| (TEMPLATE.to_owned(), template)));
    fresh
}

/// Whether there is no pod though some are wanted, as the API server's controller has counted for this very spec.
fn has_no_pod(live: &StatefulSet) -> bool {
    let wanted = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let status = live.status.as_ref();
    wanted > 0
        && status.is_some_and(|status| status.replicas == 0 && status.observed_generation == live.metadata.generation)
}

/// The template that we recorded last. A record that something else has overwritten does not count.
fn written_down(live: &StatefulSet) -> Option<PodTemplateSpec> {
    let path = format!("f:{TEMPLATE}");
    let is_ours = owns(live, MANAGER, &["f:metadata", "f:annotations", &path]);
    let text = live.annotations().get(TEMPLATE).filter(|_| is_ours)?;
    serde_json::from_str(text).ok()
}
