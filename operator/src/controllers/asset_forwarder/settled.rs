//! The short way: a look at a forwarder of which nothing has to be written but its status, by what the watches tell, without a request.
//!
//! Thousands of forwarders are looked at each minute, and each write of ours wakes its owner once more. Whenever anything is to be written,
//! or to be let go, or cannot be told from memory, the long way decides anew from what the API server itself says. No ring is made here: all
//! forwarders are looked at on one task.

use std::sync::Arc;

use crds::{AssetForwarder, AssetForwarderStatus};
use kube::Resource as _;
use kube::runtime::controller::Action;

use super::apply;
use super::candidates::Access;
use super::decide::Decided;
use super::dereference::{Dereferenced, from_stores, may_have_rival};
use super::names::Identity;
use super::steps::{Known, RESYNC, ReconcileError, jittered, pause, with_new_members, write};
use super::validate::{Validated, validate};
use super::{events, status, upgrade};
use crate::context::Context;

/// Looks, and writes the status if that has changed; none: the long way has to be gone.
pub(super) async fn settle(
    context: &Context,
    known: &Known,
    forwarder: &Arc<AssetForwarder>,
) -> Result<Option<Action>, ReconcileError> {
    let Known {
        stores,
        memory,
        histories: _,
        turns: _,
        lists: _,
    } = known;
    // What is measured for the number of pods is measured once, on the long way.
    if forwarder.metadata.deletion_timestamp.is_some() || forwarder.spec.autoscaling.is_some() {
        return Ok(None);
    }
    let Some(found) = from_stores(context, stores, memory, forwarder).await? else {
        return Ok(None);
    };
    // Who that is, and whether it reads the same, the API server is to be asked.
    if may_have_rival(stores, &found) {
        return Ok(None);
    }
    let identity = Identity::of(&found.forwarder);
    let old = found.forwarder.status.clone().unwrap_or_default();
    let decided = Decided::as_declared(found);
    let judged = validate(&decided, &context.settings);
    let Decided { found, scale: _ } = decided;
    let validated = match judged {
        Ok(validated) => validated,
        Err(verdict) => {
            let status = status::counted(&old, &identity, found.existing.deployment.as_ref());
            write(context, &found.forwarder, status, &verdict, &[]).await?;
            return Ok(Some(Action::requeue(jittered(&found.forwarder, RESYNC))));
        }
    };
    if !is_settled(&old, &found, &validated) {
        return Ok(None);
    }
    let resources = upgrade::build(&validated, &found.existing)?;
    if !apply::is_done(context, &identity, &resources, &found.existing) {
        return Ok(None);
    }
    let concerns = events::of_concerns(&found, &validated);
    let about = found.forwarder.object_ref(&());
    context.events.publish_all(&about, concerns).await;
    let live = found.existing.deployment.as_ref();
    let (status, verdict) = status::status(&old, &validated, live, &found.existing);
    let further = status::further(&validated, &found.existing);
    write(context, &found.forwarder, status, &verdict, &further).await?;
    let pause = pause(&verdict, &validated, &found);
    Ok(Some(Action::requeue(jittered(&found.forwarder, pause))))
}

/// Whether the ring is what is recorded, with nobody leaving, and no credentials of before are needed.
fn is_settled(old: &AssetForwarderStatus, found: &Dereferenced, validated: &Validated) -> bool {
    let ring_stays = match &validated.ring {
        Some(ring) => *ring == validated.recorded && ring.leaving.is_empty(),
        None => validated.recorded.document.is_none() && validated.recorded.leaving.is_empty(),
    };
    let is_readable = |access: &Access| !matches!(access, Access::Granted(Err(_)));
    ring_stays
        && validated.config.is_ok()
        && validated.members.held.is_empty()
        && found.candidates.iter().all(|candidate| is_readable(&candidate.access))
        && with_new_members(old, validated, None).is_none()
}
