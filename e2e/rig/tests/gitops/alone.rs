//! A tool that changes what all namespaces share: each test runs while no other does.

mod flux;
