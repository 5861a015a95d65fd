//! What travels with every committed offset: the commit's metadata.
//!
//! A short text, so that a person can read it with Kafka's own tools: `fanout1 partitions=12 ring=3 members=8d3f…`. While a
//! cluster is away, the committed offset waits for that cluster's first record; the metadata then says how far all other
//! records are settled: `fanout1 partitions=12 ring=3 members=8d3f… upto=90210 away=C2:4711`.
//!
//! While single assets wait, further words name them by their lanes: `… beyond=90210 except=C2:4711 lanes=00c0ffee…:5000`. They say
//! the same as `upto` and `away`, more exactly. Older forwarders pass over them, so the older words stay true alone: there the cluster
//! that owns such an asset is away from the asset's record on.

use std::fmt;

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
    /// What is settled behind the committed offset.
    pub ahead: Option<Ahead>,
}

/// What is settled behind the committed offset: everything below `upto`, except the records of some clusters and assets. Told only
/// under the ring that the metadata names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The fingerprint of the ring that says which records are a cluster's.
    pub members: u64,
    /// Where to go on with all that is not excepted.
    pub upto: i64,
    /// Clusters with the offset of the first of their records that may not be settled.
    pub away: Vec<(String, i64)>,
    /// Lanes with the offset of the first of their records that may not be settled, and the name of the cluster that owns each. What
    /// is said of a lane goes before what is said of its cluster.
    pub lanes: Vec<AwayLane>,
}

/// An asset of which not everything is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwayLane {
    /// Its lane.
    pub lane: u64,
    /// The first of its records that may not be settled.
    pub from: i64,
    /// The cluster that owns it under the ring that the metadata names.
    pub cluster: String,
}

/// More lanes than this are told by their clusters.
pub(crate) const MAX_LANES: usize = 48;

/// What clusters may take of the text, and lanes twice of it, where both are told.
const ROOM: usize = MAX_LEN / 5;

impl Ahead {
    /// Makes the text short enough to be committed: what does not fit is not told, so it is delivered again.
    fn fit(&self) -> Self {
        if self.lanes.is_empty() {
            return self.fit_into(MAX_LEN - 200);
        }
        let mut told = self.clone();
        told.lanes.sort_by_key(|lane| (lane.from, lane.lane));
        let rest = told.lanes.split_off(told.lanes.len().min(MAX_LANES));
        // Those that are too many are their clusters' matter.
        for lane in &rest {
            note(&mut told.away, &lane.cluster, lane.from);
        }
        told = told.fit_into(ROOM);
        let (clusters, upto) = (&told.away, told.upto);
        told.lanes.retain(|lane| {
            // A cluster that is away from there on says as much.
            let around = clusters.iter().find(|(name, _)| *name == lane.cluster);
            lane.from <= upto && around.map_or(lane.from < upto, |(_, from)| *from != lane.from)
        });
        let mut len = 0;
        let fitting = told.lanes.iter().take_while(|lane| {
            // Two colons, a comma, sixteen and up to twenty digits.
            len += 3 * lane.cluster.len() + 40;
            len <= 2 * ROOM
        });
        let fitting = fitting.count();
        for lane in told.lanes.split_off(fitting) {
            note(&mut told.away, &lane.cluster, lane.from);
        }
        let told = told.fit_into(ROOM);
        if told.upto < self.upto {
            // The clusters alone need the room. Each of them says what its lanes do, and more.
            let plain = self.all_by_clusters().fit_into(MAX_LEN - 200);
            if plain.upto > told.upto {
                return plain;
            }
        }
        told
    }

    /// The same without lanes: each is a matter of its cluster.
    fn all_by_clusters(&self) -> Self {
        let mut plain = Self {
            lanes: Vec::new(),
            ..self.clone()
        };
        for lane in &self.lanes {
            note(&mut plain.away, &lane.cluster, lane.from);
        }
        plain
    }

    /// What is said without lanes: each is a matter of its cluster.
    fn without_lanes(&self) -> Self {
        self.all_by_clusters().fit_into(ROOM)
    }

    fn fit_into(&self, room: usize) -> Self {
        let mut away = self.away.clone();
        away.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let mut upto = self.upto;
        let mut len = 0;
        let fitting = away.iter().take_while(|(name, _)| {
            // A colon, a comma, up to twenty digits; each byte of the name takes three where it is encoded.
            len += 3 * name.len() + 22;
            len <= room
        });
        let fitting = fitting.count();
        if let Some((_, from)) = away.get(fitting) {
            upto = upto.min(*from);
        }
        away.truncate(fitting);
        away.retain(|(_, from)| *from < upto);
        Self {
            members: self.members,
            upto,
            away,
            lanes: self.lanes.clone(),
        }
    }
}

