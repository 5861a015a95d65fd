//! From a seed to a plan: what runs, and which faults befall it when. Pure, so that a seed says it all.

use std::fmt;
use std::time::Duration;

use e2e_rig::random::Random;
use forwarder_core::document::{GroupProtocol, PublishMode};

/// Whether forwarders are stopped beyond their session and wake up late. A switch, to look for a fault without them.
pub(crate) const LATE_WAKERS: bool = true;

/// As for [`LATE_WAKERS`]: whether the ring changes while records flow.
pub(crate) const RING_CHANGES: bool = true;

/// How long records are sent.
const TRAFFIC: Duration = Duration::from_millis(2_500);

/// When faults begin: records flow already, and still will.
const FAULTS_MS: std::ops::Range<u64> = 200..2_000;

/// Longer than any member's session, with what the broker takes to notice.
const BEYOND_SESSION_MS: u64 = 7_500;

/// What a run is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mode: PublishMode,
    pub(crate) protocol: GroupProtocol,
    pub(crate) clusters: usize,
    /// How many there are at the start.
    pub(crate) forwarders: usize,
    /// Most records that wait for one cluster.
    pub(crate) cap: usize,
    pub(crate) rate: u32,
    pub(crate) traffic: Duration,
    /// The rings in the order of their epochs, each the places of its clusters; the first is there at the start.
    pub(crate) rings: Vec<Vec<usize>>,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
}

/// Something that is done at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) act: Act,
}

/// Clusters and forwarders are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Connections to the cluster end, new ones are refused.
    Cut(usize),
    /// Connections to the cluster end, new ones are taken.
    Reset(usize),
    /// Nothing passes, in either direction.
    Stall(usize),
    /// Publishes pass, answers do not.
    StallAnswers(usize),
    /// The cluster's network is as it should be.
    Heal(usize),
    /// SIGSTOP of the server.
    PauseServer(usize),
    /// SIGCONT of the server.
    ResumeServer(usize),
    /// SIGKILL of the server.
    KillServer(usize),
    /// The server comes back.
    StartServer(usize),
    /// SIGKILL.
    KillForwarder(usize),
    /// SIGTERM.
    StopForwarder(usize),
    /// It comes back.
    StartForwarder(usize),
    /// A further one, at the next free place.
    Join,
    /// SIGSTOP.
    PauseForwarder(usize),
    /// SIGCONT.
    ResumeForwarder(usize),
    /// The ring of this place in [`Plan::rings`].
    ChangeRing(usize),
    /// The broker restarts.
    RestartKafka,
}

/// What a fault befalls: two at a time would not be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Cluster(usize),
    Forwarder(usize),
    Kafka,
    Ring,
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut,
    Reset,
    Stall,
    StallAnswers,
    PauseServer,
    KillServer,
    KillForwarder,
    StopForwarder,
    Join,
    PauseForwarder,
    ChangeRing,
}

const KINDS: [Kind; 11] = [
    Kind::Cut,
    Kind::Reset,
    Kind::Stall,
    Kind::StallAnswers,
    Kind::PauseServer,
    Kind::KillServer,
    Kind::KillForwarder,
    Kind::StopForwarder,
    Kind::Join,
    Kind::PauseForwarder,
    Kind::ChangeRing,
];

