//! The subjects below which a ring is announced.

/// The subjects of one beacon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    base: String,
}

/// The queue group of those who answer [`Subjects::get`]: one of them does.
pub const QUEUE: &str = "fanout";

impl Subjects {
    /// Below `base`, a literal subject.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned() }
    }

    /// The default base of an AssetForwarder.
    #[must_use]
    pub fn default_base(namespace: &str, name: &str) -> String {
        // A dot would make another token of a name, and so a subject that another forwarder may have.
        format!("_FANOUT.{namespace}.{}", name.replace('.', "_"))
    }

    /// The base itself.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where a subscriber asks for the announcement. The body is a [`Request`](crate::Request).
    #[must_use]
    pub fn get(&self) -> String {
        format!("{}.get", self.base)
    }

    /// Where digests are published.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{}.digest", self.base)
    }

    /// Where a subscriber asks every pod to prove that it sees the subscriber's interest. The body is a
    /// [`Request`](crate::Request).
    #[must_use]
    pub fn ready(&self) -> String {
        format!("{}.ready", self.base)
    }

    /// Where pods tell each other how far they are.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("{}.pods", self.base)
    }
}
