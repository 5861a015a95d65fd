//! Waits for what the operator does, and says how far it is.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::fault::Fault;
use crate::output::note;

/// Between two looks. What is waited for takes seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// What a look has found.
pub(super) enum Look<T> {
    /// It is done.
    Done(T),
    /// It is not, with words for people.
    NotYet(String),
}

/// Looks until it is done. Each new word goes to standard error.
///
/// # Errors
/// [`Fault::NotYet`]: the time is over. Others: a look failed, and another one would too.
pub(super) async fn until<T>(
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>, Fault>,
) -> Result<T, Fault> {
    let deadline = Instant::now() + within;
    let mut said = "nothing is known yet".to_owned();
    loop {
        let words = match timeout_at(deadline, look()).await {
            Ok(Ok(Look::Done(done))) => return Ok(done),
            Ok(Ok(Look::NotYet(words))) => words,
            Ok(Err(fault)) if fault.is_passing() => format!("{fault}; it is tried again"),
            Ok(Err(fault)) => return Err(fault),
            Err(_) => return Err(late(within, &said)),
        };
        if words != said {
            note(&words);
            said = words;
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(late(within, &said));
        }
        sleep(PAUSE).await;
    }
}

fn late(within: Duration, said: &str) -> Fault {
    Fault::NotYet(format!("not done within {} s: {said}", within.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_it_is_done() {
        let mut looks = 0;
        let done = until(Duration::from_secs(60), async || {
            looks += 1;
            match looks {
                1 => Ok(Look::NotYet("first".to_owned())),
                2 => Err(Fault::Api {
                    what: "look".to_owned(),
                    why: "away".to_owned(),
                }),
                _ => Ok(Look::Done(looks)),
            }
        });
        assert_eq!(done.await.unwrap(), 3, "what passes is tried again");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_time_and_says_how_far_it_was() {
        let began = Instant::now();
        let never = until::<()>(Duration::from_secs(5), async || Ok(Look::NotYet("2 pods".to_owned())));
        let fault = never.await.unwrap_err();
        assert_eq!(fault.to_string(), "not done within 5 s: 2 pods");
        assert_eq!(fault.code() as u8, 5);
        assert!(began.elapsed() <= Duration::from_secs(5));
        let hangs = until::<()>(Duration::from_secs(5), async || std::future::pending().await);
        assert!(matches!(hangs.await.unwrap_err(), Fault::NotYet(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_it_at_once() {
        let gone = until::<()>(Duration::from_secs(5), async || Err(Fault::NotFound("gone".to_owned())));
        assert!(matches!(gone.await.unwrap_err(), Fault::NotFound(_)));
    }
}
