//! What travels with every committed offset: the commit's metadata.
//!
//! A short text, so that a person can read it with Kafka's own tools: `fanout1 partitions=12 ring=3`.

use std::fmt;

/// First word of the text; the digit is the version of what follows.
const MARK: &str = "fanout1";

/// The metadata of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// How many partitions the topic had when the group first began. One that has no commit and a number from here
    /// on appeared later, so it is read from its beginning, also with `startFrom: Latest`.
    pub partitions: u32,
    /// The ring's epoch under which the records before the offset were delivered.
    pub ring: u64,
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
        for word in words {
            match word.split_once('=')? {
                ("partitions", count) => metadata.partitions = count.parse().ok()?,
                ("ring", epoch) => metadata.ring = epoch.parse().ok()?,
                // A later version of the same format may say more.
                _ => {}
            }
        }
        Some(metadata)
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, ring } = self;
        write!(f, "{MARK} partitions={partitions} ring={ring}")
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
        ] {
            assert_eq!(Metadata::parse(text), None, "{text}");
        }
        assert_eq!(
            Metadata::parse("fanout1 partitions=3 more=x"),
            Some(Metadata { partitions: 3, ring: 0 })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(partitions: u32, ring: u64) {
            let metadata = Metadata { partitions, ring };
            prop_assert_eq!(Metadata::parse(&metadata.to_string()), Some(metadata));
        }

        #[test]
        fn any_text_is_harmless(text in ".*") {
            prop_assert!(Metadata::parse(&text).is_none() || text.starts_with(MARK));
        }
    }
}
