//! In the hands of tools that apply what a repository says and wait until it is healthy. See `cargo e2e test gitops`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod alone;
mod argo_cd;
mod examples;
mod kstatus;
