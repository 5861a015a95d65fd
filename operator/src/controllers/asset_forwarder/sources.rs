//! What pods read, as their Deployment notes it.

use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

use super::names;

/// Topics of one Kafka by way of their channels, and the group that reads them.
///
/// The Deployment notes it as a text: `channel topic, channel topic group`. Neither a channel nor a topic has a comma or a space in its
/// name. With one source it is the text of releases that knew no second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Channel, as `namespace/name`, and topic; the first source first.
    topics: Vec<(String, String)>,
    group: String,
}

impl Sources {
    /// Of pairs of a channel and its topic.
    #[must_use]
    pub fn new<'a>(topics: impl IntoIterator<Item = (&'a str, &'a str)>, group: &str) -> Self {
        let topics = topics.into_iter();
        Self {
            topics: topics
                .map(|(channel, topic)| (channel.to_owned(), topic.to_owned()))
                .collect(),
            group: group.to_owned(),
        }
    }

    /// What the Deployment's pods read; none: it does not say so, or cannot be read.
    #[must_use]
    pub fn noted(deployment: &Deployment) -> Option<Self> {
        Self::parse(deployment.annotations().get(names::SOURCE)?)
    }

    /// All that the Deployment's pods may read: what it notes, and what its rollout has not replaced yet. None: it does not say so.
    #[must_use]
    pub fn of_pods(deployment: &Deployment) -> Option<Self> {
        let mut sources = Self::noted(deployment)?;
        let former = deployment.annotations().get(names::FORMER_SOURCE);
        if let Some(former) = former.and_then(|former| Self::parse(former))
            && former.group == sources.group
        {
            sources.topics.extend(former.topics);
        }
        Some(sources)
    }

    /// What is read here and not there, in the group of both; none: nothing.
    #[must_use]
    pub fn without(mut self, others: &Self) -> Option<Self> {
        let group = self.group.clone();
        self.topics
            .retain(|(channel, topic)| !others.contains(channel, topic, &group));
        (self.group == others.group && !self.topics.is_empty()).then_some(self)
    }

    /// The channels and topics that are read in that group.
    pub fn in_group<'a>(&'a self, group: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let topics = if self.group == group {
            self.topics.as_slice()
        } else {
            &[]
        };
        topics.iter().map(|(channel, topic)| (channel.as_str(), topic.as_str()))
    }

    /// Of the text that a Deployment notes; none: it cannot be read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut topics, mut rest) = (Vec::new(), text);
        loop {
            let (channel, after) = rest.split_once(' ')?;
            let (topic, after) = after.split_once(' ')?;
            rest = after;
            let more = topic.strip_suffix(',');
            topics.push((channel.to_owned(), more.unwrap_or(topic).to_owned()));
            if more.is_none() {
                break;
            }
        }
        Some(Self {
            topics,
            group: rest.to_owned(),
        })
    }

    /// Whether that topic is read by way of that channel, in that group.
    #[must_use]
    pub fn contains(&self, channel: &str, topic: &str, group: &str) -> bool {
        let mut topics = self.topics.iter();
        self.group == group && topics.any(|(of, name)| of == channel && name == topic)
    }

    /// Whether both are read in one group, and share a topic. So they are of one Kafka.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> bool {
        let mut topics = self.topics.iter();
        topics.any(|(channel, topic)| other.contains(channel, topic, &self.group))
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (channel, topic)) in self.topics.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(out, "{comma}{channel} {topic}")?;
        }
        write!(out, " {}", self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_whatever_the_group_is_called() {
        for group in ["g", "a group, of b c", "a, b"] {
            let one = Sources::new([("plant/a", "t.a")], group);
            assert_eq!(one.to_string(), format!("plant/a t.a {group}"), "as it always was");
            let two = Sources::new([("plant/a", "t.a"), ("other/b", "t_b")], group);
            assert_eq!(two.to_string(), format!("plant/a t.a, other/b t_b {group}"));
            for sources in [one, two] {
                assert_eq!(Sources::parse(&sources.to_string()), Some(sources));
            }
        }
        assert_eq!(Sources::parse("nonsense"), None);
        assert_eq!(Sources::parse("plant/a t.a,"), None);
    }

    #[test]
    fn sources_overlap_that_have_the_group_and_a_topic_in_common() {
        let of = |topics: &[(&'static str, &'static str)], group| Sources::new(topics.iter().copied(), group);
        let (a, b, c) = (("n/a", "a"), ("n/b", "b"), ("n/c", "c"));
        assert!(of(&[a], "g").overlap(&of(&[a, b], "g")));
        assert!(of(&[a, b], "g").overlap(&of(&[b, c], "g")));
        assert!(!of(&[a, b], "g").overlap(&of(&[c], "g")));
        assert!(!of(&[a], "g").overlap(&of(&[a], "h")));
        assert!(
            !of(&[a], "g").overlap(&of(&[("n/a", "made-anew")], "g")),
            "the channel is another one by now"
        );
        assert!(of(&[a, b], "g").contains("n/b", "b", "g") && !of(&[a, b], "g").contains("n/b", "b", "h"));
    }

    #[test]
    fn what_a_rollout_replaces_counts_as_read_until_it_is_noted_no_more() {
        let of = |topics: &[(&'static str, &'static str)], group| Sources::new(topics.iter().copied(), group);
        let (a, b) = (("n/a", "a"), ("n/b", "b"));
        assert_eq!(of(&[a, b], "g").without(&of(&[b], "g")), Some(of(&[a], "g")));
        assert_eq!(of(&[a], "g").without(&of(&[a, b], "g")), None);
        assert_eq!(
            of(&[a], "h").without(&of(&[b], "g")),
            None,
            "its pods end before the others begin"
        );
        let mut deployment = Deployment::default();
        deployment
            .annotations_mut()
            .insert(names::SOURCE.to_owned(), of(&[b], "g").to_string());
        assert_eq!(Sources::of_pods(&deployment), Some(of(&[b], "g")));
        deployment
            .annotations_mut()
            .insert(names::FORMER_SOURCE.to_owned(), of(&[a], "g").to_string());
        let all = Sources::of_pods(&deployment).unwrap();
        assert_eq!(all.in_group("g").collect::<Vec<_>>(), [b, a]);
        assert_eq!(all.in_group("h").count(), 0);
    }
}
