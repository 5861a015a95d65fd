//! What subscribers are told of the ring, on real servers. See `cargo e2e test subscribers`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod beacon;
mod follow;
mod mirror;
mod python;
mod site;
