//! Takes records: those of the group while there is room, and parked ones again.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::warn;

use super::flow::AtCaps;
use super::replay::Turn;
use super::rings::RingProgram;
use super::{Intake, IntakeError, WAIT_FOR_RECEIPTS, damage};

/// Longest wait in one poll while receipts may come in: they wait that long to be counted and committed.
const BUSY_POLL: Duration = Duration::from_millis(5);

/// Records that are taken without a wait come in microseconds, and two clocks are read for so many of them at once: their
/// times have a millisecond's precision and a bucket's.
const RECORDS_PER_CLOCK: usize = 32;

impl<P: RingProgram> Intake<P> {
    /// Goes on reading parked records again. Returns whether there is more to do at once.
    pub(super) fn replay(&mut self) -> bool {
        let turn = self
            .replay
            .go_on(&self.client, &mut self.records, &mut self.dispatcher, &self.identity);
        match turn {
            Turn::More => return true,
            Turn::Waits => {}
            Turn::NotBegun(job, error) => {
                if self.errors.pass(&()).is_some() {
                    warn!(%error, topic = self.client.inputs.topic_to_log(job.partition), partition = job.partition.number(), "failed to read parked records again; trying again");
                }
            }
            Turn::Failed(job, error) => {
                self.metrics.kafka_errors.inc();
                if damage::is_damage(&error) {
                    // Not a hole: what comes behind it is not taken before it is known what is missing.
                    self.examiner.suspect_parked(&error, &self.client, &mut self.dispatcher);
                } else if is_position_gone(&error) {
                    self.replay
                        .note_expired(job, &self.client, &mut self.dispatcher, &self.metrics);
                } else if self.errors.pass(&()).is_some() {
                    warn!(%error, "Kafka returned an error while parked records were read again; trying again");
                }
                self.dispatcher.stop_reading();
                self.replay.stop();
            }
        }
        false
    }

    /// Takes records while there is room for them. `busy`: there is something else to do.
    pub(super) fn take(&mut self, busy: bool) -> Result<(), IntakeError> {
        if self.dispatcher.has_room() {
            let plenty = self.flow.is_paused() && self.dispatcher.has_plenty();
            if self.flow.has_room(plenty) {
                self.flow.set_paused(false, &self.client, &self.dispatcher);
            }
            let patience = self.patience(busy);
            return self.poll(patience, self.client.config.engine.batch_size);
        }
        match self.flow.has_no_room() {
            AtCaps::AwaitReceipts => {
                self.records
                    .await_receipts(WAIT_FOR_RECEIPTS, &mut self.dispatcher, &self.identity);
                return Ok(());
            }
            AtCaps::Pause => self.flow.set_paused(true, &self.client, &self.dispatcher),
            AtCaps::Paused => {}
        }
        // Only events come now: the group must hear of us though no record is wanted. (A record that was fetched before
        // the pause took hold is handled like any other: the caps give way by that one.)
        self.poll(WAIT_FOR_RECEIPTS, 1)
    }

    /// How long the first record is waited for.
    fn patience(&mut self, busy: bool) -> Duration {
        let patience = Duration::from_millis(self.client.config.engine.poll_timeout_ms);
        let quiet = self.dispatcher.is_quiet()
            && !self.group.is_rebalancing()
            && self.rings.announced().is_none()
            && self.examiner.is_idle()
            && self.dispatcher.job().is_none();
        match (busy, quiet) {
            (true, _) => Duration::ZERO,
            (false, true) => patience,
            (false, false) => patience.min(BUSY_POLL),
        }
    }

    /// Polls until `limit` records are taken, nothing more is there or the caps are reached; waits for the first one.
    pub(super) fn poll(&mut self, mut patience: Duration, limit: usize) -> Result<(), IntakeError> {
        self.metrics.consume_calls.inc();
        // Shared, so that a record that borrows it can be worked on with all the rest.
        let consumer = Arc::clone(&self.client.consumer);
        for number in 0..limit {
            match consumer.poll(patience) {
                None => break,
                // Of another topic than is known here. That is noted first.
                Some(Ok(_)) if consumer.context().has_changed() => break,
                Some(Ok(record)) => {
                    if number % RECORDS_PER_CLOCK == 0 {
                        self.records.read_clocks();
                    }
                    self.records.accept(&record, &mut self.dispatcher, &self.identity);
                }
                Some(Err(error)) => self.kafka_failed(error)?,
            }
            if !self.dispatcher.has_room() {
                break;
            }
            patience = Duration::ZERO;
        }
        self.hand_out();
        self.metrics
            .queue_size_histogram
            .observe(self.dispatcher.unsent() as f64);
        Ok(())
    }

    fn kafka_failed(&mut self, error: KafkaError) -> Result<(), IntakeError> {
        self.metrics.kafka_errors.inc();
        match error {
            KafkaError::MessageConsumptionFatal(code) => return Err(IntakeError::Fatal(code.to_string())),
            // The position of some partition is gone; librdkafka does not say of which.
            error if is_position_gone(&error) => self.flow.repair_soon(),
            error if damage::is_damage(&error) => {
                if self.examiner.suspect_all(&error, &mut self.dispatcher) {
                    self.flow.refresh(&self.client, &self.dispatcher);
                }
            }
            error => {
                if self.errors.pass(&()).is_some() {
                    warn!(error = %error, "Kafka returned an error; trying again");
                    self.client.note_error(&error);
                }
            }
        }
        Ok(())
    }
}

/// Whether the broker does not have the next record of a partition. Which one that is, librdkafka does not say.
fn is_position_gone(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
