//! How much waits for confirmation, against the caps; and which outputs are so far behind that they may not keep the
//! others waiting.

use super::DEAD_LETTER;

/// How long an output may stand at its cap before its pace is judged, in microseconds. All others wait that long at most.
const PATIENCE: u64 = 200_000;

/// In microseconds. An output that would need longer than this for what it has overflows: its new records are not kept, so
/// that the others need not wait. For an output that is faster, slowing down all is better than reading again.
const TOLERABLE: u64 = 2_000_000;

/// The caps. What waits is bounded by them, whatever the group's lag and however long a cluster is away.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one cluster, at most; less where there are so many clusters that their sum would be above `total`.
    pub output: Load,
    /// Of all together.
    pub total: Load,
    /// Records that are not sent yet, in all.
    pub queue: usize,
}

/// Records and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Records.
    pub records: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Load {
    fn below(self, cap: Self) -> bool {
        self.records < cap.records && self.bytes < cap.bytes
    }

    fn part(self, numerator: usize, denominator: usize) -> Self {
        Self {
            records: (self.records.saturating_mul(numerator)).div_ceil(denominator),
            bytes: (self.bytes.saturating_mul(numerator)).div_ceil(denominator),
        }
    }

    fn without(self, part: Self) -> Self {
        Self {
            records: self.records.saturating_sub(part.records),
            bytes: self.bytes.saturating_sub(part.bytes),
        }
    }

    fn add(&mut self, weight: usize) {
        self.records += 1;
        self.bytes += weight;
    }

    fn remove(&mut self, weight: usize) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(weight);
    }
}

/// Counts what was handed out and has not come back.
#[derive(Debug)]
pub(crate) struct Caps {
    limits: Limits,
    /// By output.
    outputs: Vec<Output>,
    total: Load,
    /// Held back until an earlier record of the same asset is settled elsewhere.
    held: Load,
    /// All outputs' heads: see [`Output::heads`]. They have bounds of their own, and keep nobody waiting.
    heads: Load,
    /// How many outputs keep the intake waiting: asked for every record, and there may be hundreds of clusters.
    blocking: usize,
    /// What one output may have, now.
    cap: Load,
    queue: usize,
    /// The time of the last observation.
    now: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Output {
    /// All that it has.
    load: Load,
    /// Of that the refused records of held lanes: they may stay for days, and tell nothing of the output's pace.
    heads: Load,
    /// How many of them are sent, as of the last observation.
    sent: usize,
    /// What has left, ever.
    left: u64,
    /// What had left, and when the last of it was seen to have left (or that there was nothing).
    moved: (u64, u64),
    /// When the last one came.
    entered: u64,
    /// Since when it stands at its cap, and what had left then.
    pressed: Option<(u64, u64)>,
    /// It is so far behind that its new records are parked.
    overflows: bool,
    blocks: bool,
}

impl Output {
    /// What it has and is not held.
    fn flowing(&self) -> Load {
        self.load.without(self.heads)
    }
}

impl Caps {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut caps = Self {
            limits,
            outputs: Vec::new(),
            total: Load::default(),
            held: Load::default(),
            heads: Load::default(),
            blocking: 0,
            cap: limits.output,
            queue: limits.queue,
            now: 0,
        };
        caps.share(1);
        caps
    }

    /// There are so many clusters: each may have its share of the total, so that those that are away leave room for the
    /// others.
    pub(crate) fn share(&mut self, clusters: usize) {
        let share = self.limits.total.part(1, clusters + 1);
        self.cap = Load {
            records: self.limits.output.records.min(share.records),
            bytes: self.limits.output.bytes.min(share.bytes),
        };
        self.queue = self.limits.queue.div_ceil(clusters.max(1));
    }

    pub(crate) fn make_known(&mut self, output: usize) {
        if self.outputs.len() <= output {
            let new = Output {
                moved: (0, self.now),
                ..Output::default()
            };
            self.outputs.resize(output + 1, new);
        }
    }

    pub(crate) fn enter(&mut self, output: usize, weight: usize) {
        self.total.add(weight);
        let state = &mut self.outputs[output];
        state.load.add(weight);
        state.entered = self.now;
        self.judge(output);
    }

    pub(crate) fn leave(&mut self, output: usize, weight: usize) {
        self.total.remove(weight);
        let state = &mut self.outputs[output];
        state.load.remove(weight);
        state.left += 1;
        self.judge(output);
    }

    /// A record that the output has is refused, and stays there.
    pub(crate) fn hold_head(&mut self, output: usize, weight: usize) {
        self.heads.add(weight);
        let state = &mut self.outputs[output];
        state.heads.add(weight);
        self.judge(output);
    }

    /// It leaves, or is tried as any other.
    pub(crate) fn release_head(&mut self, output: usize, weight: usize) {
        self.heads.remove(weight);
        let state = &mut self.outputs[output];
        state.heads.remove(weight);
        self.judge(output);
    }

    /// Whether so many heads may stay there: one, or a quarter of what the output may have.
    pub(crate) fn may_hold_heads(&self, output: usize) -> bool {
        let heads = self.outputs[output].heads;
        heads.records <= 1 || heads.below(self.cap.part(1, 4))
    }

