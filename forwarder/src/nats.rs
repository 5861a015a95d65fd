//! NATS as the publisher needs it: one connection is one object.

pub mod connection;
pub mod credentials;
pub mod protocol;
pub mod server;
pub mod tls;
