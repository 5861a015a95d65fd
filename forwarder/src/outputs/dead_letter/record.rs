//! A dead letter as a Kafka record: key, value and headers as they came, and headers of ours behind them.

use rdkafka::message::{Header, OwnedHeaders};

use super::Source;
use crate::message::{DeadLetter, Original};
use crate::outputs::kafka::{Encode, Encoded};

/// The last try always fits: its headers still tell where the record is.
impl Encode<DeadLetter> for Source {
    fn encode<'a>(&self, letter: &'a DeadLetter, number: usize) -> Option<Encoded<'a>> {
        let whole = letter.original();
        let length = letter.truncated.or(whole.value.map(<[u8]>::len));
        let (original, truncated) = match number {
            0 => (whole, letter.truncated),
            1 => (Original { value: None, ..whole }, length),
            2 => (Original::default(), Some(length.unwrap_or_default())),
            _ => return None,
        };
        let mut headers = self.headers(letter, &original);
        if let Some(size) = truncated {
            headers = headers.insert(Header {
                key: "dead-letter-truncated",
                value: Some(&size.to_string()),
            });
        }
        Some(Encoded {
            key: original.key,
            value: original.value,
            headers,
        })
    }
}

impl Source {
    fn headers(&self, letter: &DeadLetter, original: &Original<'_>) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(original.headers.len() + 7);
        for (name, value) in &original.headers {
            headers = headers.insert(Header {
                key: &String::from_utf8_lossy(name),
                value: *value,
            });
        }
        let origin = &letter.origin;
        let timestamp = origin.timestamp.map(|timestamp| timestamp.millis.to_string());
        for (name, value) in [
            ("dead-letter-reason", Some(letter.reason.reason().to_owned())),
            ("dead-letter-description", Some(letter.reason.to_string())),
            (
                "dead-letter-topic",
                Some(self.inputs.topic_of(origin.partition).to_owned()),
            ),
            ("dead-letter-partition", Some(origin.partition.number().to_string())),
            ("dead-letter-offset", Some(origin.offset.to_string())),
            ("dead-letter-timestamp", timestamp),
            ("dead-letter-group", Some(self.group.clone())),
        ] {
            headers = headers.insert(Header {
                key: name,
                value: value.as_deref(),
            });
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use forwarder_core::delivery::offsets::Tag;
    use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
    use forwarder_core::record::Invalid;
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::message::Origin;

    /// A letter in a try: its key, its value, the record's own headers, and how long the value was.
    fn tried(number: usize) -> Option<[Option<String>; 4]> {
        let tag = Tag {
            partition: PartitionId::new(Input::FIRST, 2).unwrap(),
            epoch: 1,
            offset: 7,
            sequence: 0,
        };
        let mut original = Vec::new();
        Original::pack(Some(b"key"), Some(b"value"), &[("h", None)], &mut original);
        let letter = DeadLetter::new(Origin::new(tag, None), Invalid::NotJson, &original);
        let source = Source {
            inputs: Inputs::new(["t"]),
            group: "g".to_owned(),
        };
        let Encoded { key, value, headers } = source.encode(&letter, number)?;
        let named = |name: &str| headers.iter().find(|header| header.key == name);
        assert_eq!(named("dead-letter-offset").unwrap().value, Some(&b"7"[..]));
        let mut own = headers.iter().map(|header| header.key.to_owned());
        let own = own.find(|name| !name.starts_with("dead-letter-"));
        let truncated = named("dead-letter-truncated").and_then(|header| header.value);
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Some([text(key), text(value), own, text(truncated)])
    }

    #[test]
    fn each_try_leaves_more_out_and_still_tells_where_the_record_is() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(tried(0).unwrap(), [text("key"), text("value"), text("h"), None]);
        assert_eq!(tried(1).unwrap(), [text("key"), None, text("h"), text("5")]);
        assert_eq!(tried(2).unwrap(), [None, None, None, text("5")]);
        assert_eq!(tried(3), None);
    }
}
