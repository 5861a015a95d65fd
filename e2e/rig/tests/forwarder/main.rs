//! The forwarder on real servers: what arrives, how often, and in which order.

#![allow(
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use e2e_rig::stage;

mod credentials;
mod denied;
mod failover;
mod group;
mod input;
mod original;
mod outages;
mod poison;
mod ring;
mod ring_file;
mod stream;
mod stream_faults;
