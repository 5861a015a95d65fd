//! Where records go.
//!
//! - [`nats`]: the clusters, each with a task of its own.
//! - [`dead_letter`]: a Kafka topic or a file, for records that can never be forwarded.

pub mod dead_letter;
pub mod nats;
