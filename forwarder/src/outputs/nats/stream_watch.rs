//! Acks that do not come lead to a check of the stream.
//!
//! A stream that is deleted is not always missed: as long as anybody subscribes to its subjects, the server has somebody to pass
//! the records to, and nobody says that they are not stored. Checks are made off the way of records, one at a time.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::Publisher;
use super::ended::Ended;
use forwarder_nats::server::ServerAddress;
use forwarder_nats::stream::{self, Change, StreamError, StreamFault, StreamState};
use forwarder_service::chain;
use forwarder_service::clock::micros;

/// From the beginning of one check to that of the next: questions are no help to a cluster in trouble.
const PAUSE: Duration = Duration::from_secs(3);

type Check = Pin<Box<dyn Future<Output = Result<StreamState, StreamError>> + Send>>;

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// A check.
    Check,
    /// Acks come again, so the fault is over.
    Over,
}

/// What is known of the stream over one connection.
pub(super) struct StreamWatch {
    /// Where to ask: the server that the records go to.
    server: ServerAddress,
    /// Acks have been overdue since the last check began.
    overdue: bool,
    /// When the last check began.
    checked_at: Option<u64>,
    /// Records that were confirmed when it did.
    confirmed: u64,
    /// Not one record was confirmed between the last two checks.
    unconfirmed: bool,
    /// What is wrong, as far as anybody has been told.
    fault: Option<StreamFault>,
    check: Option<Check>,
}

impl StreamWatch {
    pub(super) fn new(server: &ServerAddress, confirmed: u64) -> Self {
        Self {
            server: server.clone(),
            overdue: false,
            checked_at: None,
            confirmed,
            unconfirmed: false,
            fault: None,
            check: None,
        }
    }

    /// Acks are overdue.
    pub(super) const fn doubt(&mut self) {
        self.overdue = true;
    }

    /// What the check that is under way found; for ever, where there is none. May be cancelled.
    pub(super) async fn seen(&mut self) -> Result<StreamState, StreamError> {
        match &mut self.check {
            None => pending().await,
            Some(check) => {
                let seen = check.await;
                self.check = None;
                seen
            }
        }
    }

    /// `confirmed`: records that are confirmed by now.
    fn due(&mut self, now: u64, confirmed: u64) -> Due {
        let pauses = |at: u64| now.saturating_sub(at) < micros(PAUSE);
        if self.check.is_some() || self.checked_at.is_some_and(pauses) {
            return Due::Nothing;
        }
        let came = confirmed > self.confirmed;
        match self.fault {
            None if !self.overdue => return Due::Nothing,
            Some(fault) if !self.overdue && came && fault.is_over_with_acks() => {
                self.fault = None;
                return Due::Over;
            }
            // A fault that is known is checked until it is over, whatever comes or does not come meanwhile.
            _ => {}
        }
        // Where nothing is awaited, nothing comes.
        self.unconfirmed = self.overdue && self.checked_at.is_some() && !came;
        self.overdue = false;
        self.checked_at = Some(now);
        self.confirmed = confirmed;
        Due::Check
    }
}

impl Publisher {
    /// Begins a check where one is due.
    pub(super) fn watch_stream(&mut self, watch: &mut StreamWatch) {
        match watch.due(self.clock.micros(), self.counters.published.get()) {
            Due::Nothing => {}
            Due::Over => self.stream_is_well(),
            Due::Check => {
                debug!(cluster = self.cluster.name, "acks are overdue; checking the stream");
                let (cluster, publish, server) = (self.cluster.clone(), self.publish.clone(), watch.server.clone());
                watch.check = Some(Box::pin(async move {
                    stream::ensure_stream(&cluster, &publish, &server).await
                }));
            }
        }
    }

