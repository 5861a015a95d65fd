//! Which settings a broker refuses. It says so of all together, and our library loses the words in which it names the first one.
//!
//! So the brokers are asked about one after the other. How often and how long is bounded here: they may be slow, and how many settings
//! others have set on a topic is theirs to say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::seen::{Failure, Kind};
use super::settings;

/// For all questions together. One takes some milliseconds.
pub(super) const WITHIN: Duration = Duration::from_secs(20);

/// A question that could not be answered in the time that is left is not asked.
const SHORTEST: Duration = Duration::from_millis(100);

/// Most questions: a spec has 64 settings at most, and two rounds are usual.
const MOST_QUESTIONS: usize = 150;

/// Most settings of others that are sent along with each question. Kafka knows some forty of a topic.
const MOST_OTHERS: usize = 100;

/// What is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A setting of `spec.topic.config`.
    Declared { name: String, value: String },
    /// Some of those that others have set on the topic.
    Others,
}

/// Every setting of `declared` that is refused beside `others` and the accepted ones, and whether `others` are refused themselves.
/// `check` asks the brokers about some without writing them, within the time that it is given. None: the time or the number of
/// questions was not enough.
///
/// # Errors
/// The brokers do not answer, or refuse for another reason.
pub(super) fn refused(
    declared: &BTreeMap<String, String>,
    others: &BTreeMap<String, String>,
    deadline: Instant,
    mut check: impl FnMut(&BTreeMap<String, String>, Duration) -> Result<(), Failure>,
) -> Result<Option<Vec<Refusal>>, Failure> {
    if others.len() > MOST_OTHERS {
        return Ok(None);
    }
    let mut questions = 0;
    let mut is_taken = |some: &BTreeMap<String, String>| {
        let left = deadline.saturating_duration_since(Instant::now());
        if questions == MOST_QUESTIONS || left < SHORTEST {
            return Ok(None);
        }
        questions += 1;
        match check(some, left) {
            Ok(()) => Ok(Some(true)),
            Err(failure) if failure.kind == Kind::Settings => Ok(Some(false)),
            // It was cut short by the deadline.
            Err(failure) if failure.kind == Kind::Unreachable && Instant::now() >= deadline => Ok(None),
            Err(failure) => Err(failure),
        }
    };
    let others_taken = if others.is_empty() {
        Some(true)
    } else {
        is_taken(others)?
    };
    let Some(others_taken) = others_taken else {
        return Ok(None);
    };
    let mut taken = if others_taken { others.clone() } else { BTreeMap::new() };
    let mut open: Vec<_> = declared.iter().collect();
    let refused = loop {
        let mut refused = Vec::new();
        for (name, value) in &open {
            taken.insert((*name).clone(), (*value).clone());
            match is_taken(&taken)? {
                Some(true) => {}
                Some(false) => {
                    taken.remove(*name);
                    refused.push((*name, *value));
                }
                None => return Ok(None),
            }
        }
        // One may be taken only beside another one, which came later.
        if refused.is_empty() || refused.len() == open.len() {
            break refused;
        }
        open = refused;
    };
    let mut refusals: Vec<_> = refused
        .into_iter()
        .map(|(name, value)| Refusal::Declared {
            name: name.clone(),
            value: value.clone(),
        })
        .collect();
    if !others_taken {
        // They too may be taken only beside a declared one.
        taken.extend(others.clone());
        match is_taken(&taken)? {
            Some(true) => {}
            Some(false) => refusals.push(Refusal::Others),
            None => return Ok(None),
        }
    }
    Ok(Some(refusals))
}

/// The refusals in words: each setting with what is wrong with it.
pub(super) fn told(refusals: &[Refusal]) -> String {
    let sentences = refusals.iter().map(|refusal| match refusal {
        Refusal::Declared { name, value } => format!(
            "Kafka refuses {name}: {value:?} in spec.topic.config: {}",
            settings::fault(name, value)
        ),
        Refusal::Others => {
            "Kafka refuses settings that others have set on the topic: correct them with Kafka's own tools".to_owned()
        }
    });
    sentences.collect::<Vec<_>>().join(". ")
}
