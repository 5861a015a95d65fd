//! The task of an output that writes one batch after the other.
//!
//! A record is confirmed when its write is. A write that fails is repeated for ever, so the offsets behind it wait.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::error;

use super::{Command, Fate, Receipt, Receipts};
use crate::message::Origin;

/// Most records written at once: a file is synced once per batch.
const BATCH: usize = 256;

/// Pause after a write failed.
const RETRY: Duration = Duration::from_secs(1);

/// So many failures in a row are one line of the log.
const FAILURES_PER_LINE: u64 = 60;

/// A record that is written in batches.
pub trait Entry: Send + 'static {
    /// Where it came from.
    fn origin(&self) -> &Origin;
    /// What counts against the caps, in bytes.
    fn weight(&self) -> usize;
}

/// Where batches are written.
pub trait Writer {
    /// What is written.
    type Entry: Entry;
    /// What people call these records.
    const RECORDS: &'static str;

    /// Writes the batch. What is written leaves it, and nothing else does.
    fn write(
        &mut self,
        batch: &mut Vec<Self::Entry>,
    ) -> impl Future<Output = Result<Vec<Self::Entry>, WriteFailed<Self::Entry>>> + Send;
}

/// A write that failed, wholly or in part. What was not written is left in the batch.
#[derive(Debug)]
pub struct WriteFailed<T> {
    /// What was written all the same.
    pub written: Vec<T>,
    /// Why the rest was not.
    pub reason: String,
}

/// See the module.
pub struct Batches<W: Writer> {
    output: u32,
    writer: W,
    commands: mpsc::UnboundedReceiver<Command<W::Entry>>,
    receipts: blocking::Sender<Receipts>,
    /// What is to be written behind the batch.
    waiting: VecDeque<W::Entry>,
    batch: Vec<W::Entry>,
}

impl<W: Writer> Batches<W> {
    /// An output of this number.
    #[must_use]
    pub fn new(
        output: u32,
        writer: W,
        commands: mpsc::UnboundedReceiver<Command<W::Entry>>,
        receipts: blocking::Sender<Receipts>,
    ) -> Self {
        Self {
            output,
            writer,
            commands,
            receipts,
            waiting: VecDeque::new(),
            batch: Vec::with_capacity(BATCH),
        }
    }

    /// Where the batches are written.
    #[must_use]
    pub const fn writer(&self) -> &W {
        &self.writer
    }

    /// Writes until nobody can give commands any more.
    pub async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            self.take(command);
            self.write_all().await;
        }
    }

    /// Writes until nothing waits. Commands are taken between two writes.
    async fn write_all(&mut self) {
        let mut failures = 0_u64;
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            if self.batch.is_empty() {
                failures = 0;
                self.batch.extend(self.waiting.drain(..BATCH.min(self.waiting.len())));
            }
            if self.batch.is_empty() {
                // A flood is over: its room is given back.
                self.waiting.shrink_to(BATCH);
                return;
            }
            match self.writer.write(&mut self.batch).await {
                Ok(written) => self.settle(&written, || Fate::Confirmed),
                Err(failed) => {
                    self.settle(&failed.written, || Fate::Confirmed);
                    if failures.is_multiple_of(FAILURES_PER_LINE) {
                        error!(
                            error = failed.reason,
                            waiting = self.batch.len(),
                            "failed to write {}; trying again while the offsets behind them wait",
                            W::RECORDS
                        );
                    }
                    failures += 1;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// No write is under way.
    fn take(&mut self, command: Command<W::Entry>) {
        match command {
            Command::Deliver(entries) => self.waiting.extend(entries),
            Command::Abandon { assignments, done } => {
                let is_given_up = |entry: &W::Entry| {
                    let Origin { partition, epoch, .. } = *entry.origin();
                    assignments.contains(&(partition, epoch))
                };
                let mut dropped: Vec<_> = self.batch.extract_if(.., |entry| is_given_up(entry)).collect();
                let waiting = std::mem::take(&mut self.waiting);
                let (gone, kept): (VecDeque<_>, _) = waiting.into_iter().partition(is_given_up);
                dropped.extend(gone);
                self.waiting = kept;
                self.settle(&dropped, || Fate::Dropped);
                // Who asked waits for that.
                drop(done);
            }
            // One target takes all lanes, and no lane is ever closed.
            Command::Recall(_) | Command::Open(_) => {}
        }
    }

    fn settle(&self, entries: &[W::Entry], fate: impl Fn() -> Fate) {
        if entries.is_empty() {
            return;
        }
        let receipts = entries
            .iter()
            .map(|entry| Receipt {
                tag: entry.origin().tag(),
                weight: entry.weight(),
                trace: None,
                fate: fate(),
            })
            .collect();
        // When the intake is gone nobody counts any more.
        self.receipts
            .send(Receipts {
                output: self.output,
                closed: Vec::new(),
                receipts,
            })
            .ok();
    }
}
