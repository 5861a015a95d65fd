//! What was sent, what arrived, and the judgement. Pure: no clock, no I/O.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use hashbrown::HashSet;

/// How many faults are described one by one.
const EXAMPLES: usize = 10;

/// What was sent, by asset. Records of an asset are numbered 0, 1, 2… in the order in which they were given to Kafka.
#[derive(Debug)]
pub struct Ledger {
    prefix: String,
    next: Vec<AtomicU32>,
    acknowledged: AtomicU64,
    refused: Mutex<HashSet<(u32, u32)>>,
}

impl Ledger {
    /// For so many assets, whose keys are the prefix, a dash and a number.
    pub fn new(prefix: &str, assets: u32) -> Self {
        Self {
            prefix: prefix.to_owned(),
            next: (0..assets).map(|_| AtomicU32::new(0)).collect(),
            acknowledged: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }

    /// How many assets there are.
    pub fn assets(&self) -> u32 {
        u32::try_from(self.next.len()).unwrap_or(u32::MAX)
    }

    /// The key of an asset, such as `WTVB01-0042`.
    pub fn key(&self, asset: u32) -> String {
        format!("{}-{asset:04}", self.prefix)
    }

    /// The asset of a key, if it is one of these.
    pub fn asset(&self, key: &str) -> Option<u32> {
        let number = key.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()?;
        (number < self.assets()).then_some(number)
    }

    /// How many records of an asset were given to Kafka.
    pub fn given(&self, asset: u32) -> u32 {
        self.next
            .get(asset as usize)
            .map_or(0, |next| next.load(Ordering::Acquire))
    }

    /// How many records Kafka has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Takes the next number of an asset.
    pub fn take(&self, asset: u32) -> u32 {
        self.next
            .get(asset as usize)
            .map_or(0, |next| next.fetch_add(1, Ordering::AcqRel))
    }

    /// Gives the last number back: the record never left.
    pub fn give_back(&self, asset: u32) {
        if let Some(next) = self.next.get(asset as usize) {
            next.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Kafka has acknowledged a record.
    pub fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
    }

    /// Kafka has not acknowledged a record for good: it may or may not be there, so it counts neither as sent nor as lost.
    pub fn refuse(&self, asset: u32, n: u32) {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((asset, n));
    }
}

/// One record as it arrived at a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Its asset.
    pub asset: u32,
    /// Its number within the asset.
    pub n: u32,
    /// The cluster, by its place in the list of clusters.
    pub cluster: u8,
    /// When it arrived, in microseconds of a clock that all clusters' deliveries share.
    pub at_us: u64,
    /// How long it was on its way, in microseconds, if that is known.
    pub latency_us: Option<u64>,
    /// Whether the cluster may have this asset's records.
    pub at_home: bool,
}

#[derive(Debug, Default)]
struct Seen {
    // One bit for each number: 10,000 assets of 100 records each take 160 kB.
    bits: Vec<u64>,
    // The greatest number so far, and where and when it arrived.
    greatest: Option<(u32, u8, u64)>,
    // One bit for each cluster that had a record of this asset.
    clusters: u64,
}

impl Seen {
    fn holds(&self, n: u32) -> bool {
        self.bits
            .get(n as usize / 64)
            .is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    fn insert(&mut self, n: u32) {
        let word = n as usize / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if let Some(bits) = self.bits.get_mut(word) {
            *bits |= 1 << (n % 64);
        }
    }
}

/// What has arrived so far.
#[derive(Debug, Default)]
pub struct Tally {
    seen: Vec<Seen>,
    per_cluster: Vec<u64>,
    distinct: u64,
    repeated: u64,
    out_of_order: u64,
    foreign: u64,
    unreadable: u64,
    latency: Latency,
    // By cluster, since the last look.
    recent: Vec<Latency>,
    examples: Vec<String>,
    tolerance_us: u64,
}

impl Tally {
    /// An empty one. Two clusters' deliveries of one asset less than `tolerance_us` apart are taken to be in order: an observer with a connection
    /// to each cannot tell which of them was first. Zero where the times are the servers' own.
    pub fn new(tolerance_us: u64) -> Self {
        Self {
            tolerance_us,
            ..Self::default()
        }
    }

