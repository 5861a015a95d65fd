//! A dead letter as a line of JSON.
//!
//! `key`, `value` and header values are base64, because what is dead-lettered need not be text; `null` is no value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Source;
use crate::message::DeadLetter;
use crate::outputs::file::Encode;

/// One line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    reason: &'static str,
    description: String,
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    group: &'a str,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    written_at: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    /// How long the value was that is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

impl Encode<DeadLetter> for Source {
    fn encode(&self, letter: &DeadLetter, written_at: i64, out: &mut Vec<u8>) {
        let original = letter.original();
        let headers = original.headers.iter();
        let line = Line {
            reason: letter.reason.reason(),
            description: letter.reason.to_string(),
            topic: self.inputs.topic_of(letter.origin.partition),
            partition: letter.origin.partition.number(),
            offset: letter.origin.offset,
            timestamp: letter.origin.timestamp.map(|timestamp| timestamp.millis),
            group: &self.group,
            written_at,
            key: original.key.map(|key| STANDARD.encode(key)),
            value: original.value.map(|value| STANDARD.encode(value)),
            headers: headers
                .map(|(name, value)| {
                    (
                        String::from_utf8_lossy(name).into_owned(),
                        value.map(|value| STANDARD.encode(value)),
                    )
                })
                .collect(),
            truncated: letter.truncated,
        };
        // Strings and numbers only: this cannot fail, and if it did, the line would still name its record.
        if serde_json::to_writer(&mut *out, &line).is_err() {
            out.extend_from_slice(format!("\"{}/{}\"", line.partition, line.offset).as_bytes());
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
    use forwarder_core::record::Invalid;

    use super::*;
    use crate::message::{Origin, Original};
    use crate::outputs::file::FileOutput;

    fn letter(offset: i64, key: &[u8]) -> DeadLetter {
        let origin = Origin {
            partition: PartitionId::new(Input::FIRST, 2).unwrap(),
            epoch: 1,
            offset,
            sequence: 0,
            timestamp: None,
        };
        let mut original = Vec::new();
        Original::pack(Some(key), None, &[("h", Some(b"\xff"))], &mut original);
        DeadLetter::new(origin, Invalid::NullValue, &original)
    }

    fn target(path: &Path) -> FileOutput<Source> {
        FileOutput::open(
            path,
            Source {
                inputs: Inputs::new(["t"]),
                group: "g".to_owned(),
            },
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_letter_is_a_line_with_the_record_as_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let mut batch = vec![letter(7, b"\xfe"), letter(8, b"b")];
        let written = target(&path).write(&mut batch).await.ok().unwrap();
        assert_eq!((written.len(), batch.len()), (2, 0));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["key"], "/g==");
        assert_eq!(lines[0]["value"], serde_json::Value::Null);
        assert_eq!(lines[0]["headers"][0][1], "/w==");
        assert_eq!(lines[0]["reason"], "null_value");
        assert_eq!(lines[1]["offset"], 8);
    }

    #[tokio::test]
    async fn a_letter_without_its_value_says_how_long_that_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let whole = letter(7, b"a");
        let mut batch = vec![DeadLetter::without_value(
            whole.origin,
            Invalid::RecordTooLarge,
            &[],
            70_000_000,
        )];
        target(&path).write(&mut batch).await.ok().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["truncated"], &line["value"]),
            (&70_000_000.into(), &serde_json::Value::Null)
        );
    }

    #[tokio::test]
    async fn half_a_line_of_a_dead_process_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        std::fs::write(&path, "{\"half").unwrap();
        target(&path).write(&mut vec![letter(1, b"a")]).await.ok().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).is_ok());
    }
}
