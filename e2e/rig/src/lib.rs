//! Real Kafka, real NATS, traffic and an observer: what the end-to-end tests, the demo and the benchmarks stand on.
//!
//! ```text
//! traffic ─▶ kafka ─▶ (proxy) ─▶ forwarder ─▶ (proxy) ─▶ nats ─▶ observer
//!    │                                                             │
//!    └──────────── ledger: what was sent ───────────▶ verdict ◀────┘
//! ```
//! Each part ends what it started when it is dropped. Nothing here sleeps for luck: see [`wait::eventually`]. A test begins
//! with a [`stage::Stage`].

pub mod certificates;
pub mod cluster;
pub mod crowd;
pub mod flux;
pub mod followers;
pub mod forwarder;
pub mod http;
pub mod interrupts;
pub mod kafka;
pub mod kubernetes;
pub mod manifests;
pub mod nats;
pub mod observer;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod random;
pub mod site;
pub mod stage;
pub mod traffic;
pub mod transitions;
pub mod verdict;
pub mod wait;

pub use e2e::{port, process, tools};