    /// All that is out or held, but for the heads.
    pub(crate) fn moving(&self) -> Load {
        self.total.without(self.heads)
    }

    pub(crate) fn hold(&mut self, weight: usize) {
        self.total.add(weight);
        self.held.add(weight);
    }

    pub(crate) fn release(&mut self, weight: usize) {
        self.total.remove(weight);
        self.held.remove(weight);
    }

    /// Takes note of how much is sent, and of the time, in microseconds.
    pub(crate) fn observe(&mut self, now: u64, sent: impl Fn(usize) -> usize) {
        self.now = now;
        for at in 0..self.outputs.len() {
            let (cap, queue) = (self.cap, self.queue);
            let full = self.is_full(at);
            let state = &mut self.outputs[at];
            state.sent = sent(at);
            if state.left != state.moved.0 || state.flowing().records == 0 {
                state.moved = (state.left, now);
            }
            if at == DEAD_LETTER as usize {
                continue;
            }
            if state.overflows {
                let unsent = state.flowing().records.saturating_sub(state.sent);
                if state.flowing().below(cap.part(1, 2)) && unsent <= queue / 2 {
                    state.overflows = false;
                    state.pressed = None;
                }
            } else if full {
                let (since, left) = *state.pressed.get_or_insert((now, state.left));
                let elapsed = now.saturating_sub(since);
                if elapsed >= PATIENCE {
                    let pace = u128::from(state.left - left) * u128::from(TOLERABLE);
                    state.overflows = pace < state.flowing().records as u128 * u128::from(elapsed);
                    state.pressed = Some((now, state.left));
                }
            } else if state.flowing().below(cap.part(3, 4)) {
                state.pressed = None;
            }
            self.judge(at);
        }
    }

    /// Whether another record may be taken. It may go to any output, so the fullest one decides, unless it overflows.
    pub(crate) fn has_room(&self) -> bool {
        self.blocking == 0 && self.moving().below(self.limits.total)
    }

    /// Whether so much is free that a pause is worth ending.
    pub(crate) fn has_plenty(&self) -> bool {
        let half = self.cap.part(1, 2);
        let mut flowing = self.held;
        for state in self.outputs.iter().filter(|state| !state.overflows) {
            if !state.flowing().below(half) {
                return false;
            }
            flowing.records += state.flowing().records;
            flowing.bytes += state.flowing().bytes;
        }
        flowing.below(self.limits.total.part(1, 2)) && self.moving().below(self.limits.total)
    }

    /// Whether it is not worth waiting for: it has something, and for a while nothing has come or left.
    pub(crate) fn stands_still(&self, output: usize) -> bool {
        let state = &self.outputs[output];
        let (left, at) = state.moved;
        let since = at.max(state.entered);
        state.overflows || (state.left == left && self.now.saturating_sub(since) >= TOLERABLE)
    }

    /// Whether its new records are to be parked.
    pub(crate) fn overflows(&self, output: usize) -> bool {
        self.outputs[output].overflows
    }

    /// Whether more records may be held back in memory.
    pub(crate) fn may_hold(&self) -> bool {
        self.held.below(self.cap.part(1, 2))
    }

    /// Whether records that are read again may go there. They get half of the cap; the other half is for what comes in. Some of
    /// them may become dead letters, so the dead letter needs room, too. The total counts, since outputs of clusters that have
    /// left the ring may still have records.
    pub(crate) fn has_half(&self, output: usize) -> bool {
        let state = &self.outputs[output];
        let unsent = state.flowing().records.saturating_sub(state.sent);
        let half = !state.overflows && state.flowing().below(self.cap.part(1, 2)) && unsent <= self.queue / 2;
        half && self.moving().below(self.limits.total) && !self.is_full(DEAD_LETTER as usize)
    }

    /// What is out there. An output of a ring that is only announced is not known yet and has nothing.
    pub(crate) fn load(&self, output: usize) -> Load {
        self.outputs.get(output).map_or(Load::default(), |state| state.load)
    }

    pub(crate) fn total(&self) -> Load {
        self.total
    }

    /// Whether nothing is held back, no refused record stays, and no output keeps the others waiting.
    pub(crate) fn is_clear(&self) -> bool {
        self.held == Load::default() && self.heads == Load::default() && self.blocking == 0
    }

