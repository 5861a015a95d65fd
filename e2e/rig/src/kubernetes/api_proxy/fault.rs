//! What may go wrong on the way to the API server.

use std::time::Duration;

use super::call::{Call, Verb};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not passed on, and answered with this code; with 429 comes the wish to wait a second.
    Refuse(u16),
    /// A watch is answered by the event that its version is too old.
    Expire,
    /// It is passed on after a while.
    Delay(Duration),
    /// It is not passed on, and the connection ends.
    Cut,
    /// It is carried out, and the connection ends without an answer.
    CutAfter,
    /// It is not passed on, the connection stays, and nothing is ever answered.
    Hang,
}

/// Which requests a fault befalls.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Requests of these verbs.
    pub verbs: &'static [Verb],
    /// And of this resource (`leases`, `assetforwarders/status`). None: of all, Leases aside: without them nobody leads, and nothing is
    /// left to be seen.
    pub resource: Option<&'static str>,
    /// Every so many of them, the first of them at once.
    pub every: u32,
    /// What becomes of those.
    pub fault: Fault,
}

impl Rule {
    fn is_about(&self, call: &Call) -> bool {
        self.verbs.contains(&call.verb)
            && self
                .resource
                .map_or(call.resource != "leases", |resource| resource == call.resource)
    }
}

/// All rules, and how many requests each has seen.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<(Rule, u32)>,
}

impl Rules {
    pub(super) fn new(rules: &[Rule]) -> Self {
        Self {
            rules: rules.iter().map(|rule| (*rule, 0)).collect(),
        }
    }

    /// What befalls a request: the first rule that hits. Each counts it.
    pub(super) fn befalls(&mut self, call: &Call) -> Option<Fault> {
        let mut befallen = None;
        for (rule, seen) in self.rules.iter_mut().filter(|(rule, _)| rule.is_about(call)) {
            let hits = seen.is_multiple_of(rule.every.max(1));
            *seen = seen.wrapping_add(1);
            if hits && befallen.is_none() {
                befallen = Some(rule.fault);
            }
        }
        befallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, resource: &str) -> Call {
        Call {
            verb,
            resource: resource.to_owned(),
            name: String::new(),
        }
    }

    #[test]
    fn every_third_write_is_hit_and_leases_only_by_name() {
        let rule = Rule {
            verbs: &[Verb::Update, Verb::Patch],
            resource: None,
            every: 3,
            fault: Fault::Cut,
        };
        let of_leases = Rule {
            resource: Some("leases"),
            every: 1,
            fault: Fault::Hang,
            ..rule
        };
        let mut rules = Rules::new(&[rule]);
        let hits: Vec<bool> = (0..6)
            .map(|_| rules.befalls(&call(Verb::Patch, "secrets")).is_some())
            .collect();
        assert_eq!(hits, [true, false, false, true, false, false]);
        assert_eq!(rules.befalls(&call(Verb::Update, "leases")), None);
        assert_eq!(rules.befalls(&call(Verb::Get, "secrets")), None);
        let mut rules = Rules::new(&[of_leases]);
        assert_eq!(rules.befalls(&call(Verb::Update, "leases")), Some(Fault::Hang));
        assert_eq!(rules.befalls(&call(Verb::Update, "secrets")), None);
    }
}
