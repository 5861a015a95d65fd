//! The ring that is declared: the ConfigMap that the operator writes for a forwarder.

use std::collections::BTreeMap;

use crds::{AssetForwarder, NatsCluster};
use forwarder_core::document::RingConfig;
use forwarder_core::fanout::ring::{Ring, RingError, moved};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource as _, ResourceExt as _};

use crate::fault::Fault;

/// The key of the ring in its ConfigMap.
const RING_FILE: &str = "ring.yaml";
/// The annotation of a ring without members: the document is then the last one that there was.
const IDLE: &str = "fanout.openfactory.io/idle";
/// The annotation with the members: ring name to `namespace/name`.
const MEMBERS: &str = "fanout.openfactory.io/members";
/// The annotation with clusters that some pod may still publish to: `namespace/name` to ring name.
const LEAVING: &str = "fanout.openfactory.io/leaving";
/// The annotation with the share that the last change moved, in percent.
const MOVED_PERCENT: &str = "fanout.openfactory.io/moved-percent";

/// A name that no cluster of a checked ring has.
const NOBODY: &str = "\0";

/// The name of a forwarder's ring's ConfigMap.
pub(crate) fn map_name(forwarder: &str) -> String {
    format!("{forwarder}-ring")
}

/// The name of a cluster in rings.
pub(crate) fn ring_name(cluster: &NatsCluster) -> String {
    cluster.spec.ring_name.clone().unwrap_or_else(|| cluster.name_any())
}

/// The ring of a forwarder, as declared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    /// The document that pods read. It has members even if there are none now.
    pub(crate) config: RingConfig,
    /// Whether there are no members now.
    pub(crate) idle: bool,
    /// The members' objects: ring name to `namespace/name`.
    pub(crate) members: BTreeMap<String, String>,
    /// Clusters that some pod may still publish to: `namespace/name` to ring name.
    pub(crate) leaving: BTreeMap<String, String>,
    /// The share that the last change moved, in percent.
    pub(crate) moved_percent: Option<String>,
}

impl Declared {
    /// What the ConfigMap says. It counts only if the forwarder controls it, by name and UID: anybody may write a ConfigMap with its name
    /// and labels.
    ///
    /// # Errors
    /// [`Fault::NotFound`]: there is no ring yet. [`Fault::Ring`]: the ConfigMap is no ring of this forwarder.
    pub(crate) fn read(map: Option<&ConfigMap>, forwarder: &AssetForwarder) -> Result<Self, Fault> {
        let name = forwarder.name_any();
        let map_name = map_name(&name);
        let Some(map) = map else {
            return Err(Fault::NotFound(format!(
                "the AssetForwarder {name} has no ring yet: there is no ConfigMap {map_name}. {}",
                reason(forwarder)
            )));
        };
        if !is_controlled_by(map, forwarder) {
            return Err(Fault::Ring(format!(
                "the ConfigMap {map_name} is not the ring of the AssetForwarder {name}: it has another controller. Delete the \
                 ConfigMap, and the operator writes the ring"
            )));
        }
        let broken = |why: &dyn std::fmt::Display| {
            // Whoever wrote it chose how much is wrong with it.
            let why: String = why.to_string().chars().take(1_000).collect();
            Fault::Ring(format!(
                "failed to read the ring in the ConfigMap {map_name}: {why}. If the operator is newer than this program, install the \
                 newer one"
            ))
        };
        let text = map.data.as_ref().and_then(|data| data.get(RING_FILE));
        let text = text.ok_or_else(|| broken(&format!("it has no key {RING_FILE}")))?;
        let config = RingConfig::from_yaml(text).map_err(|error| broken(&error))?;
        config.check().map_err(|error| broken(&error))?;
        let annotated = |name| map.annotations().get(name);
        let pairs = |name| {
            let text: Option<&String> = annotated(name);
            text.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok())
                .unwrap_or_default()
        };
        Ok(Self {
            config,
            idle: annotated(IDLE).is_some(),
            members: pairs(MEMBERS),
            leaving: pairs(LEAVING),
            moved_percent: annotated(MOVED_PERCENT).cloned(),
        })
    }

    /// The members' names and weights.
    pub(crate) fn weights(&self) -> BTreeMap<String, u32> {
        let clusters = self.config.clusters.iter();
        clusters.map(|cluster| (cluster.name.clone(), cluster.weight)).collect()
    }

    /// The ring of these members, with the declared number of virtual nodes.
    ///
    /// # Errors
    /// [`Fault::Ring`]: they make no ring.
    pub(crate) fn ring_of(&self, weights: &BTreeMap<String, u32>) -> Result<Ring, Fault> {
        let members = weights.iter().map(|(name, weight)| (name.clone(), *weight));
        Ring::new(members, self.config.replicas).map_err(|error| fault(&error))
    }

    /// The share of the hash space that each member owns, from 0 to 1.
    ///
    /// # Errors
    /// [`Fault::Ring`]: the members make no ring.
    pub(crate) fn shares(&self) -> Result<BTreeMap<String, f64>, Fault> {
        let ring = self.ring_of(&self.weights())?;
        // What would go to a member that owns everything is what each one has.
        let nobody = Ring::new([(NOBODY.to_owned(), 1)], 1).map_err(|error| fault(&error))?;
        let shifts = moved(&ring, &nobody).into_iter();
        Ok(shifts.map(|shift| (shift.from, shift.share)).collect())
    }
}

