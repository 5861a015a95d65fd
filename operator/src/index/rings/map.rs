//! What a ring's ConfigMap has on it: the AssetForwarder's controller writes it, every replica reads it.

/// The label by which an object tells its forwarder's name.
pub const FORWARDER: &str = "fanout.openfactory.io/forwarder";
/// The label by which a ConfigMap tells what it is for.
pub const COMPONENT: &str = "fanout.openfactory.io/component";
/// The component of a ring's ConfigMap.
pub const RING: &str = "ring";
/// On a ring's ConfigMap: there are no members now, and the document is the last one that there was.
pub const IDLE: &str = "fanout.openfactory.io/idle";
/// The key of the ring in its ConfigMap, and its file's name.
pub const RING_FILE: &str = "ring.yaml";
