//! What both ways of a reconcile have in common: what was decided is judged, then carried out.

use std::sync::Arc;
use std::time::Instant;

use crds::AssetForwarderStatus;
use kube::Resource as _;
use kube::runtime::controller::Action;

use super::build::Resources;
use super::decide::Decided;
use super::dereference::Dereferenced;
use super::names::Identity;
use super::steps::{Known, ReconcileError, jittered, pause, write};
use super::validate::{Validated, measured, validate};
use super::{apply, events, status};
use crate::context::Context;
use crate::reconcile::conditions::Verdict;

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
