//! Any walk of an asset over clusters, with two partitions, crashes of forwarders, and pipes with delays of their own.

use forwarder_beacon::{Phase, RingView};
use forwarder_core::fanout::ring::LeanRing;
use proptest::prelude::*;

use super::world::{World, view};

const CLUSTERS: [&str; 4] = ["C1", "C2", "C3", "C4"];
const ASSET: &str = "PLC-17";
const TOPICS: [&str; 2] = ["t", "u"];

#[derive(Clone, Debug)]
enum Move {
    Write(usize),
    /// Something happens at one of the clusters with something on its way.
    Happen(usize),
    /// The members of a further ring, by bits.
    Announce(u8),
    /// A partition goes on to the newest ring, right after so many records.
    Use(usize, u8),
    Leave,
    /// The forwarder of a partition dies. Its successor writes the last records again.
    Crash(usize, u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0_usize..2).prop_map(Move::Write),
        20 => (0_usize..4).prop_map(Move::Happen),
        2 => (1_u8..16).prop_map(Move::Announce),
        3 => (0_usize..2, 0_u8..4).prop_map(|(partition, records)| Move::Use(partition, records)),
        2 => Just(Move::Leave),
        1 => (0_usize..2, 1_u8..4).prop_map(|(partition, records)| Move::Crash(partition, records)),
    ];
    prop::collection::vec(one, 0..150)
}

struct Walk {
    world: World,
    /// The first one has the epoch 1.
    members: Vec<Vec<&'static str>>,
    using: [usize; 2],
    written: [i64; 2],
    left: usize,
}

impl Walk {
    fn rings(&self) -> Vec<RingView> {
        let using = self.using[0].max(self.using[1]);
        let phase = |at: usize| match at {
            _ if at > using => Phase::Announced,
            _ if at == using => Phase::InUse,
            _ => Phase::Leaving,
        };
        (self.left..self.members.len())
            .map(|at| view(at as u64 + 1, phase(at), &self.members[at]))
            .collect()
    }

    fn tell(&mut self) {
        self.world.rings = self.rings();
        self.world.left = self.left as u64 + 1;
        self.world.digest();
    }

    fn owner(&self, at: usize) -> String {
        let known = LeanRing::new(self.members[at].iter().map(|name| ((*name).to_owned(), 1)), 64).unwrap();
        self.members[at][known.owner(ASSET.as_bytes())].to_owned()
    }

    fn write(&mut self, partition: usize, offset: i64) {
        let owner = self.owner(self.using[partition]);
        self.world.write(&owner, ASSET, TOPICS[partition], offset);
    }

    fn perform(&mut self, step: Move) {
        match step {
            Move::Write(partition) => {
                self.write(partition, self.written[partition]);
                self.written[partition] += 1;
            }
            Move::Happen(at) => {
                let busy = self.world.busy();
                if let Some(name) = busy.get(at % busy.len().max(1)) {
                    self.world.advance(name);
                }
            }
            Move::Announce(bits) if self.using == [self.members.len() - 1; 2] => {
                let members = (0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| CLUSTERS[bit]);
                self.members.push(members.collect());
                self.tell();
            }
            Move::Use(partition, records) if self.using[partition] + 1 < self.members.len() => {
                // The grace: clients hear of the ring and go to their new sides, and what is on its way arrives.
                self.world.settle();
                let (from, to) = (self.owner(self.using[partition]), self.owner(self.members.len() - 1));
                let comes_back = (0..self.using[partition]).any(|at| self.owner(at) == to);
                // An asset that comes back within the time of a message is not kept in order.
                if from == to || !comes_back {
                    for _ in 0..records {
                        self.perform(Move::Write(partition));
                    }
                }
                self.using[partition] += 1;
                self.tell();
            }
            Move::Leave if self.left < self.using[0].min(self.using[1]) => {
                self.left += 1;
                self.tell();
            }
            Move::Crash(partition, records) => {
                let last = self.written[partition];
                for offset in (last - i64::from(records)).max(0)..last {
                    self.write(partition, offset);
                }
            }
            Move::Announce(_) | Move::Use(..) | Move::Leave => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn on_any_walk_each_record_is_read_once_and_in_order_without_a_gap(moves in moves()) {
        let world = World::new(vec![view(1, Phase::InUse, &["C1"])]);
        let mut walk = Walk { world, members: vec![vec!["C1"]], using: [0; 2], written: [0; 2], left: 0 };
        let (queue, mut begun) = walk.world.subscribe(&[ASSET]);
        prop_assert!(begun.try_recv().unwrap().is_ok());
        for step in moves {
            walk.perform(step);
        }
        walk.world.settle();
        let mut read: [Vec<i64>; 2] = [Vec::new(), Vec::new()];
        while let Some(message) = queue.take() {
            let origin = message.origin.unwrap();
            read[usize::from(*origin.topic == *TOPICS[1])].push(origin.offset);
        }
        for (read, written) in read.iter().zip(walk.written) {
            prop_assert_eq!(read, &(0..written).collect::<Vec<_>>());
        }
        prop_assert_eq!(walk.world.gaps(), []);

        // Once all other rings are left, only the owner is read.
        walk.using = [walk.members.len() - 1; 2];
        walk.left = walk.using[0];
        walk.world.settle();
        walk.tell();
        walk.world.settle();
        let owner = walk.owner(walk.left);
        let connected = CLUSTERS.into_iter().filter(|name| walk.world.is_connected(name));
        prop_assert_eq!(connected.collect::<Vec<_>>(), [owner.as_str()]);
        let taps: Vec<u64> = walk.world.state.taps.keys().copied().collect();
        prop_assert_eq!(taps.len(), 1);
        prop_assert_eq!(walk.world.gaps(), []);
    }
}
