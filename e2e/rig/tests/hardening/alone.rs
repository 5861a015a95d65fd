//! Tests that change what all namespaces share, or whose operator watches all of them: each runs while no other test does.

mod crowd;
mod flood;
mod flux;
mod namespaces;
mod neighbours;
mod versions;
