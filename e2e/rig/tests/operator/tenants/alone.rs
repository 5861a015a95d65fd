//! An operator that watches all namespaces, and what those may do who are in another one: each test runs while no other does.

mod flood;
mod grants;
mod neighbours;
