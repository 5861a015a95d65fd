//! Tests of an operator that watches all namespaces: each runs while no other test does.

mod grants;
