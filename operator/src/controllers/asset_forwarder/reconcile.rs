//! One reconcile: all stages in order, and one status at the end.

use std::sync::Arc;
use std::time::Instant;

use crds::{AssetForwarder, AssetForwarderStatus};
use kube::Resource as _;
use kube::runtime::controller::Action;
use tracing::debug;

use super::build::Resources;
use super::decide::{Decided, decide};
use super::dereference::{self, DereferenceError, Dereferenced, dereference};
use super::joining::join;
use super::names::Identity;
use super::settled::Look;
use super::steps::{Known, POLL, RESYNC, ReconcileError, jittered, pause, put, with_new_members, write};
use super::validate::{Validated, measured, validate};
use super::watch::forget_if_gone;
use super::{apply, events, settled, status, upgrade};
use crate::context::Context;
use crate::error::describe;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::own_writes::{SOON, View};
use crate::reconcile::reason::Reason;

/// What the operator remembers of the forwarder that is reconciled. It is dropped with the reconcile, however that ends. If the
/// forwarder is gone by then, the operator forgets it here, because the event of its deletion came before.
struct Remains<'a> {
    forwarder: Arc<AssetForwarder>,
    context: Arc<Context>,
    known: &'a Known,
}

impl Drop for Remains<'_> {
    fn drop(&mut self) {
        let Known {
            stores,
            memory,
            histories,
            turns: _,
            lists: _,
        } = self.known;
        forget_if_gone(&self.context, memory, histories, &stores.forwarders, &self.forwarder);
    }
}

/// Brings a forwarder one step on, or finds that there is nothing to do.
///
/// # Errors
/// [`ReconcileError`]
pub async fn reconcile(
    forwarder: Arc<AssetForwarder>,
    context: Arc<Context>,
    known: &Known,
) -> Result<Action, ReconcileError> {
    let Known {
        stores,
        memory,
        histories,
        turns,
        lists,
    } = known;
    let _remains = Remains {
        forwarder: Arc::clone(&forwarder),
        context: Arc::clone(&context),
        known,
    };
    let view = context.own_writes.view(forwarder.as_ref(), Instant::now());
    match view {
        View::Behind => return Ok(Action::requeue(SOON)),
        View::Current => {
            let done = match Box::pin(settled::settle(&context, known, &forwarder)).await? {
                Look::Settled(action) => Some(action),
                Look::Joins(seen) => Box::pin(join(&context, known, *seen)).await?,
                Look::Differs => None,
            };
            if let Some(action) = done {
                return Ok(action);
            }
        }
        View::Stuck => debug!("the watch has not shown the last write; asking the API server"),
    }
    let mut found = match Box::pin(dereference(&context, stores, lists, &forwarder)).await {
        // It was made anew: the watch will tell of that one.
        Ok(Some(found)) if found.forwarder.metadata.uid != forwarder.metadata.uid => {
            return Ok(Action::requeue(SOON));
        }
        Ok(Some(found)) => found,
        Ok(None) => {
            context.references.forwarders.forget(forwarder.as_ref());
            histories.forget(&forwarder);
            memory.forget(&forwarder);
            context.own_writes.forget(forwarder.as_ref());
            return Ok(Action::await_change());
        }
        Err(error) => {
            if error.is_refused() {
                tell_refusal(&context, &forwarder, &error).await?;
            }
            return Err(error.into());
        }
    };
    if view == View::Stuck {
        context.own_writes.note(&found.forwarder, Instant::now());
    }
    context
        .references
        .forwarders
        .note(&found.forwarder, found.secrets.clone());
    memory.ring_seen(&found.forwarder, found.existing.ring.as_ref());
    memory.beacon_seen(&found.forwarder, found.existing.beacon.as_ref());
    let old = found.forwarder.status.clone().unwrap_or_default();
    let identity = Identity::of(&found.forwarder);
    // Until all is written: whoever asks next finds what has begun.
    let _turn = match dereference::begins_in(&found) {
        None => None,
        Some(group) => match turns.of(&group).await {
            Some(turn) => Some(turn),
            None => return Ok(Action::requeue(SOON)),
        },
    };
    found.rival = dereference::rival(&context, stores, &found).await?;
    let decided = decide(found, histories, Instant::now());
    let (decided, judged) = judge(decided, &context).await;
    let Decided { mut found, scale: _ } = decided;
    let validated = match judged {
        Ok(validated) => validated,
        Err(verdict) => {
            let status = status::counted(&old, &identity, found.existing.deployment.as_ref());
            write(&context, &found.forwarder, status, &verdict, &[]).await?;
            return Ok(Action::requeue(jittered(&found.forwarder, RESYNC)));
        }
    };
    let resources = upgrade::build(&validated, &found.existing)?;
    if let Some(registered) = with_new_members(&old, &validated, found.forwarder.metadata.generation) {
        put(&context, &found.forwarder, &old, &registered).await?;
        found.forwarder.status = Some(registered);
        // Who was deleted before that was written was let go without us.
        if !dereference::are_there(&context, stores, lists, &old, &found.forwarder, validated.ring.as_ref()).await? {
            return Ok(Action::requeue(POLL));
        }
    }
    Box::pin(carry_out(&context, known, &old, found, validated, resources)).await
}

