//! What events tell of a reconcile. Pure.

use crds::AssetForwarderStatus;
use k8s_openapi::api::apps::v1::Deployment;

use super::apply::Outcome;
use super::dereference::Dereferenced;
use super::members::Excluded;
use super::validate::Validated;
use super::{rollout, status, upgrade};
use crate::reconcile::events::Notice;
use crate::reconcile::reason::Reason;

/// What was written.
pub(super) fn of_writes(found: &Dereferenced, validated: &Validated, outcome: &Outcome) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Some(ring) = &validated.ring
        && outcome.ring.is_some()
        && ring.epoch() != validated.recorded.epoch()
    {
        let before = &validated.recorded.members;
        let join = |names: Vec<&str>| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let joined = ring
            .members
            .values()
            .filter(|member| !before.values().any(|known| known == *member));
        let left = before
            .values()
            .filter(|member| !ring.members.values().any(|known| known == *member));
        // Nobody knows what moves where there was no ring before, or where its document is lost.
        let moved = ring.moved_percent.as_ref();
        let moved = moved.map_or_else(String::new, |moved| format!("; {moved} % of the hash space moves"));
        let note = format!(
            "epoch {}: {} clusters; joined: {}; left: {}{moved}",
            ring.epoch(),
            ring.members.len(),
            join(joined.map(String::as_str).collect()),
            join(left.map(String::as_str).collect()),
        );
        notices.push(Notice::normal(Reason::RingChanged, note));
    }
    if let (Some(now), true) = (&outcome.deployment, outcome.deployment_written) {
        let template = |deployment: &Deployment| deployment.spec.as_ref().map(|spec| spec.template.clone());
        let before = found.existing.deployment.as_ref();
        if before.and_then(template) != template(now) {
            let configuration = upgrade::configuration(now, &validated.identity).unwrap_or_default();
            let image = rollout::image(now).unwrap_or_default();
            let note = format!("configuration {configuration}, image {image}");
            notices.push(Notice::normal(Reason::RolloutStarted, note));
        }
    }
    notices
}

/// What a person should look at, and what the status of before did not say.
pub(super) fn of_concerns(found: &Dereferenced, validated: &Validated) -> Vec<Notice> {
    let mut notices = Vec::new();
    let old = found.forwarder.status.as_ref();
    let mut conditions = old.iter().flat_map(|status| &status.conditions);
    let is_told = conditions.any(|condition| condition.type_ == status::EPOCH_CLAIM_IGNORED);
    if let Some(claim) = validated.ignored.first().filter(|_| !is_told) {
        let note = format!(
            "pod {} claims ring epoch {}, which is too far above the last declared one; the operator ignores it",
            claim.pod, claim.epoch
        );
        notices.push(Notice::warning(Reason::EpochClaimIgnored, note));
    }
    notices.extend(of_key(old, validated));
    let known = old
        .and_then(|status| status.ring.as_ref())
        .map(|ring| ring.excluded.as_slice());
    let is_known = |excluded: &Excluded| {
        known.unwrap_or_default().iter().any(|known| {
            (&known.namespace, &known.name) == (&excluded.namespace, &excluded.name)
                && Reason::parse(&known.reason) == Some(excluded.reason)
        })
    };
    let excluded = status::of_concern(&validated.members.excluded).filter(|excluded| !is_known(excluded));
    notices.extend(excluded.map(|excluded| {
        let note = format!("{}/{}: {}", excluded.namespace, excluded.name, excluded.message);
        Notice::warning(Reason::ClusterExcluded, note)
    }));
    notices
}

/// Another key than the status of before shows: subscribers pin it, so each of them must be told.
fn of_key(old: Option<&AssetForwarderStatus>, validated: &Validated) -> Option<Notice> {
    let before = old?.beacon.as_ref()?;
    let beacon = validated.beacon.as_ref()?;
    (before.public_key != beacon.key.public()).then(|| {
        let note = format!(
            "the Secret {} was missing or has changed, so pods sign with another key: give subscribers the public key {} in place of {}",
            validated.identity.beacon(),
            beacon.key.public(),
            before.public_key
        );
        Notice::warning(Reason::BeaconKeyChanged, note)
    })
}
