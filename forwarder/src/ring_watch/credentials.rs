//! Whether the files are there that a ring's members need.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

/// Enough to see that a file is not blank.
const GLANCE: u64 = 4 << 10;

/// Those that are missing, unreadable or blank, in order. Whether they hold what they should is for who uses them.
pub(super) async fn missing(files: BTreeSet<&Path>) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for file in files {
        if !holds_something(file).await.unwrap_or(false) {
            missing.push(file.to_owned());
        }
    }
    missing
}

async fn holds_something(file: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(file).await?.take(GLANCE).read_to_end(&mut bytes).await?;
    Ok(!bytes.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_counts_once_it_holds_something() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (full, empty, blank) = (write("full", " x\n"), write("empty", ""), write("blank", " \n\t"));
        let (none, folder) = (dir.path().join("none"), dir.path().to_owned());
        let files = [&full, &empty, &blank, &none, &folder].map(PathBuf::as_path);
        assert_eq!(
            missing(files.into_iter().collect()).await,
            [folder, blank.clone(), empty, none]
        );
        write("blank", "y");
        assert_eq!(missing(BTreeSet::from([blank.as_path()])).await, [] as [PathBuf; 0]);
    }
}
