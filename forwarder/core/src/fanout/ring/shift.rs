//! What share of the keys a change of the ring moves.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The virtual nodes of a ring, in their order.
pub trait Nodes {
    /// The leading 64 bits of a node's position; none past the last one.
    fn head(&self, node: usize) -> Option<u64>;

    /// Who owns the arc that ends at `node`; past the last node that is the first one's owner.
    fn owner_of(&self, node: usize) -> &str;
}

impl<N: Nodes> Nodes for Arc<N> {
    fn head(&self, node: usize) -> Option<u64> {
        (**self).head(node)
    }

    fn owner_of(&self, node: usize) -> &str {
        (**self).owner_of(node)
    }
}

/// Keys that go from one member to another when a ring is replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// The member that owned them.
    pub from: String,
    /// The member that owns them now.
    pub to: String,
    /// Their share of the hash space, above 0 and at most 1.
    pub share: f64,
}

/// The share of the hash space that changes owner from ring `from` to ring `to`, pair by pair, in the order of names.
///
/// Computed from the positions, not from samples. Arcs are measured by the leading 64 bits of their ends and added up
/// as integers, so all arcs together are exactly the whole space and a share is off by less than nodes × 2⁻⁶⁴; only the
/// last step rounds, to an `f64`. A pair whose arcs are all narrower than 2⁻⁶⁴ is left out. Members are the same if
/// their names are.
#[must_use]
pub fn moved(from: &impl Nodes, to: &impl Nodes) -> Vec<Shift> {
    let mut widths = BTreeMap::<(&str, &str), u128>::new();
    let mut start = 0;
    let (mut old, mut new) = (0, 0);
    loop {
        // Up to the next node of either ring, each one's owner is that of its own next node.
        let pair = (from.owner_of(old), to.owner_of(new));
        let next = match (from.head(old), to.head(new)) {
            (None, None) => None,
            // Nodes of one head are passed one after the other, with an arc of no width between them.
            (Some(a), b) if b.is_none_or(|b| a <= b) => step(&mut old, a),
            (_, Some(b)) => step(&mut new, b),
            (Some(a), None) => step(&mut old, a),
        };
        let end = next.unwrap_or(1 << 64);
        if pair.0 != pair.1 {
            *widths.entry(pair).or_default() += end - start;
        }
        start = end;
        if next.is_none() {
            break;
        }
    }
    widths
        .into_iter()
        .filter(|(_, width)| *width > 0)
        .map(|((from, to), width)| Shift {
            from: from.to_owned(),
            to: to.to_owned(),
            share: width as f64 / (1u128 << 64) as f64,
        })
        .collect()
}

fn step(node: &mut usize, head: u64) -> Option<u128> {
    *node += 1;
    Some(u128::from(head))
}
