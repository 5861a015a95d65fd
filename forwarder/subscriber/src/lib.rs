//! Subscriptions that follow their asset.
//!
//! Records of an asset go to the NATS cluster that owns it. When the ring changes, the asset moves, and a subscriber of one cluster
//! hears nothing more. This client learns the ring on NATS, reads both sides of a move, and puts the records into one order.
//!
//! ```no_run
//! # async fn follow() -> Result<(), Box<dyn std::error::Error>> {
//! use fanout_client::{Login, Options, Pin};
//!
//! // `status.beacon` of the AssetForwarder.
//! let pin = Pin::new("UAB2…", "2f6c1e0a-…", "_FANOUT.plant.assets");
//! let client = Options::new(pin)
//!     .credentials(|_cluster| Login::user("reader", "secret"))
//!     .allow_hosts(["*.plant.example"])
//!     .connect(["tls://c1.plant.example:4222"])
//!     .await?;
//! let mut records = client.subscribe("PLC-17").await?;
//! while let Some(record) = records.next().await {
//!     println!("{} {}", record.subject, String::from_utf8_lossy(&record.payload));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! For core NATS, where each cluster has one server:
//!
//! - A move misses nothing. Records of an asset come in order, and each once.
//! - Every record that is missing is covered by a [`Gap`], which [`Client::events`] tells.
//! - A record that came after a later one of its partition is an [`Event::Late`]. It is in no stream.
//!
//! Servers of one cluster pass on messages of two connections in another order than they took them in. So the client waits a
//! little longer at a move ([`Limits::settle`]), and late records are possible.
//!
//! Without origins in the headers repeats cannot be told ([`Event::AtLeastOnce`]).
//!
//! A forwarder that publishes into a stream is refused with [`JetStreamError`].

mod client;
mod dial;
mod error;
mod event;
mod hosts;
mod limits;
mod link;
mod login;
mod merge;
mod message;
mod network;
mod nonce;
mod once;
mod options;
mod origin;
mod pump;
mod queue;
mod request;
mod state;
mod subject;
mod subscription;

/// The manual's example is compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../../charts/docs/src/subscribers.md")]
struct Manual;

pub use async_nats::{HeaderMap, Subject};
pub use forwarder_beacon::KeyError;

pub use client::{Client, Counters};
pub use error::{ConnectError, JetStreamError, SubjectError, SubscribeError};
pub use event::{Event, Events, Gap, GapReason, RingState};
pub use limits::{Limits, Pin, Repeats};
pub use login::{Login, LoginError};
pub use message::Message;
pub use options::Options;
pub use origin::Origin;
pub use subscription::Subscription;
