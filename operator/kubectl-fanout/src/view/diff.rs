//! What a change of the ring would move, before it is made.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use crds::NatsCluster;
use forwarder_core::fanout::ring::{Ring, moved};
use kube::ResourceExt as _;
use serde::Serialize;

use super::declared::{Declared, ring_name};
use crate::fault::Fault;
use crate::table::{Table, percent};
use crate::text::clean;

/// Assets that are made up to find examples, at most. Of a change that moves so little that none of them moves, none is shown.
const MADE_UP: u32 = 100_000;

/// A cluster that is to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joins {
    /// Its name in the ring, or its object's.
    pub(crate) name: String,
    /// Its weight; none: that of its object, or 1.
    pub(crate) weight: Option<u32>,
}

impl std::str::FromStr for Joins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = match text.rsplit_once('=') {
            None => (text, None),
            Some((name, weight)) => {
                let number = weight.parse::<u32>().ok().filter(|weight| (1..=1000).contains(weight));
                let number = number.ok_or_else(|| format!("{weight:?} is no weight: write a number from 1 to 1000"))?;
                (name, Some(number))
            }
        };
        if name.is_empty() {
            return Err("the name is empty: write NAME or NAME=WEIGHT".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            weight,
        })
    }
}

/// The rings before and after a change.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    before: Ring,
    after: Ring,
    weights: [BTreeMap<String, u32>; 2],
    notes: Vec<String>,
}

/// A member before or after the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemberView {
    /// Its name.
    pub(crate) name: String,
    /// Its weight.
    pub(crate) weight: u32,
}

/// What goes from one cluster to another one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MoveView {
    /// The owner now.
    pub(crate) from: String,
    /// The owner after the change.
    pub(crate) to: String,
    /// The share of the hash space, from 0 to 1.
    pub(crate) share: f64,
}

/// An asset that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Example {
    /// The asset.
    pub(crate) asset: String,
    /// Its owner now.
    pub(crate) from: String,
    /// Its owner after the change.
    pub(crate) to: String,
}

/// Assets that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// How many assets were looked at.
    pub(crate) assets: u64,
    /// How many of them move.
    pub(crate) moving: u64,
    /// Whether the assets are made up.
    pub(crate) made_up: bool,
    /// The first ones that move.
    pub(crate) examples: Vec<Example>,
}

/// What a change would move.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiffView {
    /// The forwarder, as `namespace/name`.
    pub(crate) forwarder: String,
    /// The epoch of the ring that would change.
    pub(crate) ring_epoch: u64,
    /// The members now.
    pub(crate) before: Vec<MemberView>,
    /// The members after the change.
    pub(crate) after: Vec<MemberView>,
    /// The share of the hash space that moves, from 0 to 1.
    pub(crate) moved_share: f64,
    /// From whom to whom.
    pub(crate) moves: Vec<MoveView>,
    /// Assets.
    pub(crate) sample: Sample,
    /// What to keep in mind.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// The change of a ring. `known` are the clusters of the namespace; none: they could not be read.
    ///
    /// # Errors
    /// [`Fault`]: a name is that of no cluster, or the change makes no ring.
    pub(crate) fn new(
        declared: &Declared,
        add: &[Joins],
        remove: &[String],
        known: Option<&[NatsCluster]>,
    ) -> Result<Self, Fault> {
        if declared.idle {
            return Err(Fault::Usage(
                "the ring has no members now, so nothing moves: the first cluster gets all assets".to_owned(),
            ));
        }
        let now = declared.weights();
        let mut then = now.clone();
        let mut notes = Vec::new();
        for name in remove {
            let member = member(declared, &now, name)?;
            if then.remove(&member).is_none() {
                return Err(Fault::Usage(format!("--remove names {name} twice: name it once")));
            }
        }
        for joins in add {
            let (name, weight) = joiner(joins, known, &mut notes);
            if now.contains_key(&name) {
                return Err(Fault::Usage(format!(
                    "{name} is a member of the ring already: name a cluster that is none"
                )));
            }
            if then.insert(name.clone(), weight).is_some() {
                return Err(Fault::Usage(format!("--add names {name} twice: name it once")));
            }
        }
        if then.is_empty() {
            return Err(Fault::Usage(
                "the ring would have no members: no cluster would own any asset, and nothing would be consumed"
                    .to_owned(),
            ));
        }
        Ok(Self {
            before: declared.ring_of(&now)?,
            after: declared.ring_of(&then)?,
            weights: [now, then],
            notes,
        })
    }

    /// Looks at made up assets until so many are found that move.
    pub(crate) fn make_up(&self, examples: usize) -> Sample {
        let mut sample = Sample {
            made_up: true,
            ..Sample::default()
        };
        for number in 1..=MADE_UP {
            if sample.examples.len() >= examples {
                break;
            }
            self.look(format!("asset-{number:06}").as_bytes(), examples, &mut sample);
        }
        sample
    }

    /// Looks at assets, one a line: a line's bytes without its end. Empty lines are skipped.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn read(&self, mut assets: impl BufRead, examples: usize) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let mut line = Vec::new();
        while assets.read_until(b'\n', &mut line)? > 0 {
            let asset = line.strip_suffix(b"\n").unwrap_or(&line);
            let asset = asset.strip_suffix(b"\r").unwrap_or(asset);
            if !asset.is_empty() {
                self.look(asset, examples, &mut sample);
            }
            line.clear();
        }
        Ok(sample)
    }

    fn look(&self, asset: &[u8], examples: usize, sample: &mut Sample) {
        sample.assets += 1;
        let from = self.before.name(self.before.owner(asset));
        let to = self.after.name(self.after.owner(asset));
        if from == to {
            return;
        }
        sample.moving += 1;
        if sample.examples.len() < examples {
            sample.examples.push(Example {
                asset: String::from_utf8_lossy(asset).into_owned(),
                from: from.to_owned(),
                to: to.to_owned(),
            });
        }
    }

    /// What it would move.
    pub(crate) fn view(self, forwarder: String, ring_epoch: u64, sample: Sample) -> DiffView {
        let moves: Vec<MoveView> = moved(&self.before, &self.after)
            .into_iter()
            .map(|shift| MoveView {
                from: shift.from,
                to: shift.to,
                share: shift.share,
            })
            .collect();
        let [before, after] = self.weights.map(|weights| {
            let members = weights.into_iter();
            members.map(|(name, weight)| MemberView { name, weight }).collect()
        });
        DiffView {
            forwarder,
            ring_epoch,
            before,
            after,
            moved_share: moves.iter().fold(0.0, |sum, shift| sum + shift.share),
            moves,
            sample,
            notes: self.notes,
        }
    }
}

