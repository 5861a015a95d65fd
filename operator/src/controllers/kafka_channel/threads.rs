//! The threads that talk to Kafka.
//!
//! librdkafka's calls block. A reconcile that is given up ends none of them: the thread goes on until its own bounds. So who chooses slow
//! brokers could have one thread after the other. A thread therefore holds its place itself, until it has ended.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{LOOKS, ReconcileError};
use crate::context::Context;
use crate::reconcile::drive::Slots;

/// For a free place. Who waits longer than a usual look tries again, with a pause that grows.
const WAIT: Duration = Duration::from_secs(20);

/// The places of the process: as many as reconciles run at once, so that only threads that outlive theirs make others wait. They are
/// shared out by namespace, and no namespace holds all.
pub(super) fn places(context: &Context) -> &'static Arc<Slots> {
    static PLACES: OnceLock<Arc<Slots>> = OnceLock::new();
    PLACES.get_or_init(|| Slots::new(context.settings.concurrency.max(LOOKS)))
}

/// Runs `work` on a thread of its own, once there is a place for it.
///
/// # Errors
/// No place becomes free, or `work` panics.
pub(super) async fn run<T: Send + 'static>(
    places: &Arc<Slots>,
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReconcileError> {
    let place = tokio::time::timeout(WAIT, places.take(namespace))
        .await
        .map_err(|_| ReconcileError::Busy)?;
    let worked = tokio::task::spawn_blocking(move || {
        let worked = work();
        drop(place);
        worked
    });
    Ok(worked.await?)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_holds_its_place_although_nobody_waits_for_it_any_more() {
        let places = Slots::new(1);
        let (go, told) = mpsc::channel::<()>();
        let (began, begins) = tokio::sync::oneshot::channel();
        let running = tokio::spawn({
            let places = Arc::clone(&places);
            async move {
                run(&places, "plant", move || {
                    began.send(()).unwrap();
                    told.recv().is_ok()
                })
                .await
            }
        });
        begins.await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        // The clock does not go on by itself while a thread runs.
        let (refused, ()) = tokio::join!(run(&places, "plant", || ()), tokio::time::advance(WAIT * 2));
        assert!(matches!(refused, Err(ReconcileError::Busy)), "{refused:?}");
        go.send(()).unwrap();
        assert!(run(&places, "plant", || true).await.unwrap());
    }
}
