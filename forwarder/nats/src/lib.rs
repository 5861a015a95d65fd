//! NATS as the publisher needs it: one connection is one object.
//!
//! A client library hides reconnects, and with them the answer to "was this record accepted?". Here a [`Connection`]
//! never reconnects: it is a socket after its handshake, whose operations the caller writes and reads in order, so that
//! a fence (a PONG that left after the record, with no `-ERR` before it) proves what it should.
//!
//! ```text
//! ServerPool ─▶ connect ─▶ Connection{info, io, leftover}      server, race, credentials, tls, connection
//!                              │ encode_pub … ▼ ▲ … Parser      protocol
//! ensure_stream ─▶ Client, by async-nats                          stream (JetStream only: before the first publish, and when acks do not come)
//! ```

pub mod client;
pub mod connection;
pub mod credentials;
pub mod gate;
pub mod jetstream;
pub mod protocol;
pub mod race;
pub mod server;
pub mod stream;
pub mod tls;

pub use connection::{ConnectError, Connection, Guarded, Io, Login, connect};
pub use gate::WriteGate;
pub use server::{ServerAddress, ServerPool};
pub use stream::ensure_stream;
