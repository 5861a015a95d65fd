//! What librdkafka reports only in its log: that a topic has another ID, where a log was cut short, which offset the broker does not have, and
//! where a batch begins that cannot be read.
//!
//! Its application interface has none of that. It notices the first two before it fetches on, and its log goes through the same queue as the
//! records, before them. So no record of another topic, or behind a cut, is taken before this is known. The words are those of the version
//! that is built in; end-to-end tests notice when they change.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// The part of librdkafka's debug log that is read: some lines for each change of a topic or an assignment.
const PART: &str = "topic";

/// Something that only the log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A topic has this ID, for the first time or instead of another one.
    Topic {
        /// The topic's name.
        name: String,
        /// Its ID, as Kafka's own tools write it.
        id: String,
    },
    /// A log does not hold any more what was read of it.
    Cut {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where it was cut: before that it is what was read.
        at: i64,
    },
    /// The broker does not have what was asked for.
    OutOfRange {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was asked for.
        at: i64,
    },
}

/// Has librdkafka write the lines that are read here, whatever else of its debug log is declared.
pub fn enable(client: &mut ClientConfig) {
    let declared = client.get("debug").filter(|declared| !declared.is_empty());
    let debug = declared.map_or_else(|| PART.to_owned(), |declared| format!("{declared},{PART}"));
    client.set("debug", debug);
    client.set_log_level(RDKafkaLogLevel::Debug);
}

/// Reads a line of the log.
#[must_use]
pub fn read(line: &str) -> Option<Told> {
    // Behind the name of the thread that wrote it.
    let line = match line.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ")?.1,
        None => line,
    };
    if let Some((name, ids)) = line
        .strip_prefix("Topic ")
        .and_then(|rest| rest.split_once(" changed id from "))
    {
        let (_, id) = ids.split_once(" to ")?;
        return Some(Told::Topic {
            name: name.to_owned(),
            id: id.to_owned(),
        });
    }
    let (place, what) = line.split_once("]: offset reset (")?;
    let (topic, partition) = place.rsplit_once(" [")?;
    if what.contains("fetch failed due to requested offset not available") {
        let (at, _) = what.strip_prefix("at offset ")?.split_once([' ', ','])?;
        return Some(Told::OutOfRange {
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            at: at.parse().ok()?,
        });
    }
    let (_, cut) = what.split_once(": Partition log truncation detected at ")?;
    let (_, at) = cut.split_once(": broker end offset is ")?;
    let (at, _) = at.split_once(' ')?;
    Some(Told::Cut {
        topic: topic.to_owned(),
        partition: partition.parse().ok()?,
        at: at.parse().ok()?,
    })
}

/// Where the batch begins that cannot be read, by the words of librdkafka's error. It tells that of a wrong checksum only.
#[must_use]
pub fn unreadable_batch(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("MessageSet at offset ")?;
    let (begin, _) = rest.split_once(' ')?;
    begin.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_asked_for_beside_what_is_declared() {
        let mut client = ClientConfig::new();
        enable(&mut client);
        assert_eq!(client.get("debug"), Some("topic"));
        client.set("debug", "cgrp");
        enable(&mut client);
        assert_eq!(client.get("debug"), Some("cgrp,topic"));
    }

    #[test]
    fn the_id_of_a_topic_is_read() {
        for line in [
            "[thrd:main]: Topic ofa_assets changed id from AAAAAAAAAAAAAAAAAAAAAA to zVtKbJCZTACVYqLrv5wGBg",
            "Topic ofa_assets changed id from AAAAAAAAAAAAAAAAAAAAAA to zVtKbJCZTACVYqLrv5wGBg",
        ] {
            let told = Told::Topic {
                name: "ofa_assets".to_owned(),
                id: "zVtKbJCZTACVYqLrv5wGBg".to_owned(),
            };
            assert_eq!(read(line), Some(told), "{line}");
        }
    }

    #[test]
    fn where_a_log_was_cut_is_read() {
        let line = "[thrd:main]: ofa_assets [12]: offset reset (at offset INVALID (leader epoch 2), broker 1) to offset INVALID (leader epoch \
                    -1): Partition log truncation detected at offset 100 (leader epoch 0): broker end offset is 37 (offset leader epoch 0). \
                    Reset to INVALID.: Local: Log truncation detected";
        let told = Told::Cut {
            topic: "ofa_assets".to_owned(),
            partition: 12,
            at: 37,
        };
        assert_eq!(read(line), Some(told));
    }

    #[test]
    fn what_the_broker_does_not_have_is_read() {
        let line = "[thrd:main]: ofa_assets [3]: offset reset (at offset 7318 (leader epoch 0), broker 1) to offset INVALID (leader epoch -1): \
                    fetch failed due to requested offset not available on the broker: Broker: Offset out of range";
        let told = Told::OutOfRange {
            topic: "ofa_assets".to_owned(),
            partition: 3,
            at: 7_318,
        };
        assert_eq!(read(line), Some(told));
    }

    #[test]
    fn where_an_unreadable_batch_begins_is_read() {
        let reason =
            "MessageSet at offset 216 (34653 bytes) failed CRC32C check (original 0x61559d8d != calculated 0xc678dbf2)";
        assert_eq!(unreadable_batch(reason), Some(216));
        assert_eq!(unreadable_batch("Decompression of a batch failed"), None);
    }

    #[test]
    fn other_lines_tell_nothing() {
        for line in [
            "",
            "[thrd:main]: ",
            "[thrd:main",
            "[thrd:main]: Topic ofa_assets [0] Leader 1 Epoch 0",
            "[thrd:main]: ofa_assets [0]: offset reset (at offset 5, broker 1) to INVALID: no committed offset: Local: No offset stored",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
