//! Offsets that no record has: compacted topics, transactions, records that expired before the group read them, and batches that cannot
//! be read any more.

mod compacted;
mod damaged;
mod expired;
mod transactions;
