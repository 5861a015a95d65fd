//! What travels with every committed offset: the commit's metadata.
//!
//! A short text, so that a person can read it with Kafka's own tools: `fanout1 partitions=12 ring=3 members=8d3f…`. While a
//! cluster is away, the committed offset waits for that cluster's first record; the metadata then says how far all other
//! records are settled: `fanout1 partitions=12 ring=3 members=8d3f… upto=90210 away=C2:4711`.
//!
//! While single assets wait, further words name them by their lanes: `… beyond=90210 except=C2:4711 lanes=00c0ffee…:5000`. They say
//! the same as `upto` and `away`, more exactly. Older forwarders pass over them, so the older words stay true alone: there the cluster
//! that owns such an asset is away from the asset's record on.
//!
//! Before a ring is used, subscribers may be given time to learn of it. Until then commits name the ring in use, too:
//! `… ring=8 members=8d3f… using=7`. Older forwarders pass over that word, and begin under ring 8 without a wait.

mod ahead;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use self::ahead::MAX_LANES;
pub use self::ahead::{Ahead, AwayLane};
use crate::percent;

/// First word of the text; the digit is the version of what follows.
const MARK: &str = "fanout1";

/// The word that names the topic. A word of its own, so that who does not know it passes over it.
const TOPIC: &str = "topic=";

/// Longest text: brokers take 4096 bytes unless they are told otherwise (`offset.metadata.max.bytes`).
const MAX_LEN: usize = 4000;

/// What may be committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    /// One past the contiguous settled prefix.
    pub position: i64,
    /// The ring's epoch that a successor must have.
    pub ring: u64,
    /// That ring's fingerprint.
    pub members: u64,
    /// See [`Metadata::using`].
    pub using: Option<u64>,
    /// What is settled behind it.
    pub ahead: Option<Ahead>,
}

/// The metadata of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// How many partitions the topic had when the group first began. One that has no commit and a number from here
    /// on appeared later, so it is read from its beginning, also with `startFrom: Latest`.
    pub partitions: u32,
    /// The epoch of the ring that a successor needs: records may have been delivered under it.
    pub ring: u64,
    /// That ring's fingerprint. It shows where somebody declares two rings of one epoch.
    pub members: Option<u64>,
    /// The epoch of the ring under which records were delivered last, where the other one is announced and subscribers may not know it.
    pub using: Option<u64>,
    /// What is settled behind the committed offset.
    pub ahead: Option<Ahead>,
}

impl Metadata {
    /// Reads what [`fmt::Display`] wrote. `None` for any other text: another consumer's commit, or a future version's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some(MARK) {
            return None;
        }
        let mut metadata = Self::default();
        let (mut upto, mut away) = (None, Vec::new());
        let (mut beyond, mut except, mut lanes) = (None, Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=')? {
                ("partitions", count) => metadata.partitions = count.parse().ok()?,
                ("ring", epoch) => metadata.ring = epoch.parse().ok()?,
                ("members", print) => metadata.members = Some(u64::from_str_radix(print, 16).ok()?),
                ("using", epoch) => metadata.using = Some(epoch.parse().ok()?),
                ("upto", offset) => upto = Some(offset.parse().ok()?),
                ("away", list) => away = list.split(',').map(parse_away).collect::<Option<_>>()?,
                ("beyond", offset) => beyond = Some(offset.parse().ok()?),
                ("except", list) => except = list.split(',').map(parse_away).collect::<Option<_>>()?,
                ("lanes", list) => lanes = list.split(',').map(parse_lane).collect::<Option<_>>()?,
                // A later version of the same format may say more.
                _ => {}
            }
        }
        if let Some(beyond) = beyond {
            (upto, away) = (Some(beyond), except);
        } else {
            lanes.clear();
        }
        let ahead = |(members, upto)| Ahead {
            members,
            upto,
            away,
            lanes,
        };
        metadata.ahead = metadata.members.zip(upto).map(|told| ahead(told).fit());
        Some(metadata)
    }
}

/// The commit's text, with the ID of the topic that it is of: one that is made anew under its name has another one.
#[must_use]
pub fn text_of(metadata: &Metadata, topic: Option<&str>) -> String {
    let mut text = metadata.to_string();
    if let Some(topic) = topic {
        text.push(' ');
        text.push_str(TOPIC);
        text.push_str(topic);
    }
    text
}

/// The ID of the topic that a commit's text is of, if it says that.
#[must_use]
pub fn topic_of(text: &str) -> Option<&str> {
    let mut words = text.split(' ');
    (words.next() == Some(MARK)).then_some(())?;
    words.find_map(|word| word.strip_prefix(TOPIC))
}

fn parse_away(word: &str) -> Option<(String, i64)> {
    let (name, offset) = word.split_once(':')?;
    let name = String::from_utf8(percent::unescape(name.as_bytes())?).ok()?;
    Some((name, offset.parse().ok()?))
}

fn parse_lane(word: &str) -> Option<AwayLane> {
    let (rest, from) = word.rsplit_once(':')?;
    let (cluster, lane) = rest.rsplit_once(':')?;
    Some(AwayLane {
        lane: u64::from_str_radix(lane, 16).ok()?,
        from: from.parse().ok()?,
        cluster: String::from_utf8(percent::unescape(cluster.as_bytes())?).ok()?,
    })
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partitions,
            ring,
            members,
            using,
            ahead,
        } = self;
        write!(f, "{MARK} partitions={partitions} ring={ring}")?;
        let ahead = ahead.as_ref().map(Ahead::fit);
        if let Some(members) = ahead.as_ref().map(|ahead| ahead.members).or(*members) {
            write!(f, " members={members:016x}")?;
        }
        if let Some(using) = using {
            write!(f, " using={using}")?;
        }
        let Some(ahead) = ahead else { return Ok(()) };
        if ahead.lanes.is_empty() {
            return write_clusters(f, "upto", "away", &ahead);
        }
        write_clusters(f, "upto", "away", &ahead.without_lanes())?;
        write_clusters(f, "beyond", "except", &ahead)?;
        for (at, AwayLane { lane, from, cluster }) in ahead.lanes.iter().enumerate() {
            let start = if at == 0 { " lanes=" } else { "," };
            write!(f, "{start}{}:{lane:016x}:{from}", escaped(cluster))?;
        }
        Ok(())
    }
}

fn write_clusters(f: &mut fmt::Formatter<'_>, all: &str, but: &str, ahead: &Ahead) -> fmt::Result {
    write!(f, " {all}={}", ahead.upto)?;
    for (at, (name, from)) in ahead.away.iter().enumerate() {
        if at == 0 {
            write!(f, " {but}=")?;
        } else {
            f.write_str(",")?;
        }
        write!(f, "{}:{from}", escaped(name))?;
    }
    Ok(())
}

/// A name in visible ASCII, without what separates words.
fn escaped(name: &str) -> String {
    let mut escaped = Vec::with_capacity(name.len());
    percent::escape_all_of(name.as_bytes(), b":,=", &mut escaped);
    String::from_utf8_lossy(&escaped).into_owned()
}