    /// Records that are handed out and not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        let sent: usize = self.outputs.iter().map(|state| state.sent).sum();
        self.moving().records.saturating_sub(sent)
    }

    fn is_full(&self, output: usize) -> bool {
        let state = &self.outputs[output];
        let unsent = state.flowing().records.saturating_sub(state.sent);
        !state.flowing().below(self.cap) || (output != DEAD_LETTER as usize && unsent >= self.queue)
    }

    fn judge(&mut self, output: usize) {
        let blocks = self.is_full(output) && !self.outputs[output].overflows;
        let state = &mut self.outputs[output];
        self.blocking -= usize::from(state.blocks);
        state.blocks = blocks;
        self.blocking += usize::from(blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(records: usize, bytes: usize) -> Caps {
        let mut caps = Caps::new(Limits {
            output: Load { records, bytes: 1_000 },
            total: Load { records: 100, bytes },
            queue: 1_000,
        });
        caps.make_known(2);
        caps.share(2);
        caps
    }

    #[test]
    fn an_output_of_a_ring_that_is_only_announced_has_nothing() {
        let caps = caps(2, 100_000);
        assert_eq!(caps.load(caps.outputs.len()).records, 0);
    }

    #[test]
    fn one_full_output_is_enough() {
        let mut caps = caps(2, 100_000);
        caps.enter(1, 1);
        caps.enter(2, 1);
        assert!(caps.has_room());
        caps.enter(2, 1);
        assert!(!caps.has_room());
        caps.leave(2, 1);
        assert!(caps.has_room());
    }

    #[test]
    fn bytes_count_as_well_as_records() {
        let mut caps = caps(50, 300);
        caps.enter(1, 60);
        caps.enter(2, 100);
        assert!(!caps.has_room(), "its share is a third of 300");
        caps.leave(2, 100);
        assert!(caps.has_room());
        assert!(!caps.has_plenty(), "60 of 100 bytes are still out");
        caps.leave(1, 60);
        assert!(caps.has_plenty() && caps.total().records == 0);
    }

    #[test]
    fn an_output_that_stands_still_stops_the_others_for_a_moment_only() {
        let mut caps = caps(2, 100_000);
        caps.enter(1, 1);
        caps.enter(1, 1);
        caps.observe(0, |_| 0);
        caps.observe(PATIENCE - 1, |_| 0);
        assert!(!caps.has_room());
        caps.observe(PATIENCE, |_| 0);
        assert!(caps.has_room() && caps.overflows(1) && caps.has_plenty());
        caps.leave(1, 1);
        caps.leave(1, 1);
        caps.observe(PATIENCE + 1, |_| 0);
        assert!(!caps.overflows(1));
    }

    #[test]
    fn what_is_handed_out_and_not_sent_is_bounded_too() {
        let mut caps = caps(50, 100_000);
        caps.queue = 3;
        (0..3).for_each(|_| caps.enter(1, 1));
        assert!(!caps.has_room() && caps.unsent() == 3);
        caps.observe(0, |output| usize::from(output == 1));
        assert!(caps.has_room() && caps.unsent() == 2);
        // The dead letter has no such bound: what it has is never told to be sent.
        (0..5).for_each(|_| caps.enter(0, 1));
        assert!(caps.has_room());
    }

    #[test]
    fn an_output_that_had_nothing_to_do_does_not_stand_still() {
        let mut caps = caps(50, 100_000);
        caps.observe(10 * TOLERABLE, |_| 0);
        caps.enter(1, 1);
        assert!(!caps.stands_still(1));
        caps.observe(11 * TOLERABLE - 1, |_| 0);
        assert!(!caps.stands_still(1));
        caps.observe(11 * TOLERABLE, |_| 0);
        assert!(caps.stands_still(1));
        caps.enter(1, 1);
        caps.leave(1, 1);
        caps.observe(11 * TOLERABLE + 1, |_| 0);
        assert!(!caps.stands_still(1));
    }

    #[test]
    fn where_most_is_held_back_a_pause_is_not_worth_ending() {
        let mut caps = caps(50, 100_000);
        (0..99).for_each(|_| caps.hold(1));
        assert!(caps.has_room() && !caps.has_plenty());
        caps.hold(1);
        assert!(!caps.has_room());
        (0..100).for_each(|_| caps.release(1));
        assert!(caps.has_plenty() && caps.is_clear());
    }

    #[test]
    fn an_output_that_is_merely_busy_slows_all_down() {
        let mut caps = caps(10, 100_000);
        (0..10).for_each(|_| caps.enter(1, 1));
        for turn in 0..100 {
            caps.observe(turn * PATIENCE, |_| 0);
            assert!(!caps.overflows(1), "turn {turn}");
            // Half of what it has in a fifth of a second: all of it takes less than half a second.
            for _ in 0..5 {
                caps.leave(1, 1);
                caps.enter(1, 1);
            }
        }
        assert!(!caps.has_room());
    }

    #[test]
    fn clusters_that_are_away_leave_room_for_the_others() {
        let mut caps = Caps::new(Limits {
            output: Load {
                records: 50,
                bytes: 1 << 20,
            },
            total: Load {
                records: 100,
                bytes: 1 << 20,
            },
            queue: 1_000,
        });
        caps.make_known(10);
        caps.share(10);
        for output in 1..10 {
            while !caps.is_full(output) {
                caps.enter(output, 1);
            }
        }
        caps.observe(0, |_| 0);
        caps.observe(PATIENCE, |_| 0);
        assert!(caps.has_room(), "{:?}", caps.total());
    }

    #[test]
    fn the_dead_letter_has_a_cap_of_its_own_and_never_overflows() {
        let mut caps = caps(1, 100_000);
        caps.enter(0, 5);
        caps.observe(0, |_| 0);
        caps.observe(10 * PATIENCE, |_| 0);
        assert!(!caps.has_room());
    }
}
