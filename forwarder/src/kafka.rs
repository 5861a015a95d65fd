//! The Kafka side: clients, assignment, offsets.

pub mod client_config;
