//! Which version of the ring's document the pods read. Pure.
//!
//! A pod refuses a ring that has a field which it does not know, and `upgradePolicy: OnSpecChange` keeps old images running. So a newer
//! field is in the ring only when all who read that ring read the field. Each pod tells its version in `/status`. What pods of an image
//! have told is noted with the ring, so that a pod which does not answer yet, or an image that comes back, is known by its image.
//! A pod whose version is unknown changes nothing: the ring stays in the form that it has. So no pod can make the ring alternate.

use std::collections::{BTreeMap, BTreeSet};

use crds::asset_forwarder::UpgradePolicy;
use forwarder_core::document::{FIRST_RING_DOCUMENT_VERSION, RING_DOCUMENT_VERSION};

use super::dereference::Existing;
use super::members::{Members, Withheld};
use super::pods::Observed;
use super::recorded::Recorded;
use super::rollout;
use crate::reconcile::conditions::Words;
use crate::reconcile::reason::Reason;

/// What is known of those who read the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers {
    /// The version that the ring's document may have now.
    pub version: u32,
    /// What each pod reads that reads the ring, as far as it is known.
    pods: Vec<Option<u32>>,
    /// What pods of these images have told.
    images: BTreeMap<String, u32>,
    /// The image that pods begin with which are made next.
    next: Image,
    /// The image that a roll brings where the spec names none.
    default: Image,
    /// Whether the spec names the image.
    is_declared: bool,
}

/// An image, and what pods of it read as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    name: String,
    reads: Option<u32>,
}

impl Image {
    fn is_older_than(&self, version: u32) -> bool {
        self.reads.is_some_and(|reads| reads < version)
    }
}

/// Which images pods are made of.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// What the spec names.
    pub declared: Option<&'a str>,
    /// What a roll brings where the spec names none.
    pub default: &'a str,
    /// Whether a new default image rolls the pods.
    pub policy: UpgradePolicy,
    /// Whether a new ring rolls the pods: then they have it with their image, and do not watch it.
    pub ring_rolls: bool,
}

impl Images<'_> {
    /// The image that pods begin with which are made next.
    fn next(&self, existing: &Existing) -> String {
        let Self {
            declared,
            default,
            policy,
            ring_rolls,
        } = *self;
        let live = existing.deployment.as_ref().and_then(rollout::image);
        match (declared, policy, live) {
            (Some(declared), _, _) => declared.to_owned(),
            (None, UpgradePolicy::OnSpecChange, Some(live)) if !ring_rolls => live,
            (None, _, _) => default.to_owned(),
        }
    }
}

impl Readers {
    /// Of the pods that there are, and of the image of those to come.
    #[must_use]
    pub fn of(existing: &Existing, recorded: &Recorded, images: &Images<'_>) -> Self {
        let next = images.next(existing);
        // A pod that has its ring in its configuration began with that one, and reads no other.
        let is_reader = |pod: &&Observed| !pod.is_gone() && (pod.watches_ring || pod.image == next);
        let readers: Vec<&Observed> = existing.pods.iter().filter(is_reader).collect();

        let told = |pod: &Observed| pod.report.as_ref().map(|report| report.reads_documents());
        let mut lately = BTreeMap::<String, u32>::new();
        for (pod, version) in readers.iter().filter_map(|pod| Some((pod, told(pod)?))) {
            // An image that is another one under the same name counts as its oldest pod.
            let least = lately.entry(pod.image.clone()).or_insert(version);
            *least = version.min(*least);
        }
        // Who refuses what its configuration holds ends, and cannot tell. While others answer, they would suffer from such a guess.
        let may_guess = lately.is_empty();
        let mut known = recorded.readers.clone();
        known.extend(lately);
        let reads = |pod: &&Observed| {
            let guess = (may_guess && pod.overdue).then_some(FIRST_RING_DOCUMENT_VERSION);
            told(pod).or_else(|| known.get(&pod.image).copied()).or(guess)
        };
        let pods: Vec<Option<u32>> = readers.iter().map(reads).collect();

        let stays = recorded
            .document
            .as_ref()
            .map_or(FIRST_RING_DOCUMENT_VERSION, |document| document.document_version());
        let of_pods = pods.iter().map(|pod| pod.unwrap_or(stays));
        let image = |name: &str| Image {
            name: name.to_owned(),
            reads: known.get(name).copied(),
        };
        let (default, next) = (image(images.default), image(&next));
        let version = of_pods.chain(next.reads).chain([RING_DOCUMENT_VERSION]).min();
        let used = used(existing, &next.name);
        known.retain(|image, _| used.contains(image.as_str()));
        Self {
            version: version.unwrap_or(FIRST_RING_DOCUMENT_VERSION),
            pods,
            images: known,
            next,
            default,
            is_declared: images.declared.is_some(),
        }
    }

