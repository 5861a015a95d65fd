//! Where a message comes from in Kafka, as its headers say.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::HeaderName;
use hashbrown::HashMap;

const TOPIC: HeaderName = HeaderName::from_static("Kafka-Topic");
const PARTITION: HeaderName = HeaderName::from_static("Kafka-Partition");
const OFFSET: HeaderName = HeaderName::from_static("Kafka-Offset");
const TIMESTAMP: HeaderName = HeaderName::from_static("Kafka-Timestamp");
const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");

/// Only a forwarder writes it.
const MIRRORED: HeaderName = HeaderName::from_static("Fanout-Mirrored");

/// So many names of topics are remembered.
const TOPICS: usize = 1_024;

/// A record's place in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The timestamp in milliseconds since 1970; none: the record has none.
    pub timestamp: Option<i64>,
}

/// Whether a message is a copy for subscribers that stay where an asset was. Copies may have holes.
pub(crate) fn is_copy(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get(MIRRORED).is_some())
}

/// Reads origins. Each topic's name is kept once.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    topics: HashMap<Box<str>, Arc<str>>,
}

impl Origins {
    /// The origin of a message; none: the message does not say, or not soundly.
    pub(crate) fn of(&mut self, headers: Option<&HeaderMap>) -> Option<Origin> {
        let headers = headers?;
        if let Some(topic) = headers.get(TOPIC) {
            let timestamp = headers.get(TIMESTAMP);
            return Some(Origin {
                topic: self.topic(topic.as_str())?,
                partition: headers.get(PARTITION)?.as_str().parse().ok()?,
                offset: headers.get(OFFSET)?.as_str().parse().ok()?,
                timestamp: timestamp.map(|millis| millis.as_str().parse()).transpose().ok()?,
            });
        }
        let mut parts = headers.get(MESSAGE_ID)?.as_str().rsplitn(4, '.');
        let millis = parts.next()?;
        Some(Origin {
            offset: parts.next()?.parse().ok()?,
            partition: parts.next()?.parse().ok()?,
            topic: self.topic(parts.next()?)?,
            // As in Kafka's own format, -1 is no timestamp.
            timestamp: (millis != "-1").then(|| millis.parse()).transpose().ok()?,
        })
    }

    fn topic(&mut self, escaped: &str) -> Option<Arc<str>> {
        if let Some(topic) = self.topics.get(escaped) {
            return Some(Arc::clone(topic));
        }
        let topic: Arc<str> = unescape(escaped)?.into();
        if self.topics.len() == TOPICS {
            self.topics.clear();
        }
        self.topics.insert(escaped.into(), Arc::clone(&topic));
        Some(topic)
    }
}

/// The text behind `%XX`; none: it cannot have been written by a forwarder.
fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Option<Origin> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Origins::default().of(Some(&map))
    }

    fn origin(topic: &str, timestamp: Option<i64>) -> Option<Origin> {
        Some(Origin {
            topic: topic.into(),
            partition: 3,
            offset: 70_000_000_000,
            timestamp,
        })
    }

    #[test]
    fn origins_are_read_from_either_kind_of_header() {
        let place = [("Kafka-Partition", "3"), ("Kafka-Offset", "70000000000")];
        let [partition, offset] = place;
        let topic = ("Kafka-Topic", "a%2Fb");
        assert_eq!(of(&[topic, partition, offset]), origin("a/b", None));
        let timestamp = ("Kafka-Timestamp", "-5");
        assert_eq!(of(&[topic, partition, offset, timestamp]), origin("a/b", Some(-5)));
        for (id, timestamp) in [("9", Some(9)), ("-1", None)] {
            let id = format!("plant.a.3.70000000000.{id}");
            assert_eq!(of(&[("Nats-Msg-Id", &id)]), origin("plant.a", timestamp));
        }
    }

    #[test]
    fn what_a_forwarder_cannot_have_written_is_no_origin() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("Kafka-Topic", "t"), ("Kafka-Partition", "3")]), None);
        for id in ["", "a.b.c", "t.x.1.1", "t.1.1.x", "%zz.1.1.1", "%+1.1.1.1", "%e9.1.1.1"] {
            assert_eq!(of(&[("Nats-Msg-Id", id)]), None, "{id}");
        }
        let sound = ("Kafka-Timestamp", "soon");
        let place = [("Kafka-Topic", "t"), ("Kafka-Partition", "3"), ("Kafka-Offset", "7")];
        assert_eq!(of(&[place[0], place[1], place[2], sound]), None);
    }
}