    /// Takes a delivery into account.
    pub fn observe(&mut self, delivery: Delivery) {
        let Delivery {
            asset,
            n,
            cluster,
            at_us,
            latency_us,
            at_home,
        } = delivery;
        if self.seen.len() <= asset as usize {
            self.seen.resize_with(asset as usize + 1, Seen::default);
        }
        if self.per_cluster.len() <= usize::from(cluster) {
            self.per_cluster.resize(usize::from(cluster) + 1, 0);
            self.recent.resize_with(usize::from(cluster) + 1, Latency::default);
        }
        let Some(seen) = self.seen.get_mut(asset as usize) else {
            return;
        };
        seen.clusters |= 1 << (cluster % 64);
        if !at_home {
            self.foreign += 1;
            example(&mut self.examples, || {
                format!("asset {asset}: record {n} arrived at cluster {cluster}, not its own")
            });
        }
        if seen.holds(n) {
            self.repeated += 1;
            return;
        }
        seen.insert(n);
        self.distinct += 1;
        if let Some(count) = self.per_cluster.get_mut(usize::from(cluster)) {
            *count += 1;
        }
        if let Some(latency_us) = latency_us {
            self.latency.add(latency_us);
            if let Some(recent) = self.recent.get_mut(usize::from(cluster)) {
                recent.add(latency_us);
            }
        }
        match seen.greatest {
            Some((greatest, there, then)) if greatest > n => {
                if there == cluster || at_us > then + self.tolerance_us {
                    self.out_of_order += 1;
                    example(&mut self.examples, || {
                        format!(
                            "asset {asset}: record {n} first arrived (cluster {cluster}) after record {greatest} (cluster {there})"
                        )
                    });
                }
            }
            _ => seen.greatest = Some((n, cluster, at_us)),
        }
    }

    /// Something arrived that is no record of the traffic.
    pub fn unreadable(&mut self, what: &str) {
        self.unreadable += 1;
        example(&mut self.examples, || format!("not a record of the traffic: {what}"));
    }

    /// How many records have arrived, each counted once.
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// How many deliveries were of a record that had arrived before.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How many records have arrived first at a cluster.
    pub fn of_cluster(&self, cluster: u8) -> u64 {
        self.per_cluster.get(usize::from(cluster)).copied().unwrap_or(0)
    }

    /// How many of an asset's records have arrived.
    pub fn of_asset(&self, asset: u32) -> u32 {
        self.seen
            .get(asset as usize)
            .map_or(0, |seen| seen.bits.iter().map(|word| word.count_ones()).sum())
    }

    /// The clusters that had records of an asset.
    pub fn clusters_of(&self, asset: u32) -> Vec<u8> {
        let bits = self.seen.get(asset as usize).map_or(0, |seen| seen.clusters);
        (0..64).filter(|cluster| bits & (1 << cluster) != 0).collect()
    }

    /// How many assets had records at a cluster.
    pub fn assets_of(&self, cluster: u8) -> usize {
        self.seen
            .iter()
            .filter(|seen| seen.clusters & (1 << (cluster % 64)) != 0)
            .count()
    }

