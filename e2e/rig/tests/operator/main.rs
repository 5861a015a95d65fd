//! The operator and its images on a real Kubernetes: see `cargo e2e test operator`.

mod cluster;
