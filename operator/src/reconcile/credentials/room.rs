//! How much a forwarder's Secret of credentials may hold. Pure.
//! Kubernetes accepts a Secret of 1 MiB, and refuses the write of a larger one as a whole. That write is the first of all, so no
//! write after it would be made: no renewal, no member, no rollout. So credentials that do not fit are kept out before.

use std::collections::BTreeMap;

use super::{CredentialsError, Files};

/// Bytes up to which a newcomer is taken in.
const MOST_FOR_NEWCOMERS: usize = 900 << 10;

/// Bytes up to which the credentials of those grow that are in it: what is kept free of newcomers is for their renewal. The rest up to
/// 1 MiB is for the version, and for what this counts too low.
const MOST_IN_ALL: usize = 1_000 << 10;

/// A Secret as it is, and what is promised of it.
#[derive(Clone, Debug)]
pub struct Room<'a> {
    stored: &'a Files,
    /// What each file takes, with its name.
    taken: BTreeMap<String, usize>,
    bytes: usize,
}

impl<'a> Room<'a> {
    /// Of a Secret with these files. All of them count: while pods are behind, none is taken out.
    #[must_use]
    pub fn of(stored: &'a Files) -> Self {
        let taken: BTreeMap<_, _> = stored.iter().map(|(name, bytes)| cost(name, bytes)).collect();
        Self {
            stored,
            bytes: taken.values().sum(),
            taken,
        }
    }

    /// The files that are in the Secret now.
    #[must_use]
    pub const fn stored(&self) -> &'a Files {
        self.stored
    }

    /// Makes room for the files of a newcomer.
    ///
    /// # Errors
    /// [`CredentialsError::NoRoom`]: nothing has changed.
    pub fn take_in(&mut self, files: &Files) -> Result<(), CredentialsError> {
        self.put(files, MOST_FOR_NEWCOMERS)
    }

    /// Makes room for the files of one that is in it already.
    ///
    /// # Errors
    /// [`CredentialsError::NoRoom`]: nothing has changed. What does not grow always fits.
    pub fn renew(&mut self, files: &Files) -> Result<(), CredentialsError> {
        self.put(files, MOST_IN_ALL)
    }

    fn put(&mut self, files: &Files, most: usize) -> Result<(), CredentialsError> {
        let costs = || files.iter().map(|(name, bytes)| cost(name, bytes));
        let replaced = costs().filter_map(|(name, _)| self.taken.get(&name));
        let added: usize = costs().map(|(_, bytes)| bytes).sum();
        let all = (self.bytes + added).saturating_sub(replaced.sum());
        if all > most.max(self.bytes) {
            return Err(CredentialsError::NoRoom {
                kib: files.bytes().div_ceil(1 << 10),
                all_kib: all.div_ceil(1 << 10),
                most_kib: most >> 10,
            });
        }
        self.taken.extend(costs());
        self.bytes = all;
        Ok(())
    }
}

fn cost(name: &str, bytes: &[u8]) -> (String, usize) {
    (name.to_owned(), name.len() + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(name: &str, kib: usize) -> Files {
        Files::from(BTreeMap::from([(name.to_owned(), vec![b'x'; kib << 10])]))
    }

    #[test]
    fn newcomers_leave_room_for_the_renewal_of_those_who_are_in() {
        let stored = files("a", 600);
        let mut room = Room::of(&stored);
        let error = room.take_in(&files("b", 300)).unwrap_err();
        assert_eq!(error.reason(), "SecretInvalid");
        let said = error.to_string();
        assert!(
            said.contains("300 KiB") && said.contains("901 KiB") && said.contains("900 KiB"),
            "{said}"
        );
        assert_eq!(room.take_in(&files("c", 299)), Ok(()), "a smaller one fits");
        assert_eq!(room.renew(&files("a", 700)), Ok(()));
        assert!(room.renew(&files("a", 720)).is_err());
    }

    #[test]
    fn what_does_not_grow_fits_also_where_there_is_too_much() {
        let stored = files("a", 1_020);
        let mut room = Room::of(&stored);
        assert_eq!(room.renew(&files("a", 1_020)), Ok(()));
        assert!(room.renew(&files("a", 1_021)).is_err());
        assert_eq!(room.renew(&files("a", 1_010)), Ok(()));
        assert!(room.renew(&files("a", 1_011)).is_err());
    }
}
