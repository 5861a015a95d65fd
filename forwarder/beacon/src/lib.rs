//! What forwarders tell subscribers of their ring, as a contract between both.
//!
//! ```text
//!                      BASE.get     a request ──▶ any pod ──▶ the announcement
//!  subscriber ◀──▶     BASE.digest  now and then: which announcement is the newest
//!                      BASE.ready   a request ──▶ every pod answers through the connection by which it publishes
//!  pod ◀──▶ pod        BASE.pods    how far each partition is beyond older rings
//! ```
//!
//! BASE is the subject that the ring's document declares. Every body is signed by the forwarder's nkey: see [`signed`]. The subjects
//! are in [`subjects`], the bodies in [`body`]. [`known`] is what a subscriber makes of what it hears: it only ever learns, so that the
//! order of answers does not matter and an old one that somebody sends again changes nothing.
//!
//! Pure: no socket, no clock.

pub mod body;
pub mod known;
pub mod signed;
pub mod subjects;

pub use body::{Announcement, Body, Digest, Phase, Publishing, Ready, Request, RingView, Statement};
pub use known::{Known, KnownRing, Learned};
pub use signed::{KeyError, OpenError, Signer, Verifier};
pub use subjects::Subjects;
