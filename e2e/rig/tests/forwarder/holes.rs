//! Offsets that no record has: compacted topics, transactions, records that expired before the group read them, topics that are not what
//! they were, and batches that cannot be read any more.

mod anew;
mod compacted;
mod damaged;
mod expired;
mod transactions;
