//! The API server's audit log: who wrote what, by the word of the server itself.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use e2e::cluster::AUDIT_LOG;
use serde::Deserialize;

use crate::cluster::Cluster;

/// A write that the API server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who asked, or in whose name.
    pub user: String,
    /// create, update, patch, delete or deletecollection.
    pub verb: String,
    /// The resource and its subresource, such as `assetforwarders/status`.
    pub resource: String,
    /// The namespace; empty for what is in none.
    pub namespace: String,
    /// The name; empty where the server has chosen or was to choose it.
    pub name: String,
    /// The code of the answer.
    pub code: u16,
}

impl Write {
    /// Whether it is part of what everybody does who leads or tells: the holder of a Lease, the writer of Events.
    pub fn is_aside(&self) -> bool {
        matches!(self.resource.as_str(), "leases" | "events")
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            name,
            code,
            ..
        } = self;
        write!(f, "{verb} {resource} {name} ({code})")
    }
}

/// What is written to the log from a moment on.
pub struct AuditLog {
    path: PathBuf,
    file: File,
    // The beginning of a line whose end was not there yet.
    begun: Vec<u8>,
}

impl AuditLog {
    /// Follows the cluster's log from now on. Only a cluster that `cargo e2e` has started has one at a place that we know.
    pub fn follow(cluster: &Cluster) -> Result<Self> {
        let dir = cluster.kubeconfig.parent().unwrap_or(Path::new("/"));
        let path = dir.join(AUDIT_LOG);
        let mut file = File::open(&path).with_context(|| {
            format!(
                "failed to open the audit log {}: this test needs a cluster that `cargo e2e` has started",
                path.display()
            )
        })?;
        file.seek(SeekFrom::End(0)).context("failed to seek in the audit log")?;
        Ok(Self {
            path,
            file,
            begun: Vec::new(),
        })
    }

    /// All that was written since the last look. The server writes a line a moment after it has answered.
    pub fn read(&mut self) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        self.read_file(&mut writes)?;
        // A full file gets another name, and a new one takes its place.
        if let Some(next) = self.next_file().context("failed to look for the next audit log")? {
            self.read_file(&mut writes)?;
            self.file = next;
            self.begun.clear();
            self.read_file(&mut writes)?;
        }
        Ok(writes)
    }

    fn next_file(&self) -> io::Result<Option<File>> {
        let next = match File::open(&self.path) {
            Ok(next) => next,
            // Between the two renames.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_other = next.metadata()?.ino() != self.file.metadata()?.ino();
        Ok(is_other.then_some(next))
    }

    fn read_file(&mut self, writes: &mut Vec<Write>) -> Result<()> {
        self.file
            .read_to_end(&mut self.begun)
            .context("failed to read the audit log")?;
        let whole = memchr::memrchr(b'\n', &self.begun).map_or(0, |at| at + 1);
        let rest = self.begun.split_off(whole);
        for line in self.begun.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            writes.push(parse(line)?);
        }
        self.begun = rest;
        Ok(())
    }
}

/// The part of a line of the log that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Answer,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u16,
}

fn parse(line: &[u8]) -> Result<Write> {
    let line: Line = serde_json::from_slice(line)
        .with_context(|| format!("a line of the audit log is none: {}", String::from_utf8_lossy(line)))?;
    let Object {
        mut resource,
        subresource,
        namespace,
        name,
    } = line.object_ref;
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    Ok(Write {
        user: line.impersonated_user.unwrap_or(line.user).username,
        verb: line.verb,
        resource,
        namespace,
        name,
        code: line.response_status.code,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(name: &str) -> String {
        format!(
            r#"{{"verb":"patch","user":{{"username":"admin"}},"impersonatedUser":{{"username":"operator"}},"objectRef":{{"resource":"assetforwarders","subresource":"status","namespace":"plant","name":"{name}"}},"responseStatus":{{"code":200}}}}"#
        )
    }

    fn names(log: &mut AuditLog) -> Vec<String> {
        log.read().unwrap().into_iter().map(|write| write.name).collect()
    }

    #[test]
    fn a_line_is_read_once_it_is_whole_and_a_new_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = File::create(&path).unwrap();
        let mut log = AuditLog {
            path: path.clone(),
            file: File::open(&path).unwrap(),
            begun: Vec::new(),
        };
        let first = line("a");
        let (half, rest) = first.split_at(20);
        write!(file, "{half}").unwrap();
        assert!(names(&mut log).is_empty());
        write!(file, "{rest}\n{}\n", line("b")).unwrap();
        assert_eq!(names(&mut log), ["a", "b"]);

        writeln!(file, "{}", line("c")).unwrap();
        std::fs::rename(&path, dir.path().join("audit-1.log")).unwrap();
        std::fs::write(&path, format!("{}\n", line("d"))).unwrap();
        assert_eq!(names(&mut log), ["c", "d"]);
        assert!(names(&mut log).is_empty());
    }

    #[test]
    fn who_acts_in_the_name_of_another_is_the_other() {
        let write = parse(line("line").as_bytes()).unwrap();
        assert_eq!(write.user, "operator");
        assert_eq!(write.to_string(), "patch assetforwarders/status line (200)");
        assert!(!write.is_aside());
    }
}
