//! Where records go that can never be forwarded: a Kafka topic or a file.
//!
//! A letter is as good as the record itself: its receipt comes when the write is confirmed, and a write that fails is
//! repeated for ever, so the offset behind it waits.

mod file;
mod topic;

use std::sync::mpsc as blocking;
use std::time::Duration;

use forwarder_core::delivery::DEAD_LETTER;
use forwarder_core::delivery::partition::Inputs;
use forwarder_core::document::{Checked, DeadLetter};
use tokio::sync::mpsc;
use tracing::error;

use crate::metrics::Metrics;
use crate::parcel::{Fate, Letter, Receipt, Receipts};
use forwarder_kafka::KafkaSetupError;

/// Most letters written at once: a file is synced once per batch.
const BATCH: usize = 256;

/// Pause after a write failed.
const RETRY: Duration = Duration::from_secs(1);

/// The dead letter could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The producer could not be made.
    #[error("failed to create the dead letter's Kafka producer")]
    Producer(#[from] KafkaSetupError),
    /// The file cannot be opened for appending.
    #[error("failed to open the dead letter file {path}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
}

/// What letters carry besides the record.
#[derive(Clone, Debug)]
struct Place {
    inputs: Inputs,
    group: String,
}

enum Target {
    Topic(Box<topic::TopicTarget>),
    File(file::FileTarget),
}

/// See the module.
pub struct DeadLetters {
    target: Target,
    letters: mpsc::UnboundedReceiver<Letter>,
    receipts: blocking::Sender<Receipts>,
    metrics: Metrics,
}

impl DeadLetters {
    /// Opens what is declared.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub fn open(
        declared: &DeadLetter,
        config: &Checked,
        letters: mpsc::UnboundedReceiver<Letter>,
        receipts: blocking::Sender<Receipts>,
        metrics: Metrics,
    ) -> Result<Self, DeadLetterError> {
        let place = Place {
            inputs: Inputs::new(config.source.topics()),
            group: config.source.group.clone(),
        };
        let target = match declared {
            DeadLetter::Topic { topic, .. } => Target::Topic(Box::new(topic::TopicTarget::open(topic, config, place)?)),
            DeadLetter::File { path } => Target::File(file::FileTarget::open(path, place)?),
        };
        Ok(Self {
            target,
            letters,
            receipts,
            metrics,
        })
    }

    /// Writes letters until nobody can send any more.
    pub async fn run(mut self) {
        #[cfg(test)]
        if let Target::Topic(target) = &self.target {
            crate::tasks::tests::panic_if_asked(target.topic());
        }
        let mut batch = Vec::with_capacity(BATCH);
        while self.letters.recv_many(&mut batch, BATCH).await > 0 {
            let mut attempts = 0_u64;
            while !batch.is_empty() {
                let result = match &mut self.target {
                    Target::Topic(target) => target.write(&mut batch).await,
                    Target::File(target) => target.write(&mut batch).await,
                };
                match result {
                    Ok(written) => self.settle(written),
                    Err(failed) => {
                        self.settle(failed.written);
                        if attempts.is_multiple_of(60) {
                            error!(
                                error = failed.reason,
                                waiting = batch.len(),
                                "failed to write dead letters; trying again, the offsets behind them wait"
                            );
                        }
                        attempts += 1;
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn settle(&self, written: Vec<Letter>) {
        if written.is_empty() {
            return;
        }
        let receipts = written
            .iter()
            .map(|letter| {
                self.metrics.dead_letter(letter.reason);
                Receipt {
                    trace: None,
                    tag: letter.origin.tag(),
                    weight: letter.weight(),
                    fate: Fate::Confirmed,
                }
            })
            .collect();
        self.receipts
            .send(Receipts {
                closed: Vec::new(),
                outlet: DEAD_LETTER,
                receipts,
            })
            .ok();
    }
}

/// A write that failed, wholly or in part. What was not written is left in the batch.
struct WriteFailed {
    written: Vec<Letter>,
    reason: String,
}