    /// Acts upon what a check found.
    pub(super) fn stream_seen(
        &mut self,
        watch: &mut StreamWatch,
        seen: Result<StreamState, StreamError>,
    ) -> Result<(), Ended> {
        let fault = match seen {
            Ok(StreamState { change, name, .. }) if change != Change::None => {
                let fault = match change {
                    Change::Created => StreamFault::Missing,
                    _ => StreamFault::Changed,
                };
                self.counters.stream_faults(fault).inc();
                warn!(
                    cluster = self.cluster.name,
                    stream = name,
                    fault = fault.label(),
                    "acks were missing, because the stream was not as declared; the publisher has restored it"
                );
                // What is out was not stored. Over a new connection it is sent again at once.
                return Err(Ended::StreamMended(name));
            }
            Ok(StreamState { name, .. }) if watch.unconfirmed => StreamError::Unconfirmed {
                cluster: self.cluster.name.clone(),
                stream: name,
                inbox: format!("{}.>", self.cluster.inbox_prefix()),
            },
            Ok(_) => {
                if watch.fault.take().is_some() {
                    self.stream_is_well();
                } else if self.may_log_fault(StreamFault::Unconfirmed) {
                    warn!(
                        cluster = self.cluster.name,
                        "acks are overdue, though the stream is as declared; sending the records again"
                    );
                }
                return Ok(());
            }
            Err(fault) => fault,
        };
        self.counters.stream_faults(fault.fault()).inc();
        let reason = chain(&fault);
        if self.may_log_fault(fault.fault()) {
            error!(
                cluster = self.cluster.name,
                reason, "acks are missing because of a fault of the stream"
            );
        }
        if fault.fault().stops_all() {
            self.stream_at_fault = true;
            // Each new connection begins with a check, and without it nothing is sent in vain.
            return Err(Ended::Stream(Box::new(fault)));
        }
        watch.fault = Some(fault.fault());
        self.link.set_fault(Some(reason));
        Ok(())
    }

    /// Takes the fault of the stream off the status.
    fn stream_is_well(&mut self) {
        info!(cluster = self.cluster.name, "the stream works again");
        self.fault_lines.forget();
        self.link.set_fault(None);
    }

    fn may_log_fault(&mut self, fault: StreamFault) -> bool {
        self.fault_lines.pass(fault.label()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MICROS: u64 = PAUSE.as_micros() as u64;

    fn watch() -> StreamWatch {
        StreamWatch::new(&ServerAddress::parse("127.0.0.1:1").unwrap(), 100)
    }

    #[test]
    fn nothing_is_checked_while_acks_come() {
        let mut watch = watch();
        assert_eq!(watch.due(0, 100), Due::Nothing);
        assert_eq!(watch.due(PAUSE_MICROS * 9, 5_000), Due::Nothing);
    }

    #[test]
    fn overdue_acks_lead_to_a_check_at_once_and_to_the_next_one_after_a_pause() {
        let mut watch = watch();
        watch.doubt();
        assert_eq!(watch.due(7, 100), Due::Check);
        watch.doubt();
        assert_eq!(watch.due(6 + PAUSE_MICROS, 100), Due::Nothing);
        assert_eq!(watch.due(7 + PAUSE_MICROS, 100), Due::Check);
        assert_eq!(
            watch.due(7 + 2 * PAUSE_MICROS, 100),
            Due::Nothing,
            "nothing is overdue any more"
        );
    }

    #[test]
    fn only_a_second_check_in_a_row_without_acks_says_that_none_come() {
        let mut watch = watch();
        for (confirmed, unconfirmed) in [(100, false), (100, true), (101, false), (101, true)] {
            watch.doubt();
            let now = watch.checked_at.map_or(0, |at| at + PAUSE_MICROS);
            assert_eq!(watch.due(now, confirmed), Due::Check);
            assert_eq!(watch.unconfirmed, unconfirmed, "{confirmed}");
        }
    }

    #[test]
    fn a_fault_is_checked_until_acks_come() {
        let mut watch = watch();
        watch.doubt();
        assert_eq!(watch.due(0, 100), Due::Check);
        watch.fault = Some(StreamFault::Silent);
        assert_eq!(watch.due(PAUSE_MICROS, 100), Due::Check, "also while nothing is sent");
        assert_eq!(watch.due(2 * PAUSE_MICROS, 101), Due::Over);
        assert_eq!(watch.due(3 * PAUSE_MICROS, 101), Due::Nothing);
    }

    #[test]
    fn subjects_that_are_not_covered_are_checked_though_acks_of_others_come() {
        let mut watch = watch();
        watch.doubt();
        assert_eq!(watch.due(0, 100), Due::Check);
        watch.fault = Some(StreamFault::NotCovered);
        assert_eq!(watch.due(PAUSE_MICROS, 200), Due::Check);
    }

    #[tokio::test]
    async fn no_second_check_begins_while_one_is_under_way() {
        let mut watch = watch();
        watch.doubt();
        assert_eq!(watch.due(0, 100), Due::Check);
        watch.check = Some(Box::pin(async { Err(StreamError::NotDeclared) }));
        watch.doubt();
        assert_eq!(watch.due(9 * PAUSE_MICROS, 100), Due::Nothing);
        assert!(watch.seen().await.is_err());
        assert_eq!(watch.due(9 * PAUSE_MICROS, 100), Due::Check);
    }
}
