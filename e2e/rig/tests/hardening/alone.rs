//! Tests that change what all namespaces share: each runs while no other test does.

mod crowd;
mod versions;
