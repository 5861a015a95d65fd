//! What the servers say about JetStream, put together: each group's leader alone knows how far its followers are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// A server's answer to `/jsz?accounts=true&streams=true&consumers=true&config=true`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Jsz {
    #[serde(default)]
    meta_cluster: Option<MetaCluster>,
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct MetaCluster {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Account {
    #[serde(default)]
    name: String,
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Stream {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cluster: Option<Cluster>,
    #[serde(default)]
    config: Option<StreamConfig>,
    #[serde(default)]
    consumer_detail: Vec<Consumer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct StreamConfig {
    #[serde(default)]
    num_replicas: usize,
    #[serde(default)]
    storage: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Consumer {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cluster: Option<Cluster>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Peer>,
}

/// Another server of a group, as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Peer {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) current: bool,
    #[serde(default)]
    pub(super) offline: bool,
}

impl Peer {
    fn is_behind(&self) -> bool {
        !self.current || self.offline
    }
}

/// All servers' answers as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Which servers have answered. What the others have is unknown.
    pub(super) answered: BTreeSet<String>,
    /// The group that places streams; none: no leader is known, or two say that they are it.
    pub(super) meta: Option<Led>,
    /// Streams and consumers.
    pub(super) groups: Vec<Group>,
}

/// A group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Led {
    /// The leader.
    pub(super) leader: String,
    /// The others.
    pub(super) peers: Vec<Peer>,
}

impl Led {
    /// The first that does not have everything.
    pub(super) fn behind(&self) -> Option<&str> {
        self.peers
            .iter()
            .find(|peer| peer.is_behind())
            .map(|peer| peer.name.as_str())
    }
}

/// A stream, or a consumer of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The account.
    pub(super) account: String,
    /// The stream.
    pub(super) stream: String,
    /// The consumer; none: it is the stream itself.
    pub(super) consumer: Option<String>,
    /// Copies that a stream is to have; 0 for consumers, which may have fewer than their stream.
    pub(super) replicas: usize,
    /// Whether a stream is kept in memory.
    pub(super) in_memory: bool,
    /// The servers that have it.
    pub(super) servers: BTreeSet<String>,
    /// As its leader sees it; none: there is no leader, or two say that they are it.
    pub(super) led: Option<Led>,
}

impl Group {
    /// For people.
    pub(super) fn name(&self) -> String {
        match &self.consumer {
            Some(consumer) => format!("the consumer {consumer} of the stream {}", self.stream),
            None => format!("the stream {}", self.stream),
        }
    }
}

impl View {
    /// From each server's name and answer.
    pub(super) fn of(answers: &[(String, Jsz)]) -> Self {
        let meta = answers.iter().filter_map(|(server, answer)| {
            let meta = answer.meta_cluster.as_ref().filter(|meta| meta.leader == *server)?;
            Some(Led {
                leader: server.clone(),
                peers: meta.replicas.clone(),
            })
        });
        let mut groups = BTreeMap::new();
        for (server, answer) in answers {
            for account in &answer.account_details {
                for stream in &account.stream_detail {
                    note(&mut groups, server, &account.name, stream);
                }
            }
        }
        let groups = groups.into_values().map(|(mut group, leds)| {
            group.led = only(leds.into_iter());
            group
        });
        Self {
            answered: answers.iter().map(|(server, _)| server.clone()).collect(),
            groups: groups.collect(),
            meta: only(meta),
        }
    }
}

type Groups = BTreeMap<(String, String, Option<String>), (Group, Vec<Led>)>;

fn note(groups: &mut Groups, server: &str, account: &str, stream: &Stream) {
    let mut add = |consumer: Option<&str>, cluster: Option<&Cluster>| {
        let key = (account.to_owned(), stream.name.clone(), consumer.map(str::to_owned));
        let (group, leds) = groups.entry(key.clone()).or_default();
        (group.account, group.stream, group.consumer) = key;
        group.servers.insert(server.to_owned());
        if let Some(config) = stream.config.as_ref().filter(|_| consumer.is_none()) {
            group.replicas = config.num_replicas;
            group.in_memory = config.storage == "memory";
        }
        match cluster {
            Some(cluster) if cluster.leader == server => leds.push(Led {
                leader: server.to_owned(),
                peers: cluster.replicas.clone(),
            }),
            Some(_) => {}
            // A server that is alone leads all that it has.
            None => leds.push(Led {
                leader: server.to_owned(),
                peers: Vec::new(),
            }),
        }
    };
    add(None, stream.cluster.as_ref());
    for consumer in &stream.consumer_detail {
        add(Some(&consumer.name), consumer.cluster.as_ref());
    }
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}