fn fault(error: &RingError) -> Fault {
    Fault::Ring(error.to_string())
}

/// Whether an object is the child of a forwarder: kind, name and UID of its controller agree.
fn is_controlled_by(map: &ConfigMap, forwarder: &AssetForwarder) -> bool {
    let Some(uid) = forwarder.uid().filter(|uid| !uid.is_empty()) else {
        return false;
    };
    let mut controllers = map
        .owner_references()
        .iter()
        .filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.kind == AssetForwarder::kind(&())
            && group == AssetForwarder::group(&())
            && owner.name == forwarder.name_any()
            && owner.uid == uid
    })
}

/// What the forwarder's status says of its being ready.
pub(crate) fn reason(forwarder: &AssetForwarder) -> String {
    let conditions = forwarder.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready) => format!("Its status says {}: {}", ready.reason, ready.message),
        None => "The operator has not looked at it yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples::{forwarder, ring_map};

    #[test]
    fn a_ring_is_read_with_its_surroundings() {
        let declared = Declared::read(Some(&ring_map(7, &["C1", "C2"])), &forwarder()).unwrap();
        assert_eq!((declared.config.epoch, declared.idle), (7, false));
        assert_eq!(declared.members["C1"], "plant/c1");
        assert_eq!(declared.moved_percent.as_deref(), Some("12.5"));
        let shares = declared.shares().unwrap();
        assert_eq!(shares.len(), 2);
        let whole: f64 = shares.values().sum();
        assert!((whole - 1.0).abs() < 1e-12, "{shares:?}");
        assert!(shares.values().all(|share| (0.3..0.7).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_config_map_of_somebody_else_is_no_ring() {
        let own = ring_map(7, &["C1"]);
        let change = |change: &dyn Fn(&mut ConfigMap)| {
            let mut map = own.clone();
            change(&mut map);
            Declared::read(Some(&map), &forwarder()).unwrap_err()
        };
        let owner = |map: &mut ConfigMap, uid: &str| {
            map.metadata.owner_references.as_mut().unwrap()[0].uid = uid.to_owned();
        };
        for fault in [
            change(&|map| map.metadata.owner_references = None),
            change(&|map| owner(map, "another")),
            change(&|map| map.metadata.owner_references.as_mut().unwrap()[0].controller = None),
            change(&|map| map.metadata.owner_references.as_mut().unwrap()[0].kind = "Deployment".to_owned()),
            change(&|map| map.metadata.owner_references.as_mut().unwrap()[0].name = "other".to_owned()),
        ] {
            assert!(fault.to_string().contains("another controller"), "{fault}");
        }
        // Of a forwarder without a UID nothing is a child, whatever it says.
        let mut forwarder = forwarder();
        forwarder.metadata.uid = Some(String::new());
        let mut map = own.clone();
        owner(&mut map, "");
        assert!(Declared::read(Some(&map), &forwarder).is_err());
    }

    #[test]
    fn what_is_no_ring_is_named() {
        let told = |text: Option<&str>| {
            let mut map = ring_map(7, &["C1"]);
            map.data = text.map(|text| BTreeMap::from([(RING_FILE.to_owned(), text.to_owned())]));
            Declared::read(Some(&map), &forwarder()).unwrap_err().to_string()
        };
        assert!(told(None).contains("no key ring.yaml"));
        assert!(told(Some("epoch: 1\nclusters: []\nnewer: 1\n")).contains("newer"));
        assert!(told(Some("epoch: 1\nclusters: []\n")).contains("clusters"));
        let missing = Declared::read(None, &forwarder()).unwrap_err();
        assert!(matches!(missing, Fault::NotFound(_)), "{missing}");
        assert!(missing.to_string().contains("Forwarding: all is well"), "{missing}");
    }
}
