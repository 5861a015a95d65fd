//! Offsets that no record has: compacted topics, transactions, and records that expired before the group read them.

mod compacted;
mod expired;
mod transactions;
