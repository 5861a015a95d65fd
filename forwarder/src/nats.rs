//! NATS as the publisher needs it: one connection is one object.

pub mod protocol;
