//! Offsets that no record has: compacted topics, transactions, records that expired before the group read them, and topics that are not what
//! they were.

mod anew;
mod compacted;
mod expired;
mod transactions;