impl Kind {
    /// A core server that dies takes with it what it had accepted, which is outside of any proof.
    fn is_fair(self, mode: PublishMode, clusters: usize) -> bool {
        match self {
            Self::KillServer => mode == PublishMode::JetStream,
            Self::PauseForwarder => LATE_WAKERS,
            Self::ChangeRing => RING_CHANGES && clusters > 2,
            _ => true,
        }
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mode = random.pick(&[PublishMode::Core, PublishMode::JetStream]);
        let clusters = random.pick(&[2, 3]);
        let mut plan = Self {
            seed,
            mode,
            protocol: random.pick(&[GroupProtocol::Classic, GroupProtocol::Classic, GroupProtocol::Consumer]),
            clusters,
            forwarders: random.pick(&[1, 2, 3]),
            cap: random.pick(&[300, 20_000]),
            rate: random.pick(&[1_000, 2_000]),
            traffic: TRAFFIC,
            rings: vec![(0..clusters).collect()],
            steps: Vec::new(),
        };
        let mut befallen: Vec<(Victim, u64, u64)> = Vec::new();
        if random.one_in(12) {
            plan.add(
                &mut befallen,
                Victim::Kafka,
                random.within(FAULTS_MS),
                0,
                Act::RestartKafka,
                None,
            );
        }
        let fair: Vec<Kind> = KINDS.into_iter().filter(|kind| kind.is_fair(mode, clusters)).collect();
        let faults = random.pick(&[2, 3, 4]);
        while plan.steps.iter().filter(|step| step.act.begins()).count() < faults {
            let kind = random.pick(&fair);
            let at = random.within(FAULTS_MS);
            let lasting = random.pick(&[100, 400, 1_500]);
            let cluster = random.pick(&(0..plan.clusters).collect::<Vec<_>>());
            let forwarder = random.pick(&(0..plan.forwarders).collect::<Vec<_>>());
            let (victim, lasting, begin, end) = match kind {
                Kind::Cut => (
                    Victim::Cluster(cluster),
                    lasting,
                    Act::Cut(cluster),
                    Some(Act::Heal(cluster)),
                ),
                Kind::Reset => (Victim::Cluster(cluster), 0, Act::Reset(cluster), None),
                Kind::Stall => (
                    Victim::Cluster(cluster),
                    lasting,
                    Act::Stall(cluster),
                    Some(Act::Heal(cluster)),
                ),
                Kind::StallAnswers => {
                    // What is held back comes out in the end, or is lost with its connection.
                    let end = random.pick(&[Act::Heal(cluster), Act::Reset(cluster)]);
                    (Victim::Cluster(cluster), lasting, Act::StallAnswers(cluster), Some(end))
                }
                Kind::PauseServer => {
                    let end = Act::ResumeServer(cluster);
                    (Victim::Cluster(cluster), lasting, Act::PauseServer(cluster), Some(end))
                }
                Kind::KillServer => {
                    let end = Act::StartServer(cluster);
                    (Victim::Cluster(cluster), lasting, Act::KillServer(cluster), Some(end))
                }
                Kind::KillForwarder => {
                    let end = Act::StartForwarder(forwarder);
                    (
                        Victim::Forwarder(forwarder),
                        lasting,
                        Act::KillForwarder(forwarder),
                        Some(end),
                    )
                }
                Kind::StopForwarder => {
                    let end = Act::StartForwarder(forwarder);
                    (
                        Victim::Forwarder(forwarder),
                        lasting,
                        Act::StopForwarder(forwarder),
                        Some(end),
                    )
                }
                Kind::Join => (Victim::Nobody, 0, Act::Join, None),
                Kind::PauseForwarder => {
                    let end = Act::ResumeForwarder(forwarder);
                    let begin = Act::PauseForwarder(forwarder);
                    (Victim::Forwarder(forwarder), BEYOND_SESSION_MS, begin, Some(end))
                }
                Kind::ChangeRing => (Victim::Ring, 0, Act::ChangeRing(plan.rings.len()), None),
            };
            if plan.add(&mut befallen, victim, at, lasting, begin, end) && victim == Victim::Ring {
                // Without one of the clusters, and with all of them again.
                let all: Vec<usize> = (0..clusters).collect();
                let without = all.iter().copied().filter(|place| *place != cluster).collect();
                let whole = plan.rings.last() == Some(&all);
                plan.rings.push(if whole { without } else { all });
            }
        }
        plan.steps.sort_by_key(|step| step.at);
        plan.number_rings();
        plan
    }

    /// Whether the broker restarts, so that it must be this run's own.
    pub(crate) fn restarts_kafka(&self) -> bool {
        self.steps.iter().any(|step| step.act == Act::RestartKafka)
    }

    /// Adds a fault unless one befalls the same victim at that time; says whether it did.
    fn add(
        &mut self,
        befallen: &mut Vec<(Victim, u64, u64)>,
        victim: Victim,
        at: u64,
        lasting: u64,
        begin: Act,
        end: Option<Act>,
    ) -> bool {
        let until = at + lasting;
        let clash = |(of, from, to): &(Victim, u64, u64)| *of == victim && at <= *to && *from <= until;
        if victim != Victim::Nobody && befallen.iter().any(clash) {
            return false;
        }
        befallen.push((victim, at, until));
        let step = |at, act| Step {
            at: Duration::from_millis(at),
            act,
        };
        self.steps.push(step(at, begin));
        self.steps.extend(end.map(|end| step(until, end)));
        true
    }

    /// Epochs grow in the order of the times, not of the dice.
    fn number_rings(&mut self) {
        let mut next = 1;
        for step in &mut self.steps {
            if let Act::ChangeRing(ring) = &mut step.act {
                *ring = next;
                next += 1;
            }
        }
    }
}