/// A cluster is away from there on, at the latest.
fn note(away: &mut Vec<(String, i64)>, cluster: &str, from: i64) {
    match away.iter_mut().find(|(name, _)| name == cluster) {
        Some((_, first)) => *first = from.min(*first),
        None => away.push((cluster.to_owned(), from)),
    }
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
            ahead,
        } = self;
        write!(f, "{MARK} partitions={partitions} ring={ring}")?;
        let ahead = ahead.as_ref().map(Ahead::fit);
        if let Some(members) = ahead.as_ref().map(|ahead| ahead.members).or(*members) {
            write!(f, " members={members:016x}")?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_wrote_is_not_ours() {
        for text in [
            "",
            "NO_METADATA",
            "fanout2 partitions=1",
            "fanout1 partitions=x",
            "fanout1 partitions",
            "fanout1 partitions=1 ring=1 members=1 upto=5 away=C1",
            "fanout1 partitions=1 ring=1 members=1 upto=5 away=%4:5",
        ] {
            assert_eq!(Metadata::parse(text), None, "{text}");
        }
        let plain = Metadata {
            partitions: 3,
            ..Metadata::default()
        };
        assert_eq!(Metadata::parse("fanout1 partitions=3 more=x"), Some(plain));
    }

    #[test]
    fn a_person_can_read_it() {
        let metadata = Metadata {
            partitions: 12,
            ring: 3,
            members: Some(0x8d),
            ahead: Some(Ahead {
                members: 0x8d,
                upto: 90_210,
                away: vec![("C 3".to_owned(), 5_000), ("C2".to_owned(), 4_711)],
                lanes: Vec::new(),
            }),
        };
        let text = "fanout1 partitions=12 ring=3 members=000000000000008d upto=90210 away=C2:4711,C%203:5000";
        assert_eq!(metadata.to_string(), text);
        let metadata = Metadata {
            ahead: None,
            ..metadata
        };
        assert_eq!(
            metadata.to_string(),
            "fanout1 partitions=12 ring=3 members=000000000000008d"
        );
    }

    #[test]
    fn an_asset_that_waits_is_told_by_its_lane_and_to_older_forwarders_by_its_cluster() {
        let ahead = Ahead {
            members: 1,
            upto: 90,
            away: vec![("C3".to_owned(), 40)],
            lanes: vec![AwayLane {
                lane: 0xc0ffee,
                from: 20,
                cluster: "C2".to_owned(),
            }],
        };
        let metadata = Metadata {
            partitions: 1,
            ring: 1,
            members: Some(1),
            ahead: Some(ahead),
        };
        assert_eq!(
            metadata.to_string(),
            "fanout1 partitions=1 ring=1 members=0000000000000001 upto=90 away=C2:20,C3:40 beyond=90 except=C3:40 \
             lanes=C2:0000000000c0ffee:20"
        );
    }

    #[test]
    fn the_topic_is_a_word_that_others_pass_over() {
        let metadata = Metadata {
            partitions: 12,
            ring: 3,
            ..Metadata::default()
        };
        let text = text_of(&metadata, Some("zVtKbJCZTACVYqLrv5wGBg"));
        assert_eq!(text, "fanout1 partitions=12 ring=3 topic=zVtKbJCZTACVYqLrv5wGBg");
        assert_eq!(topic_of(&text), Some("zVtKbJCZTACVYqLrv5wGBg"));
        assert_eq!(Metadata::parse(&text).as_ref(), Some(&metadata));
        assert_eq!(topic_of(&text_of(&metadata, None)), None);
        assert_eq!(topic_of("others topic=a"), None, "another consumer's text");
    }

    #[test]
    fn what_does_not_fit_is_not_called_settled() {
        let away: Vec<_> = (0..1_000)
            .map(|at| (format!("cluster-{at:04}"), i64::from(at)))
            .collect();
        let metadata = Metadata {
            partitions: 1,
            ring: 1,
            members: Some(1),
            ahead: Some(Ahead {
                members: 1,
                upto: 1 << 40,
                away: away.clone(),
                lanes: Vec::new(),
            }),
        };
        let text = metadata.to_string();
        assert!(text.len() <= MAX_LEN, "{}", text.len());
        let read = Metadata::parse(&text).unwrap().ahead.unwrap();
        assert!(!read.away.is_empty());
        // Each cluster that is not named has its records behind what is called settled.
        for (name, from) in away {
            assert!(read.upto <= from || read.away.contains(&(name, from)));
        }
    }

    #[test]
    fn a_cluster_is_away_only_before_what_is_called_settled() {
        // A class that began to be parked behind the first record to come would have no place for what is before.
        let text = "fanout1 partitions=1 ring=1 members=1 upto=5 away=C1:5,C2:4,C3:6";
        let ahead = Metadata::parse(text).unwrap().ahead.unwrap();
        assert_eq!((ahead.upto, &ahead.away), (5, &vec![("C2".to_owned(), 4)]));
        let ahead = Ahead {
            away: vec![("C1".to_owned(), 5), ("C2".to_owned(), 4)],
            ..ahead
        };
        let metadata = Metadata {
            partitions: 1,
            ring: 1,
            members: None,
            ahead: Some(ahead),
        };
        let text = "fanout1 partitions=1 ring=1 members=0000000000000001 upto=5 away=C2:4";
        assert_eq!(metadata.to_string(), text);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            partitions: u32,
            ring: u64,
            members: Option<u64>,
            ahead in proptest::option::of((
                any::<u64>(),
                any::<i64>(),
                proptest::collection::btree_map(".{1,9}", any::<i64>(), 0..9),
                proptest::collection::btree_map(any::<u64>(), (any::<i64>(), ".{1,9}"), 0..99),
            )),
        ) {
            let ahead = ahead.map(|(members, upto, away, lanes)| {
                let lanes = lanes.into_iter().map(|(lane, (from, cluster))| AwayLane { lane, from, cluster });
                Ahead { members, upto, away: away.into_iter().collect(), lanes: lanes.collect() }.fit()
            });
            let members = ahead.as_ref().map(|ahead| ahead.members).or(members);
            let metadata = Metadata { partitions, ring, members, ahead };
            let text = metadata.to_string();
            prop_assert!(text.len() <= MAX_LEN + 100, "{}", text.len());
            prop_assert_eq!(Metadata::parse(&text), Some(metadata));
        }

        /// Against the definition: what an older forwarder reads, and what a newer one does, calls no record settled that is not.
        #[test]
        fn no_word_calls_a_record_settled_that_is_not(
            upto in 0_i64..100,
            away in proptest::collection::btree_map(0..6_u8, 0_i64..100, 0..4),
            lanes in proptest::collection::btree_map(0..200_u64, (0_i64..100, 0..6_u8), 0..120),
            name in ".{1,60}",
        ) {
            let cluster = |number: u8| format!("{name}{number}");
            let lanes_in = lanes.iter().map(|(lane, (from, owner))| AwayLane { lane: *lane, from: *from, cluster: cluster(*owner) });
            let ahead = Ahead {
                members: 1,
                upto,
                away: away.iter().map(|(owner, from)| (cluster(*owner), *from)).collect(),
                lanes: lanes_in.collect(),
            };
            let is_settled = |ahead: &Ahead, lane: u64, owner: &str, offset: i64| {
                if offset >= ahead.upto {
                    return false;
                }
                if let Some(lane) = ahead.lanes.iter().find(|told| told.lane == lane) {
                    return offset < lane.from;
                }
                ahead.away.iter().all(|(name, from)| name != owner || offset < *from)
            };
            let metadata = Metadata { partitions: 1, ring: 1, members: Some(1), ahead: Some(ahead.clone()) };
            let text = metadata.to_string();
            let older: Vec<&str> = text.split(' ').filter(|word| {
                !["beyond=", "except=", "lanes="].iter().any(|newer| word.starts_with(newer))
            }).collect();
            for text in [text.clone(), older.join(" ")] {
                let told = Metadata::parse(&text).unwrap().ahead.unwrap();
                for (lane, (_, owner)) in &lanes {
                    for offset in 0..100 {
                        let (owner, lane) = (cluster(*owner), *lane);
                        prop_assert!(
                            !is_settled(&told, lane, &owner, offset) || is_settled(&ahead, lane, &owner, offset),
                            "{text}: {offset} of {lane:x}"
                        );
                    }
                }
                // An asset that is no lane of these, of each cluster.
                for owner in 0..6 {
                    for offset in 0..100 {
                        let owner = cluster(owner);
                        prop_assert!(!is_settled(&told, u64::MAX, &owner, offset) || is_settled(&ahead, u64::MAX, &owner, offset));
                    }
                }
            }
        }

        #[test]
        fn any_text_is_harmless(text in ".*") {
            prop_assert!(Metadata::parse(&text).is_none() || text.starts_with(MARK));
        }
    }
}
