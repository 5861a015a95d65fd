use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: Cluster = 0;
const B: Cluster = 1;
const C: Cluster = 2;

const LIMIT: Hold = Hold {
    records: 100,
    bytes: 1_000,
};

/// Owners under rings of rising epochs.
fn roles(owners: &[Cluster], oldest: u64) -> Vec<Role> {
    let role = |(epoch, cluster): (u64, &Cluster)| Role {
        epoch,
        cluster: *cluster,
    };
    (oldest..).zip(owners).map(role).collect()
}

fn merge(owners: &[Cluster]) -> Merge<u32> {
    Merge::new(roles(owners, 0))
}

impl Merge<u32> {
    fn take(&mut self, cluster: Cluster, item: u32) -> Vec<Effect<u32>> {
        self.message(cluster, item, 1, LIMIT)
    }
}

fn fence(cluster: Cluster, number: u64) -> Effect<u32> {
    Effect::Fence { cluster, number }
}

fn deliver(items: &[u32]) -> Effect<u32> {
    Effect::Deliver(items.to_vec())
}

#[test]
fn a_move_holds_the_new_side_until_the_old_one_is_drained() {
    let mut state = merge(&[A, B]);
    assert_eq!(state.take(A, 1), [deliver(&[1])]);
    assert_eq!(state.take(B, 3), [fence(A, 1)]);
    assert_eq!(state.take(B, 4), []);
    assert_eq!(
        state.take(A, 2),
        [deliver(&[2])],
        "the old side goes on until it is drained"
    );
    assert_eq!(state.fenced(1, Outcome::Drained), [deliver(&[3, 4])]);
    assert!(state.passes(B));
    assert_eq!(state.fenced(1, Outcome::Drained), [], "an old fence changes nothing");
}

#[test]
fn the_old_side_is_forgotten_once_it_has_left_and_is_read_to_its_end() {
    let mut leads = merge(&[A, B]);
    assert_eq!(leads.owners(roles(&[B], 1)), [fence(A, 1)]);
    assert_eq!(leads.take(B, 2), []);
    assert_eq!(leads.fenced(1, Outcome::Drained), [Effect::Forget(A), deliver(&[2])]);

    let mut moved = merge(&[A, B]);
    moved.take(B, 2);
    moved.fenced(1, Outcome::Drained);
    assert_eq!(moved.owners(roles(&[B], 1)), [fence(A, 2)]);
    assert!(moved.passes(B), "who leads is not held for that");
    assert_eq!(moved.fenced(2, Outcome::Drained), [Effect::Forget(A)]);
}

#[test]
fn several_moves_are_gone_through_one_by_one_and_back() {
    let mut state = merge(&[A, B, C]);
    assert_eq!(state.take(C, 3), [fence(A, 1)]);
    assert_eq!(
        state.fenced(1, Outcome::Drained),
        [fence(B, 2)],
        "B may still have something"
    );
    assert_eq!(state.take(B, 2), [deliver(&[2])]);
    assert_eq!(state.fenced(2, Outcome::Drained), [deliver(&[3])]);
    assert_eq!(
        state.take(A, 4),
        [deliver(&[4])],
        "it comes from before, so nothing is waited for"
    );
    // A owns it again, under a newer ring.
    assert_eq!(state.owners(roles(&[A, B, C, A], 0)), []);
    assert_eq!(state.take(A, 6), [fence(C, 3)]);
    assert_eq!(state.take(C, 5), [deliver(&[5])]);
    assert_eq!(state.fenced(3, Outcome::Drained), [deliver(&[6])]);
}

#[test]
fn who_has_left_comes_before_those_that_have_not() {
    let mut state = merge(&[A, B, C]);
    assert_eq!(state.take(C, 3), [fence(A, 1)]);
    // A owns the asset again, under the newest ring.
    assert_eq!(state.owners(roles(&[C, A], 2)), [fence(B, 2)]);
    assert_eq!(state.take(B, 2), []);
    assert_eq!(state.fenced(2, Outcome::Drained), [], "what is held of it comes first");
    assert_eq!(state.fenced(1, Outcome::Drained), [deliver(&[2]), fence(B, 3)]);
    assert_eq!(state.fenced(3, Outcome::Drained), [Effect::Forget(B), deliver(&[3])]);
}