impl Act {
    /// Whether it is a fault and not the end of one.
    fn begins(self) -> bool {
        !matches!(
            self,
            Self::Heal(_)
                | Self::ResumeServer(_)
                | Self::StartServer(_)
                | Self::StartForwarder(_)
                | Self::ResumeForwarder(_)
        )
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            mode,
            protocol,
            clusters,
            forwarders,
            cap,
            rate,
            traffic,
            rings,
            steps,
        } = self;
        writeln!(
            f,
            "seed {seed}: {mode:?}, {protocol:?} protocol, {clusters} clusters (cap {cap}), {forwarders} forwarders, {rate} records/s for {traffic:?}"
        )?;
        for Step { at, act } in steps {
            write!(f, "  {:>5} ms  ", at.as_millis())?;
            match *act {
                Act::Cut(cluster) => writeln!(f, "the connections to C{} are cut", cluster + 1)?,
                Act::Reset(cluster) => writeln!(f, "the connections to C{} are reset", cluster + 1)?,
                Act::Stall(cluster) => writeln!(f, "nothing passes to or from C{}", cluster + 1)?,
                Act::StallAnswers(cluster) => writeln!(f, "no answer of C{} passes", cluster + 1)?,
                Act::Heal(cluster) => writeln!(f, "the network of C{} is well again", cluster + 1)?,
                Act::PauseServer(cluster) => writeln!(f, "C{} is stopped (SIGSTOP)", cluster + 1)?,
                Act::ResumeServer(cluster) => writeln!(f, "C{} goes on (SIGCONT)", cluster + 1)?,
                Act::KillServer(cluster) => writeln!(f, "C{} is killed", cluster + 1)?,
                Act::StartServer(cluster) => writeln!(f, "C{} is started again", cluster + 1)?,
                Act::KillForwarder(forwarder) => writeln!(f, "forwarder {forwarder} is killed")?,
                Act::StopForwarder(forwarder) => writeln!(f, "forwarder {forwarder} is told to end (SIGTERM)")?,
                Act::StartForwarder(forwarder) => writeln!(f, "forwarder {forwarder} is started again")?,
                Act::Join => writeln!(f, "a further forwarder joins")?,
                Act::PauseForwarder(forwarder) => writeln!(f, "forwarder {forwarder} is stopped (SIGSTOP)")?,
                Act::ResumeForwarder(forwarder) => writeln!(f, "forwarder {forwarder} goes on (SIGCONT)")?,
                Act::ChangeRing(ring) => {
                    let names: Vec<String> = rings[ring].iter().map(|place| format!("C{}", place + 1)).collect();
                    writeln!(f, "the ring becomes {} (epoch {})", names.join(", "), ring + 1)?;
                }
                Act::RestartKafka => writeln!(f, "the Kafka broker restarts")?,
            }
        }
        Ok(())
    }
}

#[test]
fn a_seed_says_it_all() {
    for seed in 0..1_000 {
        assert_eq!(Plan::new(seed), Plan::new(seed));
    }
    assert_ne!(Plan::new(1).steps, Plan::new(2).steps);
}

/// Otherwise a run would wait for ever, or prove nothing.
#[test]
fn every_fault_ends_and_every_kind_occurs_in_the_short_run() {
    let mut acts = Vec::new();
    for seed in 0..super::SHORT {
        let plan = Plan::new(seed);
        let down = |act: Act| match act {
            Act::Cut(place)
            | Act::Stall(place)
            | Act::StallAnswers(place)
            | Act::PauseServer(place)
            | Act::KillServer(place) => Some(Victim::Cluster(place)),
            Act::KillForwarder(place) | Act::StopForwarder(place) | Act::PauseForwarder(place) => {
                Some(Victim::Forwarder(place))
            }
            _ => None,
        };
        let up = |act: Act| match act {
            Act::Heal(place) | Act::Reset(place) | Act::ResumeServer(place) | Act::StartServer(place) => {
                Some(Victim::Cluster(place))
            }
            Act::StartForwarder(place) | Act::ResumeForwarder(place) => Some(Victim::Forwarder(place)),
            _ => None,
        };
        let mut hurt = Vec::new();
        for Step { act, .. } in &plan.steps {
            if let Some(victim) = down(*act) {
                assert!(!hurt.contains(&victim), "two at a time\n{plan}");
                hurt.push(victim);
            }
            hurt.retain(|victim| up(*act) != Some(*victim));
            acts.push(*act);
        }
        assert_eq!(hurt, [], "\n{plan}");
        let killed = |step: &Step| matches!(step.act, Act::KillServer(_));
        assert!(
            plan.mode == PublishMode::JetStream || !plan.steps.iter().any(killed),
            "\n{plan}"
        );
    }
    let kinds: std::collections::HashSet<_> = acts.iter().map(std::mem::discriminant).collect();
    // Cut to RestartKafka, without what is switched off.
    let expected = 17 - if LATE_WAKERS { 0 } else { 2 } - usize::from(!RING_CHANGES);
    assert_eq!(kinds.len(), expected);
}
