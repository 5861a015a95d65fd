//! What is settled behind a committed offset, made short enough for a commit.

use super::MAX_LEN;

/// What is settled behind the committed offset: everything below `upto`, except the records of some clusters and assets. Told only
/// under the ring that the metadata names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The fingerprint of the ring that says which records are a cluster's.
    pub members: u64,
    /// Where to go on with all that is not excepted.
    pub upto: i64,
    /// Clusters with the offset of the first of their records that may not be settled.
    pub away: Vec<(String, i64)>,
    /// Lanes with the offset of the first of their records that may not be settled, and the name of the cluster that owns each. What
    /// is said of a lane goes before what is said of its cluster.
    pub lanes: Vec<AwayLane>,
}

/// An asset of which not everything is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwayLane {
    /// Its lane.
    pub lane: u64,
    /// The first of its records that may not be settled.
    pub from: i64,
    /// The cluster that owns it under the ring that the metadata names.
    pub cluster: String,
}

/// More lanes than this are told by their clusters.
pub(crate) const MAX_LANES: usize = 48;

/// What clusters may take of the text, and lanes twice of it, where both are told.
const ROOM: usize = MAX_LEN / 5;

impl Ahead {
    /// Makes the text short enough to be committed: what does not fit is not told, so it is delivered again.
    pub(super) fn fit(&self) -> Self {
        if self.lanes.is_empty() {
            return self.fit_into(MAX_LEN - 200);
        }
        let mut told = self.clone();
        told.lanes.sort_by_key(|lane| (lane.from, lane.lane));
        let rest = told.lanes.split_off(told.lanes.len().min(MAX_LANES));
        // Those that are too many are their clusters' matter.
        for lane in &rest {
            note(&mut told.away, &lane.cluster, lane.from);
        }
        told = told.fit_into(ROOM);
        let (clusters, upto) = (&told.away, told.upto);
        told.lanes.retain(|lane| {
            // A cluster that is away from there on says as much.
            let around = clusters.iter().find(|(name, _)| *name == lane.cluster);
            lane.from <= upto && around.map_or(lane.from < upto, |(_, from)| *from != lane.from)
        });
        let mut len = 0;
        let fitting = told.lanes.iter().take_while(|lane| {
            // Two colons, a comma, sixteen and up to twenty digits.
            len += 3 * lane.cluster.len() + 40;
            len <= 2 * ROOM
        });
        let fitting = fitting.count();
        for lane in told.lanes.split_off(fitting) {
            note(&mut told.away, &lane.cluster, lane.from);
        }
        let told = told.fit_into(ROOM);
        if told.upto < self.upto {
            // The clusters alone need the room. Each of them says what its lanes do, and more.
            let plain = self.all_by_clusters().fit_into(MAX_LEN - 200);
            if plain.upto > told.upto {
                return plain;
            }
        }
        told
    }

    /// The same without lanes: each is a matter of its cluster.
    fn all_by_clusters(&self) -> Self {
        let mut plain = Self {
            lanes: Vec::new(),
            ..self.clone()
        };
        for lane in &self.lanes {
            note(&mut plain.away, &lane.cluster, lane.from);
        }
        plain
    }

    /// What is said without lanes: each is a matter of its cluster.
    pub(super) fn without_lanes(&self) -> Self {
        self.all_by_clusters().fit_into(ROOM)
    }

    fn fit_into(&self, room: usize) -> Self {
        let mut away = self.away.clone();
        away.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let mut upto = self.upto;
        let mut len = 0;
        let fitting = away.iter().take_while(|(name, _)| {
            // A colon, a comma, up to twenty digits; each byte of the name takes three where it is encoded.
            len += 3 * name.len() + 22;
            len <= room
        });
        let fitting = fitting.count();
        if let Some((_, from)) = away.get(fitting) {
            upto = upto.min(*from);
        }
        away.truncate(fitting);
        away.retain(|(_, from)| *from < upto);
        Self {
            members: self.members,
            upto,
            away,
            lanes: self.lanes.clone(),
        }
    }
}

/// A cluster is away from there on, at the latest.
fn note(away: &mut Vec<(String, i64)>, cluster: &str, from: i64) {
    match away.iter_mut().find(|(name, _)| name == cluster) {
        Some((_, first)) => *first = from.min(*first),
        None => away.push((cluster.to_owned(), from)),
    }
}
