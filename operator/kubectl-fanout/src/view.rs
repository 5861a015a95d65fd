//! What is shown: made of what was read, without I/O. Each view can be written as JSON or YAML, and has lines for people.

pub(crate) mod clusters;
pub(crate) mod declared;
pub(crate) mod diff;
pub(crate) mod drain;
pub(crate) mod live;
pub(crate) mod owner;
pub(crate) mod pods;
pub(crate) mod ring;
pub(crate) mod snapshot;
pub(crate) mod suspension;

#[cfg(test)]
pub(crate) mod samples;