#[test]
fn a_ring_that_was_never_used_is_forgotten_unless_it_comes_back() {
    let mut state = merge(&[A, B]);
    assert_eq!(state.owners(roles(&[A], 2)), [fence(B, 1), fence(A, 2)]);
    assert_eq!(state.fenced(1, Outcome::Drained), [Effect::Forget(B)]);
    assert_eq!(state.fenced(2, Outcome::Drained), []);
    assert!(state.passes(A));
    let mut back = merge(&[A, B]);
    back.owners(roles(&[A], 2));
    assert_eq!(back.owners(roles(&[A, B], 2)), []);
    assert_eq!(back.fenced(1, Outcome::Drained), [], "it has come back");
}

#[test]
fn who_comes_back_is_held_behind_a_side_that_is_slower() {
    let mut state = merge(&[A, B]);
    assert_eq!(state.owners(roles(&[B], 1)), [fence(A, 1)]);
    let mut back = merge(&[A, B]);
    // A is left, and comes back before anything of B was read.
    assert_eq!(back.owners(roles(&[B, A], 1)), [fence(A, 1)]);
    assert_eq!(back.fenced(1, Outcome::Drained), []);
    assert_eq!(back.take(A, 3), [fence(B, 2)]);
    assert_eq!(back.take(B, 2), [deliver(&[2])]);
    assert_eq!(back.fenced(2, Outcome::Drained), [deliver(&[3])]);
    // An owner that stays is asked for nothing.
    let mut stays = merge(&[A, A]);
    assert_eq!(stays.owners(roles(&[A, B], 1)), []);
    assert!(stays.passes(A));
    assert_eq!(stays.take(B, 2), [fence(A, 1)]);
}

#[test]
fn who_comes_to_lead_leads_under_the_rings_that_follow_too() {
    let mut state = merge(&[A, B, B]);
    assert_eq!(state.owners(roles(&[B, C], 2)), [fence(A, 1)]);
    // B owns it under two rings. The first one has left, and nothing is asked of B for that.
    assert_eq!(state.fenced(1, Outcome::Drained), [Effect::Forget(A)]);
    assert_eq!(state.take(C, 2), [fence(B, 2)]);
    assert_eq!(state.take(B, 1), [deliver(&[1])]);
    assert_eq!(state.fenced(2, Outcome::Drained), [deliver(&[2])]);
}

#[test]
fn an_echo_of_before_says_nothing_of_a_ring_that_a_leader_has_come_to_since() {
    let mut state = merge(&[A, B, A, C]);
    // Nothing has come of B, and it will not: A leads under both of its rings.
    assert_eq!(state.owners(roles(&[B, A, C], 1)), [fence(A, 1)]);
    assert_eq!(state.owners(roles(&[A, C], 2)), [fence(B, 2)]);
    assert_eq!(state.fenced(2, Outcome::Drained), [Effect::Forget(B)]);
    assert_eq!(state.take(C, 2), [fence(A, 3)]);
    assert_eq!(
        state.fenced(1, Outcome::Drained),
        [],
        "what A has accepted since may come after it"
    );
    assert_eq!(state.take(A, 1), [deliver(&[1])]);
    assert_eq!(state.fenced(3, Outcome::Drained), [deliver(&[2])]);
}

#[test]
fn without_a_fence_it_goes_on_and_says_so() {
    for outcome in [Outcome::TimedOut, Outcome::Down] {
        let mut state = merge(&[A, B]);
        state.take(B, 2);
        let unfenced = Effect::Unfenced { cluster: A, outcome };
        assert_eq!(state.fenced(1, outcome), [unfenced, deliver(&[2])]);
    }
}

#[test]
fn over_the_limit_nothing_is_dropped() {
    let mut state = merge(&[A, B, C]);
    let limit = Hold { records: 2, bytes: 100 };
    assert_eq!(state.message(C, 3, 1, limit), [fence(A, 1)]);
    assert_eq!(state.message(B, 2, 1, limit), []);
    let unfenced = |cluster| Effect::Unfenced {
        cluster,
        outcome: Outcome::Overflow,
    };
    let expected = [unfenced(A), deliver(&[2]), unfenced(B), deliver(&[3, 4])];
    assert_eq!(state.message(C, 4, 1, limit), expected);
    let mut bytes = merge(&[A, B]);
    let effects = bytes.message(B, 1, 101, Hold { records: 2, bytes: 100 });
    assert_eq!(effects, [unfenced(A), deliver(&[1])]);
}

/// What a cluster has sent to the client and the client has not read.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Record(u32),
    /// An echo, for the fence of this number.
    Echo(u64),
}