    /// What to note with the ring: nothing, unless a field is declared that only newer pods read.
    #[must_use]
    pub fn noted(&self, members: &Members) -> BTreeMap<String, u32> {
        if members.declares > FIRST_RING_DOCUMENT_VERSION {
            self.images.clone()
        } else {
            BTreeMap::new()
        }
    }

    /// Says what is withheld from the ring and what to do; none: nothing is.
    #[must_use]
    pub fn words(&self, members: &Members) -> Option<Words> {
        if members.withheld.is_empty() && !members.without_beacon && !members.without_mirror {
            return None;
        }
        let all = self.pods.len();
        let older = self.pods.iter().flatten().filter(|reads| **reads < members.declares);
        let (older, silent) = (older.count(), self.pods.iter().filter(|pod| pod.is_none()).count());
        let (of_members, of_others): (Vec<_>, Vec<_>) =
            members.withheld.iter().partition(|withheld| withheld.is_member);
        let mut parts = vec![match (older, silent) {
            (0, 0) => format!(
                "pods of the image {} are too old for the declared fields",
                self.next.name
            ),
            (0, silent) => format!("{silent} of {all} pods have not reported yet which fields of the ring they read"),
            (older, _) => format!("{older} of {all} pods are too old for the declared fields"),
        }];
        let own = [
            (members.without_beacon, "spec.ring.beacon"),
            (members.without_mirror, "spec.publish.mirrorMovedSeconds"),
        ];
        let own = own.into_iter().filter(|(is_without, _)| *is_without);
        let own = own.map(|(_, field)| field.to_owned());
        let lacking: Vec<String> = own.chain(of_members.into_iter().map(named)).collect();
        if !lacking.is_empty() {
            parts.push(format!("the ring goes on without {}", lacking.join(", ")));
        }
        if !of_others.is_empty() {
            let wanting: Vec<String> = of_others.into_iter().map(named).collect();
            parts.push(format!("clusters join when all pods read {}", wanting.join(", ")));
        }
        if older == 0 && silent > 0 {
            return Some(Words::new(Reason::PodsNotAsked, parts.join("; ")));
        }
        let remedy = if !self.next.is_older_than(members.declares) {
            "newer pods are rolling out"
        } else if self.is_declared {
            "set spec.image to a newer forwarder"
        } else if self.default.is_older_than(members.declares) {
            "the operator's default image is too old as well: set forwarderImage of its chart, or spec.image"
        } else {
            "roll the pods: change spec.podTemplate.annotations, or set upgradePolicy: Automatic"
        };
        parts.push(remedy.to_owned());
        Some(Words::new(Reason::PodsTooOld, parts.join("; ")))
    }
}

fn named(withheld: &Withheld) -> String {
    let Withheld {
        reference,
        fields,
        is_member: _,
    } = withheld;
    format!("{} of NatsCluster {reference}", fields.join(" and "))
}

/// Images that pods have, or may come to have again.
fn used<'a>(existing: &'a Existing, next: &'a str) -> BTreeSet<&'a str> {
    let sets = existing.replica_sets.iter();
    let kept = sets.filter_map(|set| rollout::image_in(set.spec.as_ref()?.template.as_ref()?));
    let pods = existing.pods.iter().map(|pod| pod.image.as_str());
    kept.chain(pods).chain([next]).collect()
}
