//! Who gets a record, and what they get.
//!
//! A hash ring says which cluster owns the asset of a record. The modules stand in the order in which a record meets them:
//!
//! 1. [`route`]: a record becomes a message. It uses, in this order:
//!    - [`clock`]: times as text;
//!    - [`payload`]: the edit that yields body and ID;
//!    - [`headers`]: Kafka headers as NATS headers;
//!    - [`ring`]: which cluster owns the key.
//! 2. [`dispatch`]: who gets the record, who waits, and what is parked. It says by [`delivery`](crate::delivery) what may be
//!    committed.
//! 3. [`mirror`]: which former owners get a copy, for subscribers that stay there.
//! 4. [`table`]: the answer to whoever asks for an asset's owner.

pub mod route;

pub mod clock;
pub mod headers;
pub mod payload;
pub mod ring;

pub mod dispatch;

pub mod mirror;

pub mod table;
