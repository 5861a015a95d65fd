//! What may happen in a run.

use forwarder_core::delivery::caps::{Limits, Load};

use crate::dice::Dice;

/// How likely each fault is in a run, in percent of the chances that there are; many are left out of many runs, so that
/// the others get far.
pub(crate) struct Plan {
    pub(crate) processes: usize,
    pub(crate) limits: Limits,
    /// How many records may be out above the limit: a refused one that is called back counts again, whatever is out meanwhile.
    pub(crate) excess: usize,
    pub(crate) handover_timeout: u64,
    pub(crate) drain_timeout: u64,
    pub(crate) attempts: Option<u32>,
    pub(crate) dead_letter: bool,
    pub(crate) burst: usize,
    pub(crate) pace: u64,
    pub(crate) outages: usize,
    pub(crate) breaks: usize,
    pub(crate) refusals: usize,
    pub(crate) poison: usize,
    /// How likely a publisher closes a lane that is denied.
    pub(crate) closing: usize,
    pub(crate) lost_acks: usize,
    pub(crate) lost_commits: usize,
    pub(crate) late_commits: usize,
    pub(crate) moves: usize,
    pub(crate) kicks: usize,
    pub(crate) kills: usize,
    pub(crate) rings: usize,
}

impl Plan {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let mut percent = |least: usize, most: usize| {
            if dice.chance(50) {
                least + dice.below(most - least + 1)
            } else {
                0
            }
        };
        let outages = percent(3, 40);
        let breaks = percent(3, 40);
        let refusals = percent(5, 40);
        let lost_acks = percent(2, 30);
        let lost_commits = percent(5, 50);
        let late_commits = percent(30, 95);
        let moves = percent(5, 60);
        let kicks = percent(2, 20);
        let kills = percent(2, 20);
        let rings = percent(5, 40);
        let poison = percent(30, 100);
        let closing = if poison > 0 { 100 } else { percent(20, 100) };
        let output = 2 + dice.below(8);
        Self {
            processes: 1 + dice.below(3),
            limits: Limits {
                output: Load {
                    records: output,
                    bytes: 100 + dice.below(300),
                },
                total: Load {
                    records: output + 2 + dice.below(4 * output),
                    bytes: 200 + dice.below(1_000),
                },
                queue: 2 + dice.below(12),
            },
            excess: 1,
            handover_timeout: [0, 30_000, 300_000, 3_000_000][dice.below(4)],
            drain_timeout: 1_000 * dice.below(1_500) as u64,
            attempts: dice.chance(50).then(|| 1 + dice.below(3) as u32),
            dead_letter: dice.chance(50),
            burst: 1 + dice.below(10),
            pace: [2_000, 10_000, 40_000, 150_000][dice.below(4)],
            outages,
            breaks,
            refusals,
            poison,
            closing,
            lost_acks,
            lost_commits,
            late_commits,
            moves,
            kicks,
            kills,
            rings,
        }
    }

    /// Rings change often, and partitions move in the middle of that.
    pub(crate) fn change_more(&mut self) {
        self.rings = self.rings.max(40);
        self.moves = self.moves.max(25);
        self.kicks = self.kicks.max(6);
        self.kills = self.kills.max(12);
    }
}
