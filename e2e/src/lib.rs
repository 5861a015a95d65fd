//! What the runner (`cargo e2e`) and the rig share: where the tools are, and how servers are started and ended.
//!
//! It needs nothing but Rust and a C linker, because the runner installs everything else. The rig adds the clients.

pub mod broker;
pub mod cluster;
pub mod port;
pub mod process;
pub mod tools;
