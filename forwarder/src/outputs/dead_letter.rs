//! Where records go that can never be forwarded: a Kafka topic or a file.
//!
//! A dead letter is as good as the record itself. Its receipt comes when the write is confirmed.

mod line;
mod record;

use std::sync::mpsc as blocking;

use forwarder_core::delivery::DEAD_LETTER;
use forwarder_core::delivery::partition::Inputs;
use forwarder_core::document::{Checked, DeadLetter as Declared};
use tokio::sync::mpsc;

use super::batches::{Batches, Entry, WriteFailed, Writer};
use super::file::FileOutput;
use super::kafka::KafkaOutput;
use super::{Command, Receipts};
use crate::message::{DeadLetter, Origin};
use crate::metrics::Metrics;
use forwarder_kafka::KafkaSetupError;

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

/// Where the records came from: every dead letter says it.
#[derive(Clone, Debug)]
struct Source {
    inputs: Inputs,
    group: String,
}

enum Target {
    Topic(Box<KafkaOutput<Source>>),
    File(FileOutput<Source>),
}

/// The intake's end: dead letters on their way to the task.
///
/// They are sent by the batch, so that a flood of invalid records costs no allocation each.
#[derive(Debug)]
pub struct DeadLetterQueue {
    commands: mpsc::UnboundedSender<Command<DeadLetter>>,
    pushed: Vec<DeadLetter>,
}

impl DeadLetterQueue {
    /// To the task at the other end.
    #[must_use]
    pub const fn new(commands: mpsc::UnboundedSender<Command<DeadLetter>>) -> Self {
        Self {
            commands,
            pushed: Vec::new(),
        }
    }

    /// It goes with the next [`Self::flush`].
    pub fn push(&mut self, letter: DeadLetter) {
        self.pushed.push(letter);
    }

    /// Sends what was pushed.
    pub fn flush(&mut self) {
        if !self.pushed.is_empty() {
            let letters = std::mem::take(&mut self.pushed);
            // The task ends only when this sender is dropped. One that has panicked ends the process.
            self.commands.send(Command::Deliver(letters)).ok();
        }
    }
}

/// An intake that ends may have pushed letters since its last flush. The records may be gone from Kafka.
impl Drop for DeadLetterQueue {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What is declared, and what counts the letters that it takes.
struct Declaration {
    target: Target,
    metrics: Metrics,
}

/// See the module.
pub struct DeadLetters(Batches<Declaration>);

impl DeadLetters {
    /// Opens what is declared.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub fn open(
        declared: &Declared,
        config: &Checked,
        commands: mpsc::UnboundedReceiver<Command<DeadLetter>>,
        receipts: blocking::Sender<Receipts>,
        metrics: Metrics,
    ) -> Result<Self, DeadLetterError> {
        let source = Source {
            inputs: Inputs::new(config.source.topics()),
            group: config.source.group.clone(),
        };
        let target = match declared {
            Declared::Topic { topic, .. } => Target::Topic(Box::new(KafkaOutput::open(topic, config, source)?)),
            Declared::File { path } => {
                let opened = FileOutput::open(path, source);
                Target::File(opened.map_err(|source| DeadLetterError::File {
                    path: path.display().to_string(),
                    source,
                })?)
            }
        };
        let writer = Declaration { target, metrics };
        Ok(Self(Batches::new(DEAD_LETTER, writer, commands, receipts)))
    }

    /// Writes dead letters until nobody can send any more.
    pub async fn run(self) {
        #[cfg(test)]
        if let Target::Topic(target) = &self.0.writer().target {
            crate::tasks::tests::panic_if_asked(target.topic());
        }
        self.0.run().await;
    }
}

impl Writer for Declaration {
    type Entry = DeadLetter;
    const RECORDS: &'static str = "dead letters";

    async fn write(&mut self, batch: &mut Vec<DeadLetter>) -> Result<Vec<DeadLetter>, WriteFailed<DeadLetter>> {
        let result = match &mut self.target {
            Target::Topic(target) => target.write(batch).await,
            Target::File(target) => target.write(batch).await,
        };
        let (Ok(written) | Err(WriteFailed { written, .. })) = &result;
        for letter in written {
            self.metrics.dead_letter(letter.reason);
        }
        result
    }
}

impl Entry for DeadLetter {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}

#[cfg(test)]
mod tests {
    use forwarder_core::delivery::offsets::Tag;
    use forwarder_core::delivery::partition::{Input, PartitionId};
    use forwarder_core::record::Invalid;

    use super::*;

    fn letter(offset: i64) -> DeadLetter {
        let tag = Tag {
            partition: PartitionId::new(Input::FIRST, 0).unwrap(),
            epoch: 1,
            offset,
            sequence: 0,
        };
        DeadLetter::new(Origin::new(tag, None), Invalid::NoKey, b"")
    }

    #[test]
    fn letters_go_by_the_batch_and_the_last_ones_with_the_queue() {
        let (commands_in, mut commands) = mpsc::unbounded_channel();
        let mut queue = DeadLetterQueue::new(commands_in);
        let mut delivered = || -> Vec<i64> {
            match commands.try_recv() {
                Ok(Command::Deliver(letters)) => letters.iter().map(|letter| letter.origin.offset).collect(),
                _ => Vec::new(),
            }
        };
        queue.flush();
        queue.push(letter(1));
        queue.push(letter(2));
        assert!(delivered().is_empty());
        queue.flush();
        assert_eq!(delivered(), [1, 2]);
        queue.push(letter(3));
        drop(queue);
        assert_eq!(delivered(), [3]);
    }
}
