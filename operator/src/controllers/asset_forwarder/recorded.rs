//! What the ring's ConfigMap says: the document that pods run, and what else must survive a restart of the operator.
//!
//! All of it is in one object, so that it changes in one write.

use std::collections::BTreeMap;

use forwarder_core::document::RingConfig;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use super::names;

/// A ring and its surroundings, as written or as found. Empty: nothing was written yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// What pods run; none: nothing was written, or somebody has broken it.
    pub document: Option<RingConfig>,
    /// The members that the document declares: ring name to `namespace/name`. Empty while the ring is idle.
    pub members: BTreeMap<String, String>,
    /// Clusters that some pod may still publish to: `namespace/name` to ring name.
    pub leaving: BTreeMap<String, String>,
    /// The share of the hash space that the last change moved, in percent.
    pub moved_percent: Option<String>,
    /// Which version of the document the pods of each image read, as they report it. Empty unless a field is declared that only
    /// newer pods read.
    pub readers: BTreeMap<String, u32>,
    /// Whether there are no members now; the document is then the last one that there was.
    pub idle: bool,
}

impl Recorded {
    /// As found. Where nobody can tell who the members were, all of `known` (`namespace/name`) are taken to be leaving: some pod may
    /// still publish to them.
    #[must_use]
    pub fn read(map: Option<&ConfigMap>, known: impl IntoIterator<Item = String>) -> Self {
        let annotated = |name| map.and_then(|map| map.annotations().get(name));
        let pairs = |name| {
            let text: Option<&String> = annotated(name);
            text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok())
        };
        let text = map.and_then(|map| map.data.as_ref()?.get(names::RING_FILE));
        let document = text.and_then(|text| RingConfig::from_yaml(text).ok());
        let readers = annotated(names::READERS).and_then(|text| serde_json::from_str(text).ok());
        let readers = readers.unwrap_or_default();
        let (Some(members), Some(leaving)) = (pairs(names::MEMBERS), pairs(names::LEAVING)) else {
            // Of a name in the ring that is not known the pods' epoch must tell enough.
            let leaving = known.into_iter().map(|reference| (reference, String::new()));
            return Self {
                document,
                leaving: leaving.collect(),
                readers,
                ..Self::default()
            };
        };
        Self {
            document,
            members,
            leaving,
            moved_percent: annotated(names::MOVED_PERCENT).cloned(),
            readers,
            idle: annotated(names::IDLE).is_some(),
        }
    }

    /// The annotations that say all but the document.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let Self {
            document: _,
            members,
            leaving,
            moved_percent,
            readers,
            idle,
        } = self;
        let mut annotations = BTreeMap::from([
            (names::MEMBERS.to_owned(), json(members)),
            (names::LEAVING.to_owned(), json(leaving)),
        ]);
        if let Some(moved) = moved_percent {
            annotations.insert(names::MOVED_PERCENT.to_owned(), moved.clone());
        }
        if !readers.is_empty() {
            annotations.insert(names::READERS.to_owned(), serde_json::json!(readers).to_string());
        }
        if *idle {
            annotations.insert(names::IDLE.to_owned(), "true".to_owned());
        }
        annotations
    }

    /// The epoch of the document; 0 without one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.document.as_ref().map_or(0, |document| document.epoch)
    }
}

fn json(pairs: &BTreeMap<String, String>) -> String {
    serde_json::json!(pairs).to_string()
}
