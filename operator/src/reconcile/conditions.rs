//! Conditions in kstatus form, from one verdict.
//!
//! `Ready` is always there; `Reconciling` and `Stalled` only while they are true, and never both.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::reason::Reason;

/// What a reconcile came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as declared, for this generation.
    Ready(Words),
    /// Not yet, or not at the moment; it is worked on or waited for, and may come right without a change of the spec.
    Reconciling(Words),
    /// It can never work as declared: a person must change something.
    Stalled(Words),
}

/// A reason in one word, and a message for people: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// A fixed word.
    pub reason: Reason,
    /// For people. Nothing that changes all the time: every change is a write.
    pub message: String,
}

impl Words {
    /// A reason and its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl Verdict {
    /// All is as declared.
    pub fn ready(reason: Reason, message: impl Into<String>) -> Self {
        Self::Ready(Words::new(reason, message))
    }

    /// Not yet.
    pub fn reconciling(reason: Reason, message: impl Into<String>) -> Self {
        Self::Reconciling(Words::new(reason, message))
    }

    /// Never, as declared.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self::Stalled(Words::new(reason, message))
    }

    /// The reason and message.
    #[must_use]
    pub const fn words(&self) -> &Words {
        match self {
            Self::Ready(words) | Self::Reconciling(words) | Self::Stalled(words) => words,
        }
    }

    /// Whether it is the first kind.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

/// The condition `Ready` among these.
#[must_use]
pub fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Whether the condition `Ready` is among these, and true.
#[must_use]
pub fn are_ready(conditions: &[Condition]) -> bool {
    ready(conditions).is_some_and(|ready| ready.status == "True")
}

/// The conditions of `verdict` and `further` ones (type, whether, words) for a generation, given the `old` ones: the time of a
/// transition is `now` only where a status has changed. A further one that does not hold is left out.
#[must_use]
pub fn conditions(
    old: &[Condition],
    generation: Option<i64>,
    verdict: &Verdict,
    further: &[(&'static str, Words)],
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |type_: &str, status: bool, words: &Words| {
        let status = if status { "True" } else { "False" };
        let same = old.iter().find(|old| old.type_ == type_ && old.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: words.reason.to_string(),
            message: bounded(&words.message),
            observed_generation: generation,
            last_transition_time: same.map_or_else(|| Time(now), |same| same.last_transition_time.clone()),
        }
    };
    let mut conditions = vec![condition("Ready", verdict.is_ready(), verdict.words())];
    match verdict {
        Verdict::Ready(_) => {}
        Verdict::Reconciling(words) => conditions.push(condition("Reconciling", true, words)),
        Verdict::Stalled(words) => conditions.push(condition("Stalled", true, words)),
    }
    conditions.extend(further.iter().map(|(type_, words)| condition(type_, true, words)));
    conditions
}

/// The API refuses messages of more than 32768 bytes; nobody reads even a tenth of it.
fn bounded(message: &str) -> String {
    const MOST: usize = 2_000;
    if message.len() <= MOST {
        return message.to_owned();
    }
    let end = (0..=MOST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn brief(conditions: &[Condition]) -> Vec<(&str, &str, &str, i64)> {
        conditions
            .iter()
            .map(|c| {
                let second = c.last_transition_time.0.as_second();
                (c.type_.as_str(), c.status.as_str(), c.reason.as_str(), second)
            })
            .collect()
    }

    #[test]
    fn ready_is_always_there_and_the_others_only_while_true() {
        let ready = conditions(
            &[],
            Some(1),
            &Verdict::ready(Reason::Connected, "all is up"),
            &[],
            at(1),
        );
        assert_eq!(brief(&ready), [("Ready", "True", "Connected", 1)]);
        let waiting = conditions(
            &ready,
            Some(2),
            &Verdict::reconciling(Reason::RollingOut, "for it"),
            &[],
            at(2),
        );
        assert_eq!(
            brief(&waiting),
            [
                ("Ready", "False", "RollingOut", 2),
                ("Reconciling", "True", "RollingOut", 2)
            ]
        );
        assert_eq!(waiting[0].observed_generation, Some(2));
        let stalled = conditions(
            &waiting,
            Some(3),
            &Verdict::stalled(Reason::InvalidSpec, "spec"),
            &[],
            at(3),
        );
        assert_eq!(
            brief(&stalled),
            [
                ("Ready", "False", "InvalidSpec", 2),
                ("Stalled", "True", "InvalidSpec", 3)
            ],
            "Ready has not changed its status, so its time stays"
        );
        let further = [("Drifted", Words::new(Reason::Partitions, "more than declared"))];
        let drifted = conditions(&[], Some(3), &Verdict::ready(Reason::Connected, ""), &further, at(4));
        assert_eq!(brief(&drifted)[1], ("Drifted", "True", "Partitions", 4));
    }

    #[test]
    fn a_message_is_bounded() {
        let long = "é".repeat(5_000);
        let made = conditions(&[], None, &Verdict::ready(Reason::Connected, long), &[], at(1));
        assert!(made[0].message.len() < 2_010 && made[0].message.ends_with('…'));
    }
}
