//! Waiting for a condition instead of for a time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks. Short against what the servers take for anything, long against the cost of a look.
const POLL: Duration = Duration::from_millis(20);

/// Looks again and again until `condition` is true; fails with `what` in its message when `within` has passed. A condition that fails is not yet
/// true; the last failure is part of the message.
pub async fn eventually<C, F>(within: Duration, what: &str, mut condition: C) -> Result<()>
where
    C: FnMut() -> F,
    F: Future<Output = Result<bool>>,
{
    value(within, what, || {
        let look = condition();
        async move { Ok(look.await?.then_some(())) }
    })
    .await
}

/// As [`eventually`], for a condition that yields a value once it holds.
pub async fn value<T, C, F>(within: Duration, what: &str, mut condition: C) -> Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("not within {within:?}: {what}"))),
                None => bail!("not within {within:?}: {what}"),
            }
        }
        sleep(POLL).await;
    }
}
