//! What travels with every committed offset: the commit's metadata.
//!
//! A short text, so that a person can read it with Kafka's own tools: `fanout1 partitions=12 ring=3 members=8d3f…`. While a
//! cluster is away, the committed offset waits for that cluster's first record; the metadata then says how far all other
//! records are settled: `fanout1 partitions=12 ring=3 members=8d3f… upto=90210 away=C2:4711`.

use std::fmt;

use crate::percent;

/// First word of the text; the digit is the version of what follows.
const MARK: &str = "fanout1";

/// The word that names the topic. A word of its own, so that who does not know it passes over it.
const TOPIC: &str = "topic=";

/// Longest text: brokers take 4096 bytes unless they are told otherwise (`offset.metadata.max.bytes`).
const MAX_LEN: usize = 4000;

/// The metadata of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// How many partitions the topic had when the group first began. One that has no commit and a number from here
    /// on appeared later, so it is read from its beginning, also with `startFrom: Latest`.
    pub partitions: u32,
    /// The epoch of the ring that a successor needs: records may have been delivered under it.
    pub ring: u64,
    /// That ring's [fingerprint](crate::ring::Ring::fingerprint): should somebody declare two rings of one epoch, it shows.
    pub members: Option<u64>,
    /// What is settled behind the committed offset.
    pub ahead: Option<Ahead>,
}

/// What is settled behind the committed offset: everything below `upto`, except the records of some clusters. Told only under
/// the ring that the metadata names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The ring that says which records are a cluster's: its [fingerprint](crate::ring::Ring::fingerprint).
    pub members: u64,
    /// Where to go on with all that is not excepted.
    pub upto: i64,
    /// Clusters with the offset of the first of their records that may not be settled.
    pub away: Vec<(String, i64)>,
}

impl Ahead {
    /// Makes the text short enough to be committed: what does not fit is not told, so it is delivered again.
    fn fit(&self) -> Self {
        let mut away = self.away.clone();
        away.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let mut upto = self.upto;
        let mut len = 0;
        let fitting = away.iter().take_while(|(name, _)| {
            // A colon, a comma, up to twenty digits; each byte of the name takes three where it is encoded.
            len += 3 * name.len() + 22;
            len <= MAX_LEN - 200
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
        }
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
        for word in words {
            match word.split_once('=')? {
                ("partitions", count) => metadata.partitions = count.parse().ok()?,
                ("ring", epoch) => metadata.ring = epoch.parse().ok()?,
                ("members", print) => metadata.members = Some(u64::from_str_radix(print, 16).ok()?),
                ("upto", offset) => upto = Some(offset.parse().ok()?),
                ("away", list) => away = list.split(',').map(parse_away).collect::<Option<_>>()?,
                // A later version of the same format may say more.
                _ => {}
            }
        }
        metadata.ahead = metadata
            .members
            .zip(upto)
            .map(|(members, upto)| Ahead { members, upto, away }.fit());
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
        let Some(Ahead { upto, away, .. }) = ahead else {
            return Ok(());
        };
        write!(f, " upto={upto}")?;
        for (at, (name, from)) in away.iter().enumerate() {
            let mut escaped = Vec::with_capacity(name.len());
            percent::escape_all_of(name.as_bytes(), b":,=", &mut escaped);
            // Visible ASCII only.
            let name = String::from_utf8_lossy(&escaped);
            write!(f, "{}{name}:{from}", if at == 0 { " away=" } else { "," })?;
        }
        Ok(())
    }
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
            ahead in proptest::option::of((any::<u64>(), any::<i64>(), proptest::collection::vec((".{1,9}", any::<i64>()), 0..9))),
        ) {
            let ahead = ahead.map(|(members, upto, away)| Ahead { members, upto, away }.fit());
            let members = ahead.as_ref().map(|ahead| ahead.members).or(members);
            let metadata = Metadata { partitions, ring, members, ahead };
            prop_assert_eq!(Metadata::parse(&metadata.to_string()), Some(metadata));
        }

        #[test]
        fn any_text_is_harmless(text in ".*") {
            prop_assert!(Metadata::parse(&text).is_none() || text.starts_with(MARK));
        }
    }
}