/// A forwarder, its clusters, and a client that reads them.
struct World {
    merge: Merge<u32>,
    channels: Vec<VecDeque<Sent>>,
    /// By epoch, from `oldest` on.
    owners: Vec<Cluster>,
    oldest: usize,
    using: usize,
    written: u32,
    read: Vec<u32>,
    forgotten: BTreeSet<Cluster>,
}

impl World {
    fn new() -> Self {
        Self {
            merge: merge(&[A]),
            channels: vec![VecDeque::new(); 4],
            owners: vec![A],
            oldest: 0,
            using: 0,
            written: 0,
            read: Vec::new(),
            forgotten: BTreeSet::new(),
        }
    }

    fn perform(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Deliver(items) => self.read.extend(items),
                Effect::Fence { cluster, number } => {
                    self.channels[cluster as usize].push_back(Sent::Echo(number));
                }
                Effect::Forget(cluster) => {
                    let unread = &self.channels[cluster as usize];
                    let records = unread.iter().filter(|sent| matches!(sent, Sent::Record(_))).count();
                    assert_eq!(records, 0, "forgotten before it was read to its end");
                    self.forgotten.insert(cluster);
                }
                Effect::Unfenced { .. } => panic!("each echo comes back"),
            }
        }
    }

    fn tell(&mut self) {
        let told = roles(&self.owners[self.oldest..], self.oldest as u64);
        for role in &told {
            self.forgotten.remove(&role.cluster);
        }
        let effects = self.merge.owners(told);
        self.perform(effects);
    }

    fn write(&mut self) {
        let owner = self.owners[self.using];
        self.channels[owner as usize].push_back(Sent::Record(self.written));
        self.written += 1;
    }

    fn read_one(&mut self, cluster: usize) {
        match self.channels[cluster].pop_front() {
            None => {}
            Some(Sent::Record(record)) => {
                assert!(!self.forgotten.contains(&(cluster as Cluster)));
                let effects = if self.merge.passes(cluster as Cluster) {
                    vec![deliver(&[record])]
                } else {
                    self.merge.take(cluster as Cluster, record)
                };
                self.perform(effects);
            }
            Some(Sent::Echo(number)) => {
                let effects = self.merge.fenced(number, Outcome::Drained);
                self.perform(effects);
            }
        }
    }

    fn read_all(&mut self) {
        while let Some(cluster) = (0..self.channels.len()).find(|at| !self.channels[*at].is_empty()) {
            self.read_one(cluster);
        }
    }

    fn announce(&mut self, owner: Cluster) {
        if self.using + 1 == self.owners.len() {
            self.await_grace(owner);
            self.owners.push(owner);
            self.tell();
        }
    }

    fn use_newest(&mut self) {
        self.await_grace(self.owners[self.owners.len() - 1]);
        self.using = self.owners.len() - 1;
    }

    /// An asset comes back to a cluster only when all is read: a ring is announced for longer than messages take.
    fn await_grace(&mut self, owner: Cluster) {
        if self.owners[..self.using].contains(&owner) {
            self.read_all();
        }
    }
}

#[derive(Clone, Debug)]
enum Move {
    Write,
    Read(usize),
    Announce(Cluster),
    Use,
    Leave,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => Just(Move::Write),
        6 => (0_usize..4).prop_map(Move::Read),
        1 => (0_u32..4).prop_map(Move::Announce),
        2 => Just(Move::Use),
        1 => Just(Move::Leave),
    ];
    prop::collection::vec(one, 0..200)
}

proptest! {
    #[test]
    fn any_interleaving_yields_each_record_once_and_in_order(moves in moves()) {
        let mut world = World::new();
        for step in moves {
            match step {
                Move::Write => world.write(),
                Move::Read(cluster) => world.read_one(cluster),
                Move::Announce(owner) => world.announce(owner),
                Move::Use => world.use_newest(),
                // All that was written under it has been accepted.
                Move::Leave => if world.oldest < world.using {
                    world.oldest += 1;
                    world.tell();
                },
            }
        }
        world.read_all();
        prop_assert_eq!(&world.read, &(0..world.written).collect::<Vec<_>>());
        // What owns nothing any more is forgotten.
        world.oldest = world.using;
        world.owners.truncate(world.using + 1);
        world.tell();
        world.read_all();
        let owner = world.owners[world.using];
        prop_assert!(world.merge.passes(owner));
        prop_assert_eq!(world.merge.count, 0);
        prop_assert_eq!(world.merge.retiring.len(), 0);
    }
}