/// The member that is meant: by its name in the ring, or by that of its object.
fn member(declared: &Declared, now: &BTreeMap<String, u32>, name: &str) -> Result<String, Fault> {
    if now.contains_key(name) {
        return Ok(name.to_owned());
    }
    let is_it = |reference: &str| reference == name || reference.split_once('/').is_some_and(|(_, last)| last == name);
    let mut meant = declared
        .members
        .iter()
        .filter(|(member, reference)| now.contains_key(*member) && is_it(reference));
    match (meant.next(), meant.next()) {
        (Some((member, _)), None) => Ok(member.clone()),
        (Some(_), Some(_)) => Err(Fault::Usage(format!(
            "several members have an object of the name {name}: give the name in the ring"
        ))),
        (None, _) => {
            let members: Vec<&str> = now.keys().map(String::as_str).collect();
            Err(Fault::NotFound(format!(
                "{name} is no member of the ring. Its members are {}",
                members.join(", ")
            )))
        }
    }
}

/// The name in the ring and the weight of a cluster that is to join.
fn joiner(joins: &Joins, known: Option<&[NatsCluster]>, notes: &mut Vec<String>) -> (String, u32) {
    let clusters = known.unwrap_or_default();
    let found = clusters
        .iter()
        .find(|cluster| ring_name(cluster) == joins.name)
        .or_else(|| clusters.iter().find(|cluster| cluster.name_any() == joins.name));
    let Some(cluster) = found else {
        let weight = joins.weight.unwrap_or(1);
        let why = match known {
            Some(_) => "there is no NatsCluster of that name in the namespace",
            None => "the NatsClusters could not be read",
        };
        notes.push(format!("{} is taken to have the weight {weight}: {why}", joins.name));
        return (joins.name.clone(), weight);
    };
    if cluster.spec.drain {
        notes.push(format!(
            "the NatsCluster {} has spec.drain: true, and joins no ring before that is false",
            cluster.name_any()
        ));
    }
    (ring_name(cluster), joins.weight.unwrap_or(cluster.spec.weight))
}

impl DiffView {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let names = |members: &[MemberView]| {
            let members = members.iter().map(|member| match member.weight {
                1 => member.name.clone(),
                weight => format!("{}={weight}", member.name),
            });
            members.collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![
            format!("{} at epoch {}", self.forwarder, self.ring_epoch),
            format!("now:   {}", names(&self.before)),
            format!("then:  {}", names(&self.after)),
            format!("moves: {} of the hash space", percent(self.moved_share)),
        ];
        lines.extend(self.notes.iter().map(|note| format!("note:  {note}")));
        let mut lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
        let mut moves = Table::new(["FROM", "TO", "SHARE"]);
        for shift in &self.moves {
            moves.row([shift.from.clone(), shift.to.clone(), percent(shift.share)]);
        }
        if !moves.is_empty() {
            lines.push(String::new());
            lines.extend(moves.lines());
        }
        lines.push(String::new());
        let Sample {
            assets,
            moving,
            made_up,
            examples,
        } = &self.sample;
        if !made_up {
            lines.push(format!("{moving} of {assets} assets move"));
        }
        let title = if *made_up { "ASSET (MADE UP)" } else { "ASSET" };
        let mut table = Table::new([title, "FROM", "TO"]);
        for example in examples {
            table.row([example.asset.clone(), example.from.clone(), example.to.clone()]);
        }
        if !table.is_empty() {
            lines.extend(table.lines());
        }
        lines
    }
}

#[cfg(test)]
mod tests;
