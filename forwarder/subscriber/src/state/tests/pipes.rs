//! The pipes between clusters and a client. What is on its way happens when a test lets it happen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forwarder_beacon::{Body, Ready, Request};

use super::world::{BASE, RING, World};
use crate::merge::Cluster;
use crate::state::Action;

/// What is on its way to a server.
enum Up {
    Subscribe {
        key: u64,
        subject: String,
    },
    Unsubscribe(u64),
    Publish {
        subject: String,
        reply: Option<String>,
        body: Vec<u8>,
    },
}

/// What is on its way to the client.
pub(super) enum Down {
    Record(u64, async_nats::Message),
    Inbox { subject: String, body: Vec<u8> },
    Digest(Vec<u8>),
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) is_away: bool,
    /// The client wants a connection.
    is_wanted: bool,
    pub(super) generation: Option<u64>,
    up: VecDeque<Up>,
    pub(super) down: VecDeque<Down>,
    pub(super) subscriptions: BTreeMap<u64, String>,
    inbox: String,
}

impl World {
    /// Lets everything happen that happens without time.
    pub(super) fn settle(&mut self) {
        self.step();
        while let Some(name) = self.busy().first().cloned() {
            self.advance(&name);
        }
    }

    /// Lets everything happen at one cluster, and nothing at others.
    pub(super) fn read_only(&mut self, name: &str) {
        while self.busy().iter().any(|busy| busy == name) {
            self.advance(name);
        }
    }

