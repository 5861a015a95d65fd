//! Dead letters as JSON lines, appended to a file and synced before they count.
//!
//! `key`, `value` and header values are base64, because what is dead-lettered need not be text; `null` is no value.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{DeadLetterError, Letter, Place, WriteFailed};
use forwarder_service::clock::wall_millis;

pub(super) struct FileTarget {
    path: PathBuf,
    /// Gone while a batch is written on another thread.
    file: Option<File>,
    place: Place,
}

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

impl FileTarget {
    pub(super) fn open(path: &Path, place: Place) -> Result<Self, DeadLetterError> {
        let opened = open(path);
        let file = opened.map_err(|source| DeadLetterError::File {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            place,
        })
    }

    /// Appends the batch and syncs: all of it or, as far as a reader of lines can tell, nothing.
    pub(super) async fn write(&mut self, batch: &mut Vec<Letter>) -> Result<Vec<Letter>, WriteFailed> {
        let lines = self.lines(batch);
        let path = self.path.clone();
        let file = self.file.take();
        let result = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => open(&path)?,
            };
            append(&mut file, &lines).map(|()| file)
        })
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
        match result {
            Ok(file) => {
                self.file = Some(file);
                Ok(std::mem::take(batch))
            }
            // The file is opened anew: it may have been moved away, or its disk.
            Err(error) => Err(WriteFailed {
                written: Vec::new(),
                reason: format!("file {}: {error}", self.path.display()),
            }),
        }
    }

    fn lines(&self, batch: &[Letter]) -> Vec<u8> {
        let mut lines = Vec::new();
        let written_at = wall_millis();
        for letter in batch {
            let original = letter.original();
            let headers = original.headers.iter();
            let line = Line {
                reason: letter.reason.reason(),
                description: letter.reason.to_string(),
                topic: self.place.inputs.topic_of(letter.origin.partition),
                partition: letter.origin.partition.number(),
                offset: letter.origin.offset,
                timestamp: letter.origin.timestamp.map(|timestamp| timestamp.millis),
                group: &self.place.group,
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
            if serde_json::to_writer(&mut lines, &line).is_err() {
                lines.extend_from_slice(format!("\"{}/{}\"", line.partition, line.offset).as_bytes());
            }
            lines.push(b'\n');
        }
        lines
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // A file that is new must be found again after a power cut, not only its content.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    // A process that died while it wrote may have left half a line; the next one begins on a line of its own.
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

fn append(file: &mut File, lines: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err() {
        // A full disk may have taken a part; without this the next try would leave it in the middle of the file.
        file.set_len(before).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
    use forwarder_core::record::Invalid;

    use super::*;
    use crate::parcel::{Origin, Original};

    fn letter(offset: i64, key: &[u8]) -> Letter {
        let origin = Origin {
            partition: PartitionId::new(Input::FIRST, 2).unwrap(),
            epoch: 1,
            offset,
            sequence: 0,
            timestamp: None,
        };
        let mut original = Vec::new();
        Original::pack(Some(key), None, &[("h", Some(b"\xff"))], &mut original);
        Letter::new(origin, Invalid::NullValue, &original)
    }

    fn target(path: &Path) -> FileTarget {
        FileTarget::open(
            path,
            Place {
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
        let mut batch = vec![Letter::without_value(
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
