//! `suspend` and `resume`: stops all pods of a forwarder, and lets it go on.

use super::waiting::{Look, until};
use crate::api::Place;
use crate::cli::Waiting;
use crate::fault::{Code, Fault, Gap};
use crate::output::{Format, warn};
use crate::view::pods::remaining;
use crate::view::suspension::SuspensionView;

pub(super) async fn run(
    place: &Place,
    format: Format,
    name: &str,
    suspend: bool,
    waiting: Waiting,
) -> Result<Code, Fault> {
    let written = place.suspend(name, suspend).await?;
    let Waiting { wait, timeout } = waiting;
    if !wait {
        let view = SuspensionView::of(&written, None);
        format.show(&view, || vec![view.line()])?;
        return Ok(Code::Fine);
    }
    let (view, gaps) = until(timeout, async || {
        let (view, gaps) = look(place, name).await?;
        if view.suspend != suspend {
            return Err(Fault::NotYet(format!(
                "somebody has set spec.suspend of the AssetForwarder {name} to {} meanwhile",
                view.suspend
            )));
        }
        Ok(if view.done {
            Look::Done((view, gaps))
        } else {
            Look::NotYet(view.line())
        })
    })
    .await?;
    format.show(&view, || vec![view.line()])?;
    warn(&gaps);
    Ok(Code::Fine)
}

async fn look(place: &Place, name: &str) -> Result<(SuspensionView, Vec<Gap>), Fault> {
    let forwarder = place.forwarder(name).await?;
    let (pods, gaps) = match place.pods(name).await {
        Ok(pods) => (Some(pods), Vec::new()),
        // A passing fault must not end the wait too early: the pods may be there.
        Err(fault) if fault.is_passing() => return Err(fault),
        Err(fault) => (None, vec![fault.gap()]),
    };
    let pods = pods.map(|pods| remaining(&pods, name));
    Ok((SuspensionView::of(&forwarder, pods), gaps))
}
