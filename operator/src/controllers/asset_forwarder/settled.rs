//! The short way: a look at a forwarder of which nothing has to be written but its status, by what the watches tell, without a request.
//!
//! Thousands of forwarders are looked at each minute, and each write of ours wakes its owner once more. Whenever anything is to be written,
//! or to be let go, or cannot be told from memory, the long way decides anew from what the API server itself says. Where clusters join and
//! nothing else changes, the way of `joining` is enough. No ring is made here: all forwarders are looked at on one task.

use std::sync::Arc;

use crds::{AssetForwarder, AssetForwarderStatus};
use kube::Resource as _;
use kube::runtime::controller::Action;

use super::apply;
use super::candidates::{Access, Candidate};
use super::decide::Decided;
use super::dereference::{Dereferenced, from_stores, may_have_rival};
use super::joining::joins;
use super::names::Identity;
use super::steps::{Known, RESYNC, ReconcileError, jittered, pause, with_new_members, write};
use super::validate::{Validated, validate};
use super::{events, status, upgrade};
use crate::context::Context;

/// What a look by the watches comes to.
pub(super) enum Look {
    /// Nothing is to be written, but perhaps the status, which was.
    Settled(Action),
    /// Clusters join, as it seems, and nothing else changes.
    Joins(Box<Seen>),
    /// Something else, or it cannot be told: the long way has to be gone.
    Differs,
}

/// What was seen where clusters join.
pub(super) struct Seen {
    /// By the word of the watches.
    pub(super) found: Dereferenced,
    /// Whether the projected credentials stay as they are.
    pub(super) keeps_credentials: bool,
}

/// Looks, and writes the status if that has changed.
pub(super) async fn settle(
    context: &Context,
    known: &Known,
    forwarder: &Arc<AssetForwarder>,
) -> Result<Look, ReconcileError> {
    let Known {
        stores,
        memory,
        histories: _,
        turns: _,
        lists: _,
    } = known;
    // What is measured for the number of pods is measured once, on the long way.
    if forwarder.metadata.deletion_timestamp.is_some() || forwarder.spec.autoscaling.is_some() {
        return Ok(Look::Differs);
    }
    let Some(found) = from_stores(context, stores, memory, forwarder).await? else {
        return Ok(Look::Differs);
    };
    // Who that is, and whether it reads the same, the API server is to be asked.
    if may_have_rival(stores, &found) {
        return Ok(Look::Differs);
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
            return Ok(Look::Settled(Action::requeue(jittered(&found.forwarder, RESYNC))));
        }
    };
    if joins(&found, &validated) {
        let resources = upgrade::build(&validated, &found.existing)?;
        let keeps_credentials = context.applier.is_as_declared(&resources.credentials);
        let seen = Seen {
            found,
            keeps_credentials,
        };
        return Ok(Look::Joins(Box::new(seen)));
    }
    if !is_settled(&old, &found, &validated) {
        return Ok(Look::Differs);
    }
    let resources = upgrade::build(&validated, &found.existing)?;
    if !apply::is_done(context, &identity, &resources, &found.existing) {
        return Ok(Look::Differs);
    }
    let concerns = events::of_concerns(&found, &validated);
    let about = found.forwarder.object_ref(&());
    context.events.publish_all(&about, concerns).await;
    let live = found.existing.deployment.as_ref();
    let (status, verdict) = status::status(&old, &validated, live, &found.existing);
    let further = status::further(&validated, &found.existing);
    write(context, &found.forwarder, status, &verdict, &further).await?;
    let pause = pause(&verdict, &validated, &found);
    Ok(Look::Settled(Action::requeue(jittered(&found.forwarder, pause))))
}

/// Whether the ring is what is recorded, with nobody leaving, and no credentials of before are needed.
fn is_settled(old: &AssetForwarderStatus, found: &Dereferenced, validated: &Validated) -> bool {
    let ring_stays = match &validated.ring {
        Some(ring) => *ring == validated.recorded && ring.leaving.is_empty(),
        None => validated.recorded.document.is_none() && validated.recorded.leaving.is_empty(),
    };
    ring_stays
        && validated.config.is_ok()
        && validated.members.held.is_empty()
        && are_readable(&found.candidates)
        && with_new_members(old, validated, None).is_none()
}

/// Whether there is no cluster whose credentials could not be read.
pub(super) fn are_readable(candidates: &[Candidate]) -> bool {
    let is_readable = |access: &Access| !matches!(access, Access::Granted(Err(_)));
    candidates.iter().all(|candidate| is_readable(&candidate.access))
}
