//! `watch`: a forwarder as it works.

use std::pin::pin;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::api::{Asked, Place};
use crate::fault::{Code, Fault};
use crate::output::{Format, note, warn};
use crate::screen::Screen;
use crate::text::clean;
use crate::view::live::LiveView;
use crate::view::snapshot::Snapshot;

/// How it is watched.
pub(super) struct Readings {
    /// The time between two readings.
    pub(super) interval: Duration,
    /// How many there are; none: until somebody ends it.
    pub(super) count: Option<u64>,
}

pub(super) async fn run(place: &Place, format: Format, name: &str, readings: Readings) -> Result<Code, Fault> {
    let Readings { interval, count } = readings;
    let mut stop = pin!(stop()?);
    let mut view: Option<View> = None;
    let mut before: Option<(Snapshot, Instant)> = None;
    let mut done = 0;
    loop {
        let began = Instant::now();
        let read = tokio::select! {
            result = &mut stop => return result,
            read = place.snapshot(name, Asked::Counters) => read,
        };
        match (read, &view) {
            (Ok(snapshot), _) => {
                // Nothing is drawn before it is known that there is something to see.
                let view = match &mut view {
                    Some(view) => view,
                    none => none.insert(View::open(format)?),
                };
                let earlier = before
                    .as_ref()
                    .map(|(snapshot, at)| (snapshot, began.duration_since(*at)));
                let live = LiveView::of(now(), &snapshot, earlier);
                view.show(&live)?;
                before = Some((snapshot, began));
            }
            // It may come back: what was seen last stays, with the reason.
            (Err(fault), Some(view)) if fault.is_passing() => view.fail(&fault)?,
            (Err(fault), _) => return Err(fault),
        }
        done += 1;
        if count.is_some_and(|count| done >= count) {
            return Ok(Code::Fine);
        }
        tokio::select! {
            result = &mut stop => return result,
            () = sleep_until(began + interval) => {}
        }
    }
}

/// Where it is shown.
enum View {
    /// A page that is drawn anew.
    Page { screen: Screen, last: Vec<String> },
    /// One reading after the other.
    Log { format: Format, has_warned: bool },
}

impl View {
    fn open(format: Format) -> Result<Self, Fault> {
        let screen = match format {
            Format::Table => Screen::open()?,
            Format::Json | Format::Yaml => None,
        };
        Ok(match screen {
            Some(screen) => Self::Page {
                screen,
                last: Vec::new(),
            },
            None => Self::Log {
                format,
                has_warned: false,
            },
        })
    }

    fn show(&mut self, live: &LiveView) -> Result<(), Fault> {
        match self {
            Self::Page { screen, last } => {
                *last = live.lines();
                screen.draw(last)?;
            }
            Self::Log { format, has_warned } => {
                format.repeat(live, || live.line())?;
                // The same is missing in each reading.
                if !std::mem::replace(has_warned, true) {
                    warn(&live.ring.not_read);
                }
            }
        }
        Ok(())
    }

    fn fail(&self, fault: &Fault) -> Result<(), Fault> {
        let words = format!("{} {fault}; it is tried again", now());
        match self {
            Self::Page { screen, last } => {
                let mut lines = vec![clean(&words)];
                lines.extend(last.iter().cloned());
                screen.draw(&lines)?;
            }
            Self::Log { .. } => note(&words),
        }
        Ok(())
    }
}

fn now() -> String {
    Timestamp::now().strftime("%H:%M:%SZ").to_string()
}

/// Completes when somebody ends it. That is no fault: it has no other end.
fn stop() -> Result<impl Future<Output = Result<Code, Fault>>, Fault> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok(Code::Fine)
    })
}