    /// Clusters with something on its way.
    pub(super) fn busy(&self) -> Vec<String> {
        let is_busy = |server: &Server| {
            let connects = server.is_wanted && server.generation.is_none() && !server.is_away;
            connects || !server.up.is_empty() || !server.down.is_empty()
        };
        let busy = self.servers.iter().filter(|(_, server)| is_busy(server));
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// Lets one thing happen at a cluster.
    pub(super) fn advance(&mut self, name: &str) {
        let cluster = self.number(name);
        let now = self.now;
        let server = self.servers.get_mut(name).unwrap();
        if server.is_wanted && server.generation.is_none() && !server.is_away {
            self.generations += 1;
            let inbox = format!("_INBOX.{}", self.generations);
            server.generation = Some(self.generations);
            server.inbox.clone_from(&inbox);
            self.state.up(cluster, self.generations, inbox, self.has_several, now);
        } else if let Some(up) = server.up.pop_front() {
            match up {
                Up::Subscribe { key, subject } => drop(server.subscriptions.insert(key, subject)),
                Up::Unsubscribe(key) => drop(server.subscriptions.remove(&key)),
                Up::Publish { subject, reply, body } => self.answer(name, subject, reply, &body),
            }
        } else {
            match server.down.pop_front() {
                Some(Down::Record(key, message)) => self.state.record(key, message),
                Some(Down::Inbox { subject, body }) => self.state.inbox(cluster, &subject, &body, false, now),
                Some(Down::Digest(body)) => self.state.digest(cluster, &format!("{BASE}.digest"), &body, now),
                None => {}
            }
        }
        self.step();
    }

    fn answer(&mut self, name: &str, subject: String, reply: Option<String>, body: &[u8]) {
        let mut answers = Vec::new();
        match (subject.strip_prefix(BASE), reply) {
            (Some(".get"), Some(reply)) => {
                let nonce = Request::parse(body).unwrap().nonce;
                answers.push((reply, Body::Announcement(self.announcement(&nonce))));
            }
            (Some(".ready"), Some(reply)) => {
                let nonce = Request::parse(body).unwrap().nonce;
                for pod in self.pods.iter().filter(|pod| !self.silent.contains(pod)) {
                    let ready = Ready {
                        ring: RING.to_owned(),
                        nonce: nonce.clone(),
                        pod: pod.clone(),
                        cluster: name.to_owned(),
                    };
                    answers.push((reply.clone(), Body::Ready(ready)));
                }
            }
            // An echo.
            _ => {
                let server = self.servers.get_mut(name).unwrap();
                assert!(subject.starts_with(&server.inbox), "{subject}");
                let body = Vec::new();
                return server.down.push_back(Down::Inbox { subject, body });
            }
        }
        for (subject, body) in answers {
            let body = self.signer.sign(&body).unwrap();
            let server = self.servers.get_mut(name).unwrap();
            server.down.push_back(Down::Inbox { subject, body });
        }
    }

    /// Something that anybody may have sent below our inbox.
    pub(super) fn send(&mut self, name: &str, token: &str, body: Vec<u8>) {
        let subject = format!("{}.{token}", self.servers[name].inbox);
        self.servers
            .get_mut(name)
            .unwrap()
            .down
            .push_back(Down::Inbox { subject, body });
        self.settle();
    }

    /// Ends the connection to a cluster. What is on its way is lost.
    pub(super) fn cut(&mut self, name: &str, is_away: bool) {
        let cluster = self.number(name);
        let server = self.servers.get_mut(name).unwrap();
        server.is_away = is_away;
        let generation = server.generation.take();
        (server.up, server.down) = Default::default();
        server.subscriptions.clear();
        if let Some(generation) = generation {
            self.state.down(cluster, generation, "the connection was lost");
        }
        self.settle();
    }

    /// An attempt to connect to a cluster fails.
    pub(super) fn fail(&mut self, name: &str) {
        let cluster = self.number(name);
        self.state.failed(cluster, "it is away".to_owned(), self.now);
        self.settle();
    }

    /// A server denies something.
    pub(super) fn deny(&mut self, name: &str, reason: &str) {
        let cluster = self.number(name);
        self.state.denied(cluster, reason.to_owned());
        self.settle();
    }

    /// What is on its way to a cluster, and from it, never arrives.
    pub(super) fn hang(&mut self, name: &str) {
        let server = self.servers.get_mut(name).unwrap();
        (server.up, server.down) = Default::default();
    }

    /// Has the client ask for the announcement, without an answer. Yields the question's number and nonce.
    pub(super) fn ask(&mut self, name: &str) -> (u64, String) {
        let cluster = self.number(name);
        self.state.ask(cluster, self.now);
        self.step();
        self.hang(name);
        let asked = self.state.links[&cluster].asked.as_ref().unwrap();
        (asked.token, asked.nonce.clone())
    }

    /// The number and the nonce of the question for proofs.
    pub(super) fn round(&mut self, name: &str) -> (u64, String) {
        let cluster = self.number(name);
        let round = self.state.links[&cluster].round.as_ref().unwrap();
        (round.token, round.nonce.clone())
    }

    /// As [`Self::send`], after a second in which nothing else happens.
    pub(super) fn send_alone(&mut self, name: &str, token: &str, body: Vec<u8>) {
        let cluster = self.number(name);
        let subject = format!("{}.{token}", self.servers[name].inbox);
        self.now += Duration::from_secs(1);
        self.state.inbox(cluster, &subject, &body, false, self.now);
        self.state.setup.told.flush(self.now);
    }

    pub(super) fn is_connected(&self, name: &str) -> bool {
        self.servers.get(name).is_some_and(|server| server.generation.is_some())
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.settle();
    }

    fn number(&mut self, name: &str) -> Cluster {
        self.state.names.number(name)
    }

    fn step(&mut self) {
        loop {
            let actions = self.state.step(self.now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { cluster, .. } => {
                let name = self.state.name(cluster).to_string();
                let server = self.servers.entry(name).or_default();
                server.is_wanted = true;
                if server.is_away {
                    self.state.failed(cluster, "it is away".to_owned(), self.now);
                }
            }
            Action::Disconnect { cluster } => {
                let name = self.state.name(cluster).to_string();
                let is_away = self.servers[&name].is_away;
                let server = Server {
                    is_away,
                    ..Server::default()
                };
                self.servers.insert(name, server);
            }
            Action::Subscribe {
                cluster,
                generation,
                key,
                subject,
            } => self.push(cluster, generation, Up::Subscribe { key, subject }),
            Action::Unsubscribe { key } => {
                for server in self.servers.values_mut() {
                    server.up.push_back(Up::Unsubscribe(key));
                }
            }
            Action::Publish {
                cluster,
                generation,
                subject,
                reply,
                body,
            } => self.push(cluster, generation, Up::Publish { subject, reply, body }),
            // Nothing waits between the pipe and the state.
            Action::Drain { fence, .. } => self.state.drained(fence, self.now),
            Action::Probe { .. } => {
                self.probes += 1;
                self.state.probed(None, self.now);
            }
        }
    }

    fn push(&mut self, cluster: Cluster, generation: u64, up: Up) {
        let name = self.state.name(cluster).to_string();
        let server = self.servers.get_mut(&name).unwrap();
        if server.generation == Some(generation) {
            server.up.push_back(up);
        }
    }
}
