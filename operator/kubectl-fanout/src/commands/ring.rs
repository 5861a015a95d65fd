//! `ring`: a forwarder's ring.

use crate::api::{Asked, Place};
use crate::fault::{Code, Fault};
use crate::output::{Format, warn};
use crate::view::ring::RingView;

pub(super) async fn run(place: &Place, format: Format, name: &str) -> Result<Code, Fault> {
    let snapshot = place.snapshot(name, Asked::Status).await?;
    let view = RingView::of(&snapshot);
    format.show(&view, || view.lines())?;
    warn(&view.not_read);
    Ok(code(view.converged))
}

/// A script goes on only when it is known that all pods use the ring.
const fn code(converged: Option<bool>) -> Code {
    match converged {
        Some(true) => Code::Fine,
        Some(false) | None => Code::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ring_that_is_known_to_have_converged_is_fine() {
        assert_eq!(
            [Some(true), Some(false), None].map(code),
            [Code::Fine, Code::NotYet, Code::NotYet]
        );
    }
}
