//! The control groups of an instance: one directory in each hierarchy, beneath which the kubelet makes its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Between the death of the last process and the moment when the kernel lets its group go.
const SETTLE: Duration = Duration::from_secs(10);

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Version 1: a controller or two each.
    One(PathBuf),
    /// Version 2: all controllers, or on a hybrid machine none.
    Two(PathBuf),
}

/// Makes the group in every hierarchy: the kubelet wants to find its root.
pub(super) fn create(name: &str) -> Result<()> {
    for hierarchy in mounted()? {
        let (Hierarchy::One(mount) | Hierarchy::Two(mount)) = &hierarchy;
        if matches!(hierarchy, Hierarchy::Two(_)) {
            hand_down(mount)?;
        }
        let group = mount.join(name);
        fs::create_dir_all(&group).with_context(|| format!("failed to make the control group {}", group.display()))?;
        if matches!(hierarchy, Hierarchy::Two(_)) {
            hand_down(&group)?;
        }
    }
    Ok(())
}

/// Removes the group and all beneath it from every hierarchy.
pub(super) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    for hierarchy in mounted()? {
        let (Hierarchy::One(mount) | Hierarchy::Two(mount)) = hierarchy;
        let group = mount.join(name);
        while let Err(error) = remove_tree(&group) {
            if Instant::now() >= deadline {
                bail!("failed to remove the control group {}: {error}", group.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// From the leaves up: a group's files cannot be removed, and need not.
fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Version 2: children get only the controllers that their parent lists.
fn hand_down(group: &Path) -> Result<()> {
    let there = group.join("cgroup.controllers");
    let controllers = fs::read_to_string(&there).with_context(|| format!("failed to read {}", there.display()))?;
    for controller in controllers.split_whitespace() {
        // One that is refused is missed by the kubelet, with a better message, if it needs that one.
        drop(fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        ));
    }
    Ok(())
}

fn mounted() -> Result<Vec<Hierarchy>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    Ok(hierarchies(&text))
}

/// Those in the form of proc(5): `36 35 98:0 /root /mount options - type source options`.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount) = before.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let hierarchy = match after.split(' ').next() {
            Some("cgroup") => Hierarchy::One(mount),
            Some("cgroup2") => Hierarchy::Two(mount),
            _ => continue,
        };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_has_hierarchies_of_both_versions() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup rw shared:5 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:6 - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(
            hierarchies(mountinfo),
            [
                Hierarchy::One("/sys/fs/cgroup/cpu".into()),
                Hierarchy::Two("/sys/fs/cgroup/unified".into())
            ]
        );
    }

    #[test]
    fn a_tree_goes_from_its_leaves_and_one_that_is_not_there_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("group");
        fs::create_dir_all(group.join("pods/pod/container")).unwrap();
        fs::create_dir_all(group.join("system")).unwrap();
        remove_tree(&group).unwrap();
        assert!(!group.exists());
        remove_tree(&group).unwrap();
    }
}
