//! How subscribers learn of the ring.

use super::subject::check_literal;
use crate::document::Beacon;
use crate::document::fault::Faults;
use crate::subject::is_reserved;

/// Longest subject below which a ring is announced. Servers refuse longer ones at 4096 bytes, and tokens come behind it.
const MAX_BEACON_SUBJECT: usize = 1_024;

/// Longest time that subscribers are given to learn of a ring.
const MAX_GRACE_MS: u64 = 3_600_000;

pub(super) fn check_beacon(faults: &mut Faults<'_>, beacon: &Beacon, handover_timeout_ms: u64) {
    let Beacon {
        subject,
        ring,
        key_file,
        grace_ms,
    } = beacon;
    let mut at = faults.at("subject");
    check_literal(&mut at, subject, "_FANOUT.plant.assets");
    if is_reserved(subject.as_bytes()) {
        at.add(
            format!("{subject:?} begins with a token that NATS reserves"),
            "begin with another one, such as _FANOUT",
        );
    }
    if subject.len() > MAX_BEACON_SUBJECT {
        at.add(
            format!("is longer than {MAX_BEACON_SUBJECT} bytes"),
            "write a shorter one",
        );
    }
    let mut at = faults.at("ring");
    if at.text(ring) && ring.len() > 253 {
        at.add("is longer than 253 bytes", "write a shorter text");
    }
    faults.at("keyFile").file(key_file);
    let mut at = faults.at("graceMs");
    at.range(*grace_ms, 0, MAX_GRACE_MS);
    if (handover_timeout_ms..=MAX_GRACE_MS).contains(grace_ms) && *grace_ms > 0 {
        at.add(
            format!("{grace_ms} is not less than handoverTimeoutMs ({handover_timeout_ms}), which begins after it"),
            "lower it, or raise handoverTimeoutMs",
        );
    }
}