    /// Latencies of a cluster's first deliveries since the last call of this.
    pub fn take_recent(&mut self, cluster: u8) -> Latency {
        self.recent
            .get_mut(usize::from(cluster))
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The judgement, against what was sent by now.
    pub fn verdict(&self, ledger: &Ledger) -> Verdict {
        self.verdict_of_first(ledger.assets(), ledger)
    }

    /// The same where nobody has looked at others than the first assets.
    pub fn verdict_of_first(&self, assets: u32, ledger: &Ledger) -> Verdict {
        let mut examples = self.examples.clone();
        let refused = ledger.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut lost, mut unknown, mut sent) = (0, 0, 0);
        let nothing = Seen::default();
        for asset in 0..assets.max(u32::try_from(self.seen.len()).unwrap_or(u32::MAX)) {
            let seen = self.seen.get(asset as usize).unwrap_or(&nothing);
            let given = ledger.given(asset);
            for n in 0..given {
                let refused = refused.contains(&(asset, n));
                sent += u64::from(!refused);
                if !refused && !seen.holds(n) {
                    lost += 1;
                    example(&mut examples, || {
                        format!("asset {asset}: record {n} of {given} never arrived")
                    });
                }
            }
            let capacity = u32::try_from(seen.bits.len() * 64).unwrap_or(u32::MAX);
            unknown += (given..capacity).filter(|n| seen.holds(*n)).count() as u64;
        }
        Verdict {
            sent,
            distinct: self.distinct,
            lost,
            repeated: self.repeated,
            out_of_order: self.out_of_order,
            foreign: self.foreign,
            unknown: unknown + self.unreadable,
            p50_ms: self.latency.quantile_ms(0.5),
            p99_ms: self.latency.quantile_ms(0.99),
            examples,
        }
    }
}

/// The judgement.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Records that Kafka acknowledged.
    pub sent: u64,
    /// Records that arrived, each counted once.
    pub distinct: u64,
    /// Records that Kafka acknowledged and that did not arrive.
    pub lost: u64,
    /// Deliveries of a record that had arrived before.
    pub repeated: u64,
    /// First deliveries after the first delivery of a later record of the same asset.
    pub out_of_order: u64,
    /// Deliveries to a cluster that does not own the asset.
    pub foreign: u64,
    /// Deliveries of what was never sent.
    pub unknown: u64,
    /// Median time from the producer to the observer, in milliseconds.
    pub p50_ms: f64,
    /// The same of the slowest hundredth.
    pub p99_ms: f64,
    /// The first faults, one by one.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Nothing lost, nothing out of order, nothing where it does not belong.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.foreign == 0 && self.unknown == 0
    }

    /// An error that says all, unless [`Verdict::is_clean`] and at least one record was sent.
    pub fn check(&self) -> Result<()> {
        if self.sent == 0 {
            bail!("nothing was sent, so nothing is proved");
        }
        if !self.is_clean() {
            bail!(
                "{self} (sent {}, arrived {}, at a wrong cluster {}, never sent {})\n{}",
                self.sent,
                self.distinct,
                self.foreign,
                self.unknown,
                self.examples.join("\n")
            );
        }
        Ok(())
    }

    /// As [`Verdict::check`], and nothing repeated.
    pub fn check_exactly_once(&self) -> Result<()> {
        self.check()?;
        if self.repeated > 0 {
            bail!("{self}: nothing should have been repeated");
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {}, out of order {}, repeated {}",
            self.lost, self.out_of_order, self.repeated
        )
    }
}

/// Counts of latencies, each within 1/16 of its value.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    counts: Vec<u64>,
    total: u64,
}

impl Latency {
    /// Counts one, in microseconds.
    pub fn add(&mut self, us: u64) {
        let slot = slot(us);
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(slot) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The latency that this share of all did not exceed, in milliseconds; 0 if there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0);
        let mut sum = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum as f64 >= wanted {
                return upper_us(slot) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

/// Sixteen slots for each power of two from 16 on.
fn slot(us: u64) -> usize {
    if us < 16 {
        return us as usize;
    }
    let power = us.ilog2();
    (power as usize - 3) * 16 + ((us >> (power - 4)) & 15) as usize
}

fn upper_us(slot: usize) -> u64 {
    if slot < 16 {
        return slot as u64;
    }
    let (power, part) = (slot / 16 + 3, slot % 16);
    (16 + part as u64 + 1) << (power - 4)
}

fn example(examples: &mut Vec<String>, describe: impl FnOnce() -> String) {
    if examples.len() < EXAMPLES {
        examples.push(describe());
    }
}

#[cfg(test)]
mod tests;