/// Writes what was decided, and the status. `old` is the status before new members were taken into it.
pub(super) async fn carry_out(
    context: &Arc<Context>,
    known: &Known,
    old: &AssetForwarderStatus,
    found: Dereferenced,
    validated: Validated,
    resources: Resources,
) -> Result<Action, ReconcileError> {
    let Known { memory, histories, .. } = known;
    let identity = Identity::of(&found.forwarder);
    let mut outcome = apply::apply(context, &identity, resources, &found.existing).await;
    if let Some(ring) = &outcome.ring {
        memory.ring_seen(&found.forwarder, Some(ring));
    }
    if let Some(beacon) = &outcome.beacon {
        memory.beacon_seen(&found.forwarder, Some(beacon));
    }
    if let Some((from, to)) = validated.scale.step()
        && (outcome.failure.is_none() || outcome.deployment_written)
    {
        histories.taken(&found.forwarder, from, to, Instant::now());
    }
    let about = found.forwarder.object_ref(&());
    let writes = events::of_writes(&found, &validated, &outcome);
    context.events.publish_all(&about, writes).await;
    if let Some(error) = outcome.failure.take() {
        let last = found.forwarder.status.clone().unwrap_or_default();
        let status = status::counted(&last, &identity, outcome.deployment.as_ref());
        write(context, &found.forwarder, status, &error.verdict(), &[]).await?;
        return Err(error.into());
    }
    let concerns = events::of_concerns(&found, &validated);
    context.events.publish_all(&about, concerns).await;
    let (status, verdict) = status::status(old, &validated, outcome.deployment.as_ref(), &found.existing);
    let further = status::further(&validated, &found.existing);
    write(context, &found.forwarder, status, &verdict, &further).await?;
    Ok(Action::requeue(jittered(
        &found.forwarder,
        pause(&verdict, &validated, &found),
    )))
}

/// Judges what was decided upon, beside the runtime. Two rings that are compared may have a million virtual nodes, and others may be at it.
pub(super) async fn judge(decided: Decided, context: &Arc<Context>) -> (Decided, Result<Validated, Verdict>) {
    let context = Arc::clone(context);
    let judging = tokio::task::spawn_blocking(move || {
        let judged = validate(&decided, &context.settings).and_then(measured);
        (decided, judged)
    });
    match judging.await {
        Ok(judged) => judged,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and so does whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Says in the status what may not be read: nothing else would, and `Ready` would stay as it was.
async fn tell_refusal(
    context: &Context,
    forwarder: &AssetForwarder,
    error: &DereferenceError,
) -> Result<(), ReconcileError> {
    // The watch may be behind, and the status of before says who is a member: it must be the last one.
    let current = dereference::current(context, forwarder).await?;
    let Some(current) = current.filter(|current| current.metadata.uid == forwarder.metadata.uid) else {
        return Ok(());
    };
    let status = current.status.clone().unwrap_or_default();
    let verdict = Verdict::reconciling(Reason::ReadFailed, describe(error));
    write(context, &current, status, &verdict, &[]).await
}
