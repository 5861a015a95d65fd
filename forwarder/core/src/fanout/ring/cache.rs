//! Owners of keys seen lately.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::{Place, Ring};

/// The longest key that is kept: with it a slot is one cache line. UUIDs (36 bytes) and the names of machines fit.
const MAX_KEY: usize = 51;
/// A length that no kept key has.
const VACANT: u8 = u8::MAX;

/// A ring, and the places of keys asked for lately, so that a busy asset's key is not hashed again.
///
/// Direct-mapped: a key has one slot and evicts what was in it, so memory never grows (64 bytes a slot) and no choice of
/// keys makes it slower than a miss. Keys over 51 bytes are not kept. A hit takes a tenth of the time of SHA-256 where
/// the processor has no instructions for that; see `benches/ring.rs`.
#[derive(Clone, Debug)]
pub struct OwnerCache {
    ring: Arc<Ring>,
    slots: Vec<Slot>,
    mask: usize,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Slot {
    lane: u64,
    owner: u32,
    len: u8,
    key: [u8; MAX_KEY],
}

#[cfg(test)]
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

impl OwnerCache {
    /// A cache in front of `ring` with `slots` slots, rounded up to a power of two. A new ring needs a new cache.
    #[must_use]
    pub fn new(ring: Arc<Ring>, slots: usize) -> Self {
        let slots = slots.clamp(1, 1 << 24).next_power_of_two();
        Self {
            ring,
            slots: vec![
                Slot {
                    lane: 0,
                    owner: 0,
                    len: VACANT,
                    key: [0; MAX_KEY]
                };
                slots
            ],
            mask: slots - 1,
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The same as [`Ring::place`].
    #[inline]
    pub fn place(&mut self, key: &[u8]) -> Place {
        if key.len() > MAX_KEY {
            return self.ring.place(key);
        }
        let slot = &mut self.slots[self.hasher.hash_one(key) as usize & self.mask];
        if usize::from(slot.len) == key.len() && slot.key[..key.len()] == *key {
            return Place {
                owner: slot.owner as usize,
                lane: slot.lane,
            };
        }
        let place = self.ring.place(key);
        slot.lane = place.lane;
        slot.owner = place.owner as u32;
        slot.len = key.len() as u8;
        slot.key[..key.len()].copy_from_slice(key);
        place
    }
}
