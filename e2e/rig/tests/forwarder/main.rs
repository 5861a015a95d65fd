//! The forwarder on real servers, also on such that fail: what arrives, how often, and in which order. See `cargo e2e test forwarder`.

#![allow(
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use e2e_rig::stage;

mod credentials;
mod denied;
mod failover;
mod fencing;
mod frozen;
mod group;
mod handover;
mod holes;
mod homes;
mod input;
mod isolation;
mod lag;
mod original;
mod outages;
mod poison;
mod random;
mod ring;
mod ring_file;
mod stream;
mod stream_faults;
