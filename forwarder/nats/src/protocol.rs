//! The NATS client protocol without any I/O: bytes in, operations out, and the reverse.

mod ack;
mod encode;
mod error;
mod parse;

pub use ack::{Ack, parse_ack};
pub use encode::{Connect, encode_connect, encode_ping, encode_pong, encode_pub, encode_queue_sub, encode_sub};
pub use error::ServerError;
pub use parse::{Limits, Message, Op, Parser, ProtocolError, ServerInfo};
