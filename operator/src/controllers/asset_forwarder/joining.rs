//! The way between the short one and the long one: clusters join, and nothing else changes.
//!
//! A cluster that joins concerns all forwarders of its ring at once. A join lets nothing go, so it needs no live request for the pods. What
//! the watches tell of the forwarder and of its ring is not read again, but written over:
//!
//! - The clusters are listed by the API server itself, as always before a ring changes.
//! - The status takes the new members in over the version of the forwarder that was seen. So nothing of it has changed since.
//! - The ring, and credentials that change, are written over their versions, as always.
//!
//! If any of it is another one by now, the long way decides anew.

use std::sync::Arc;

use crds::asset_forwarder::RingUpdate;
use kube::runtime::controller::Action;
use tracing::debug;

use super::beacon::Beacon;
use super::candidates::are_readable;
use super::carry_out::{carry_out, judge};
use super::decide::Decided;
use super::dereference::{self, Dereferenced};
use super::names::Identity;
use super::recorded::Recorded;
use super::steps::{Known, POLL, ReconcileError, put_over, with_new_members};
use super::validate::Validated;
use super::{apply, upgrade};
use crate::context::Context;

/// What was seen where clusters join.
pub(super) struct Seen {
    /// By the word of the watches.
    pub(super) found: Dereferenced,
    /// Whether the projected credentials stay as they are.
    pub(super) keeps_credentials: bool,
}

/// Takes the new members in; none: the long way has to be gone.
pub(super) async fn join(context: &Arc<Context>, known: &Known, seen: Seen) -> Result<Option<Action>, ReconcileError> {
    let Known { stores, lists, .. } = known;
    let Seen {
        found,
        keeps_credentials,
    } = seen;
    let found = match dereference::with_live_clusters(context, stores, lists, found, !keeps_credentials).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        // The long way meets it as well, and tells of it.
        Err(error) if error.is_refused() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    context
        .references
        .forwarders
        .note(&found.forwarder, found.secrets.clone());
    let (decided, judged) = judge(Decided::as_declared(found), context).await;
    let Decided { mut found, scale: _ } = decided;
    let Ok(validated) = judged else {
        return Ok(None);
    };
    let identity = Identity::of(&found.forwarder);
    let resources = upgrade::build(&validated, &found.existing)?;
    let knows_credentials =
        found.existing.credentials.is_some() || context.applier.is_as_declared(&resources.credentials);
    if !joins(&found, &validated)
        || !keeps_notes(&validated)
        || !knows_credentials
        || !apply::is_done_but_for_members(context, &identity, &resources, &found.existing)
    {
        return Ok(None);
    }
    let old = found.forwarder.status.clone().unwrap_or_default();
    let Some(registered) = with_new_members(&old, &validated, found.forwarder.metadata.generation) else {
        return Ok(None);
    };
    if !put_over(context, &found.forwarder, &registered).await? {
        debug!("the forwarder is another version than the watch has shown");
        return Ok(None);
    }
    found.forwarder.status = Some(registered);
    // Who was deleted before that was written was let go without us.
    let ring = validated.ring.as_ref();
    if !dereference::are_there(context, stores, lists, &old, &found.forwarder, ring).await? {
        return Ok(Some(Action::requeue(POLL)));
    }
    carry_out(context, known, &old, found, validated, resources)
        .await
        .map(Some)
}

/// Whether clusters join the ring that is recorded, all members stay, and nothing is let go or begun besides. Pure.
pub(super) fn joins(found: &Dereferenced, validated: &Validated) -> bool {
    let Validated {
        spec,
        members,
        recorded,
        ring: Some(ring),
        beacon,
        ignored,
        config: Ok(_),
        rival: None,
        ..
    } = validated
    else {
        return false;
    };
    let (Some(before), Some(after)) = (&recorded.document, &ring.document) else {
        return false;
    };
    let status = found.forwarder.status.clone().unwrap_or_default();
    let stays = |(name, reference): (&String, &String)| ring.members.get(name) == Some(reference);
    let is_wider = !recorded.members.is_empty()
        && recorded.members.iter().all(stays)
        && with_new_members(&status, validated, None).is_some();
    let nobody_leaves = recorded.leaving.is_empty() && ring.leaving.is_empty() && !recorded.idle && !ring.idle;
    // A pod that no watch shows yet reads the ring that there is. So it reads the new one.
    let all_read_it = after.document_version() <= before.document_version()
        && ring.readers == recorded.readers
        && members.withheld.is_empty();
    // Subscribers pin what the status says of it, and pods may still sign with the key of before.
    let keeps_beacon = after.beacon == before.beacon && status.beacon == beacon.as_ref().map(Beacon::status);
    is_wider
        && nobody_leaves
        && all_read_it
        && keeps_beacon
        // With it, pods are replaced, and what they had is let go.
        && spec.ring.update == RingUpdate::Live
        && members.held.is_empty()
        && ignored.is_empty()
        && are_readable(&found.candidates)
        // There is nothing to begin, so nobody has to be asked who has begun it.
        && dereference::begins_in(found).is_none()
}

/// Whether all that was noted with the ring is noted again. Nobody remembers who has written which field of it, and an apply takes only away
/// what an apply has written.
fn keeps_notes(validated: &Validated) -> bool {
    let before = validated.recorded.annotations();
    let after = validated.ring.as_ref().map(Recorded::annotations).unwrap_or_default();
    before.keys().all(|note| after.contains_key(note))
}
