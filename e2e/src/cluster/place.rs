//! The directory of an instance, its lock, and the record of the process that holds the cluster up.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::{Addresses, Files};
use super::{cgroups, network};

/// How long SIGKILL may take: the kernel ends some forty processes and unmounts as many file systems.
const DEATH: Duration = Duration::from_secs(30);

/// The file whose presence says that the cluster is complete.
const COMPLETE: &str = "complete";

/// The file that names the supervisor.
const RECORD: &str = "supervisor";

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Empty,
    /// What one left that has died, or that never became complete.
    Broken,
    /// A cluster that is up.
    Up,
}

/// The place of an instance.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) addresses: Addresses,
    pub(super) files: Files,
    instance: u8,
    base: PathBuf,
}

impl Place {
    /// Where an instance is, or would be.
    pub(super) fn of(instance: u8) -> Result<Self> {
        let base = base()?;
        Ok(Self {
            addresses: Addresses::of(instance),
            files: Files::outside(&base.join(format!("cluster-{instance}"))),
            instance,
            base,
        })
    }

    /// Takes the place for as long as the file lives: one at a time builds or tears down. None: somebody has it.
    pub(super) fn try_lock(&self) -> Result<Option<File>> {
        let file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error).context("failed to lock the place of a cluster"),
        }
    }

    /// As [`Place::try_lock`], but waits.
    pub(super) fn lock(&self) -> Result<File> {
        let file = self.lock_file()?;
        file.lock().context("failed to lock the place of a cluster")?;
        Ok(file)
    }

    fn lock_file(&self) -> Result<File> {
        fs::create_dir_all(&self.base).with_context(|| format!("failed to create {}", self.base.display()))?;
        let path = self.base.join(format!("cluster-{}.lock", self.instance));
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))
    }

    /// What is there.
    pub(super) fn state(&self) -> Result<State> {
        if !self.files.root().exists() {
            return Ok(State::Empty);
        }
        let up = self.supervisor()?.is_some() && self.files.at(COMPLETE).exists();
        Ok(if up { State::Up } else { State::Broken })
    }

    /// Notes that all is there.
    pub(super) fn complete(&self) -> Result<()> {
        write(&self.files.at(COMPLETE), "")
    }

    /// The supervisor's process id, if it is alive.
    pub(super) fn supervisor(&self) -> Result<Option<u32>> {
        let path = self.files.at(RECORD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        };
        let record = Record::parse(&text)
            .with_context(|| format!("{} does not say which process holds the cluster up", path.display()))?;
        Ok(record.alive().then_some(record.pid))
    }

    /// Ends what is there and removes all that it left. Nothing there is fine.
    pub(super) fn clear(&self) -> Result<()> {
        let deadline = Instant::now() + DEATH;
        while let Some(pid) = self.supervisor()? {
            let process = Pid::from_raw(i32::try_from(pid).context("a process id beyond all bounds")?);
            // The first process of its process namespace: with it the kernel ends all others there, and with the last of them the mounts,
            // interfaces and rules go.
            match kill(process, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("failed to end process {pid}")),
            }
            if Instant::now() >= deadline {
                bail!("process {pid}, which holds a cluster up, has not ended within {DEATH:?} of a SIGKILL");
            }
            thread::sleep(Duration::from_millis(10));
        }
        network::pull(self.addresses)?;
        cgroups::remove(&self.addresses.cgroup())?;
        let root = self.files.root();
        match fs::remove_dir_all(root) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("failed to delete {}", root.display())),
        }
    }
}

/// Where the places are.
fn base() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    match set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state"))) {
        Some(base) => Ok(base.join("fanout-e2e")),
        None => bail!("no place for a cluster: set XDG_STATE_HOME or HOME"),
    }
}

/// Says which process holds a cluster up: an id alone may have been given to another since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pid: u32,
    /// Clock ticks between the machine's start and the process's.
    started: u64,
}

impl Record {
    /// This process, as the mounted /proc knows it. In a new process namespace that is the host's, for as long as the host's is mounted.
    pub(super) fn own() -> Result<Self> {
        let link = fs::read_link("/proc/self").context("failed to read /proc/self")?;
        let pid = link
            .to_string_lossy()
            .parse()
            .map_err(|_| anyhow!("/proc/self leads to {}, which is no process id", link.display()))?;
        let started = started(pid).ok_or_else(|| anyhow!("/proc/{pid}/stat does not say when the process began"))?;
        Ok(Self { pid, started })
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let aside = dir.join("supervisor.partial");
        write(&aside, &format!("{} {}\n", self.pid, self.started))?;
        fs::rename(&aside, dir.join(RECORD)).context("failed to record which process holds the cluster up")
    }

    fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let (Some(pid), Some(started)) = (words.next(), words.next()) else {
            bail!("not in the form `PID START`: {text:?}");
        };
        Ok(Self {
            pid: pid.parse().context("no process id")?,
            started: started.parse().context("no start time")?,
        })
    }

    fn alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    started_by_stat(&text)
}

/// The 22nd field of proc(5)'s stat; the second is a name in parentheses and may hold anything. A zombie has no such time: it has ended.
fn started_by_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    match fields.first() {
        Some(&("Z" | "X")) | None => None,
        Some(_) => fields.get(19)?.parse().ok(),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_knows_its_own_process_and_no_other_of_the_same_id() {
        let own = Record::own().unwrap();
        assert!(own.alive());
        let earlier = Record {
            pid: own.pid,
            started: own.started - 1,
        };
        assert!(!earlier.alive());
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { pid: 41, started: 7 };
        record.write(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(RECORD)).unwrap();
        assert_eq!(Record::parse(&text).unwrap(), record);
        Record::parse("41").unwrap_err();
    }

    #[test]
    fn the_start_is_found_behind_any_name_and_a_zombie_has_none() {
        let stat = |state: &str| format!("7 (a) b (c) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 100 1");
        assert_eq!(started_by_stat(&stat("S")), Some(12345));
        assert_eq!(started_by_stat(&stat("Z")), None);
    }
}
