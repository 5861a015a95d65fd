//! What is wrong with the beacon at a cluster, in words that say which permission is missing.

use std::collections::BTreeSet;

use forwarder_beacon::Subjects;
use forwarder_nats::protocol::ServerError;

/// More of them would say nothing new.
const MAX_FAULTS: usize = 6;

/// What the server denies to the connection of the beacon.
#[derive(Debug, Default)]
pub(super) struct Faults(BTreeSet<String>);

impl Faults {
    /// All of them, as one text; none: there are none.
    pub(super) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| Vec::from_iter(self.0.iter().map(String::as_str)).join("; "))
    }

    /// Adds one. Whether it is new.
    pub(super) fn add(&mut self, fault: String) -> bool {
        self.0.len() < MAX_FAULTS && self.0.insert(fault)
    }
}

/// What a violation means; none: the server said something else, after which the connection is of no use.
pub(super) fn words(error: &ServerError, subjects: &Subjects, inbox: &str) -> Option<String> {
    match error {
        ServerError::SubscriptionViolation { subject } => Some(format!(
            "the user may not subscribe to `{}`: allow that in its permissions",
            subject.escape_ascii()
        )),
        ServerError::PublishViolation { subject } => {
            let own = [subjects.digest(), subjects.pods()];
            Some(match own.iter().find(|own| own.as_bytes() == subject) {
                Some(own) => format!("the user may not publish to `{own}`: allow that in its permissions"),
                None => format!(
                    "the user may not publish answers to subscribers, as to `{}`: allow it to publish to `{inbox}.>`",
                    first_of(subject)
                ),
            })
        }
        error if !error.closes_connection() => Some(format!("the server refuses a part of the beacon: {error}")),
        _ => None,
    }
}

/// The words about answers through the publisher's connection.
pub(super) fn denied_answers(inbox: &str) -> String {
    format!(
        "the user may not publish answers to subscribers through the connection that publishes records: allow it to publish to `{inbox}.>`, \
         as permissions for responses do not cover that connection"
    )
}

/// The first token, so that each inbox is no fault of its own.
fn first_of(subject: &[u8]) -> String {
    let first = subject.split(|byte| *byte == b'.').next().unwrap_or_default();
    format!("{}.…", first.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_denial_names_the_permission_that_is_missing() {
        let subjects = Subjects::new("_FANOUT.a.b");
        let said = |text: &str| words(&ServerError::parse(text.as_bytes()), &subjects, "_INBOX");
        for (text, part) in [
            (
                "Permissions Violation for Subscription to \"_FANOUT.a.b.get\" using queue \"fanout\"",
                "may not subscribe to `_FANOUT.a.b.get`",
            ),
            (
                "Permissions Violation for Publish to \"_FANOUT.a.b.digest\"",
                "may not publish to `_FANOUT.a.b.digest`",
            ),
            (
                "Permissions Violation for Publish to \"_INBOX.x.y\"",
                "publish to `_INBOX.>`",
            ),
        ] {
            let said = said(text).unwrap();
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(said("Authorization Violation"), None);
    }

    #[test]
    fn faults_are_told_once_and_there_is_a_bound() {
        let mut faults = Faults::default();
        assert!(faults.text().is_none());
        assert!(faults.add("b".to_owned()) && faults.add("a".to_owned()) && !faults.add("a".to_owned()));
        assert_eq!(faults.text().unwrap(), "a; b");
        let new = (0..9).filter(|number| faults.add(number.to_string())).count();
        assert_eq!(new, MAX_FAULTS - 2);
        assert_eq!(faults.0.len(), MAX_FAULTS);
    }
}
