//! A file that records are appended to, a line each, and synced before they count.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::batches::WriteFailed;
use forwarder_service::clock::wall_millis;

/// How records become lines.
pub trait Encode<T> {
    /// Appends the record's line, with its end. `written_at`: milliseconds since 1970-01-01T00:00:00Z.
    fn encode(&self, record: &T, written_at: i64, out: &mut Vec<u8>);
}

/// See the module.
pub struct FileOutput<E> {
    path: PathBuf,
    /// Gone while a batch is written on another thread.
    file: Option<File>,
    encode: E,
}

impl<E> FileOutput<E> {
    /// Opens the file for appending, or makes it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, encode: E) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Some(open(path)?),
            encode,
        })
    }

    /// Appends the batch and syncs: all of it or, as far as a reader of lines can tell, nothing.
    ///
    /// # Errors
    /// The whole batch is left.
    pub async fn write<T>(&mut self, batch: &mut Vec<T>) -> Result<Vec<T>, WriteFailed<T>>
    where
        E: Encode<T>,
    {
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

    fn lines<T>(&self, batch: &[T]) -> Vec<u8>
    where
        E: Encode<T>,
    {
        let mut lines = Vec::new();
        let written_at = wall_millis();
        for record in batch {
            self.encode.encode(record, written_at, &mut lines);
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
    use super::*;

    struct Text;

    impl Encode<&'static str> for Text {
        fn encode(&self, record: &&'static str, _: i64, out: &mut Vec<u8>) {
            out.extend_from_slice(record.as_bytes());
            out.push(b'\n');
        }
    }

    #[tokio::test]
    async fn half_a_line_of_a_dead_process_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "{\"half").unwrap();
        let mut output = FileOutput::open(&path, Text).unwrap();
        let mut batch = vec!["whole"];
        let written = output.write(&mut batch).await.unwrap();
        assert_eq!((written.len(), batch.len()), (1, 0));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\nwhole\n");
    }
}
