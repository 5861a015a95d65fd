//! What the forwarder promises, on real servers that fail: what it costs when a part is away, and that nothing is lost or out of order.

#![allow(
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod fencing;
mod frozen;
mod handover;
mod holes;
mod homes;
mod isolation;
mod lag;
mod poison;
mod random;
