//! A partition's records as a broker of the test's own has them on its disk: to be looked at, and to be damaged under it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::Kafka;

/// Where a batch's fields are, from its first byte on.
const LENGTH: usize = 8;
const CHECKSUM: usize = 17;
const CHECKED: usize = 21;
const LAST_OFFSET: usize = 23;
const RECORDS: usize = 61;

/// The first segment of a partition.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
}

/// A batch in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first record.
    pub first: i64,
    /// The offset of its last one.
    pub last: i64,
    at: usize,
    end: usize,
}

impl Batch {
    /// How many offsets it has.
    pub fn offsets(&self) -> u64 {
        (self.last - self.first + 1).unsigned_abs()
    }
}

impl Segment {
    /// Of a topic's partition, on a broker of the test's own.
    pub fn of(kafka: &Kafka, topic: &str, partition: i32) -> Result<Self> {
        let dir = kafka.dir().context("the broker is not this test's own")?;
        let path = dir.join(format!("broker/data/{topic}-{partition}/00000000000000000000.log"));
        Ok(Self { path })
    }

    /// Its batches, in order.
    pub fn batches(&self) -> Result<Vec<Batch>> {
        let bytes = self.bytes()?;
        let mut batches = Vec::new();
        let mut at = 0;
        while at + RECORDS <= bytes.len() {
            let first = i64::from_be_bytes(field(&bytes, at)?);
            let length = i32::from_be_bytes(field(&bytes, at + LENGTH)?);
            let last = i32::from_be_bytes(field(&bytes, at + LAST_OFFSET)?);
            let end = at + LENGTH + 4 + usize::try_from(length)?;
            ensure!(end <= bytes.len(), "{} ends in a batch", self.path.display());
            batches.push(Batch {
                first,
                last: first + i64::from(last),
                at,
                end,
            });
            at = end;
        }
        Ok(batches)
    }

    /// Changes a byte amid the records of a batch; done twice, the batch is as it was. The broker, which checks nothing when it is read
    /// from, gives the batch as it stands from then on.
    pub fn damage(&self, batch: Batch) -> Result<()> {
        let at = (batch.at + RECORDS).midpoint(batch.end);
        let byte = *self.bytes()?.get(at).context("the batch is not there")?;
        self.write(at, &[byte ^ 0x10])
    }

    /// Replaces the first occurrence of some bytes by as many others, and has the checksum of their batch fit.
    pub fn replace(&self, from: &[u8], to: &[u8]) -> Result<()> {
        ensure!(from.len() == to.len(), "what is replaced has another length");
        let at = memchr::memmem::find(&self.bytes()?, from).context("it is not there")?;
        self.write(at, to)?;
        let batches = self.batches()?;
        let batch = batches.iter().find(|batch| batch.end > at).context("no batch has it")?;
        let bytes = self.bytes()?;
        let checked = bytes
            .get(batch.at + CHECKED..batch.end)
            .context("the batch is not there")?;
        self.write(batch.at + CHECKSUM, &crc32c(checked).to_be_bytes())
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("failed to read {}", self.path.display()))
    }

    /// In place: the broker has the file open.
    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let file = File::options().write(true).open(&self.path);
        let written = file.and_then(|file| file.write_all_at(bytes, at as u64));
        written.with_context(|| format!("failed to write {}", self.path.display()))
    }
}

fn field<const LENGTH: usize>(bytes: &[u8], at: usize) -> Result<[u8; LENGTH]> {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.first_chunk().copied().context("the file ends in a batch's header")
}

/// Castagnoli's checksum, as Kafka's batches have it.
fn crc32c(bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(u32::MAX, |remainder, byte| {
        (0..8).fold(remainder ^ u32::from(*byte), |remainder, _| {
            (remainder >> 1) ^ (0x82f6_3b78 & (remainder & 1).wrapping_neg())
        })
    });
    !remainder
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
