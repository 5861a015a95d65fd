//! The publishers: one for each cluster that is, was or is about to be in the ring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc as blocking;

use forwarder_core::delivery::DEAD_LETTER;
use forwarder_core::document::{Checked, Cluster};
use forwarder_core::fanout::dispatch::RingEpoch;
use tokio::sync::mpsc;
use tracing::{Instrument, info, info_span};

use super::mirror::Room;
use super::{Answers, Link, Publisher, ToPublisher, answers};
use crate::lease::Lease;
use crate::message::Message;
use crate::metrics::{ClusterMetrics, Metrics, MirrorDrop};
use crate::outputs::{Command, Receipts};
use crate::tasks::Tasks;
use forwarder_nats::server::AddressError;
use forwarder_service::clock::Clock;

/// Starts publishers and ends them.
pub struct Publishers {
    config: Arc<Checked>,
    receipts: blocking::Sender<Receipts>,
    metrics: Metrics,
    clock: Clock,
    lease: Lease,
    tasks: Tasks,
    /// By output; an output's number is never used again.
    members: BTreeMap<u32, Member>,
    next: u32,
}

/// A publisher that runs.
pub struct Member {
    /// Its cluster, as declared now.
    pub cluster: Cluster,
    /// Its cluster's metrics.
    pub metrics: ClusterMetrics,
    /// Its connection.
    pub link: Link,
    /// What subscribers are to get through its connection.
    pub answers: Answers,
    /// The room for copies that it is given.
    room: Room,
    commands: mpsc::UnboundedSender<ToPublisher>,
}

impl Member {
    /// Gives the publisher a command.
    pub fn command(&self, command: Command<Message>) {
        self.send(command.into());
    }

    /// Gives the publisher a copy of what another cluster has confirmed. It is dropped and counted if too many wait.
    pub fn copy(&self, message: Arc<Message>) {
        match self.room.copy(message) {
            Some(copy) => self.send(ToPublisher::Copy(copy)),
            None => self.metrics.mirror.dropped(MirrorDrop::Full).inc(),
        }
    }

    /// Whether copies wait to be written, or for the server's word.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        !self.room.is_empty()
    }

    /// Has the publisher drop copies that its cluster is not to get any more. Copies that are given later are by that ring.
    pub fn use_ring(&self, ring_epoch: &RingEpoch) {
        self.send(ToPublisher::Ring(ring_epoch.clone()));
    }

    fn send(&self, command: ToPublisher) {
        // A publisher ends only when this sender is dropped, so it hears this. One that has panicked ends the process.
        self.commands.send(command).ok();
    }
}

impl Publishers {
    /// Without a publisher. `receipts` is where all of them report.
    #[must_use]
    pub fn new(
        config: Arc<Checked>,
        receipts: blocking::Sender<Receipts>,
        metrics: Metrics,
        clock: Clock,
        lease: Lease,
        tasks: Tasks,
    ) -> Self {
        Self {
            config,
            receipts,
            metrics,
            clock,
            lease,
            tasks,
            members: BTreeMap::new(),
            next: DEAD_LETTER + 1,
        }
    }

    /// The output of a cluster: the one that it has, told of what is declared now, or a new one.
    ///
    /// # Errors
    /// A server's URL that cannot be read.
    pub fn open(&mut self, cluster: &Cluster) -> Result<u32, AddressError> {
        let known = self
            .members
            .iter_mut()
            .find(|(_, member)| member.cluster.name == cluster.name);
        if let Some((output, member)) = known {
            // How much of the ring is its is nothing to its connection.
            member.cluster.weight = cluster.weight;
            // Nor is what subscribers are told of it.
            member.cluster.client_servers.clone_from(&cluster.client_servers);
            if member.cluster != *cluster {
                info!(
                    cluster = cluster.name,
                    "the configuration of the cluster has changed; connecting again"
                );
                member.cluster = cluster.clone();
                member.send(ToPublisher::Reach(Box::new(cluster.clone())));
            }
            return Ok(*output);
        }
        let output = self.next;
        let (commands_in, commands) = mpsc::unbounded_channel();
        let (answers, answers_out) = answers::queue();
        let link = Link::default();
        let publisher = Publisher::new(
            output,
            cluster,
            &self.config,
            commands,
            answers_out,
            self.receipts.clone(),
            self.metrics.clone(),
            self.clock,
            self.lease.clone(),
            link.clone(),
        )?;
        self.next += 1;
        let span = info_span!("publisher", cluster = cluster.name);
        let task = publisher.run().instrument(span);
        self.tasks.spawn(format!("publisher {}", cluster.name), task);
        let member = Member {
            cluster: cluster.clone(),
            metrics: self.metrics.cluster(&cluster.name),
            link,
            answers,
            room: Room::default(),
            commands: commands_in,
        };
        self.members.insert(output, member);
        Ok(output)
    }

    /// Ends the publishers that are not to be kept; what they have is lost to them, so they should have nothing.
    pub fn keep(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let metrics = &self.metrics;
        self.members.retain(|output, member| {
            let kept = keep(*output);
            if !kept {
                info!(
                    cluster = member.cluster.name,
                    "the cluster has left the ring and has no records left; its publisher ends"
                );
                metrics.forget_cluster(&member.cluster.name);
            }
            kept
        });
    }

    /// How many publishers there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// A publisher.
    #[must_use]
    pub fn get(&self, output: u32) -> Option<&Member> {
        self.members.get(&output)
    }

    /// All publishers, by output.
    pub fn members(&self) -> impl Iterator<Item = (u32, &Member)> {
        self.members.iter().map(|(output, member)| (*output, member))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Handle;

    use super::*;
    use forwarder_service::heartbeat::Health;

    #[tokio::test]
    async fn publishers_that_have_ended_are_forgotten_when_others_start() {
        let config = Checked::from_yaml(
            "
source: {connection: {bootstrapServers: ['k:9092']}, topic: t, group: g}
ring: {epoch: 1, clusters: [{name: C1, servers: ['nats://127.0.0.1:1']}]}
",
        )
        .unwrap();
        let clock = Clock::start();
        let tasks = Tasks::new(Handle::current(), Health::default());
        let mut publishers = Publishers::new(
            Arc::new(config.clone()),
            blocking::channel().0,
            Metrics::new(&config.admin).unwrap(),
            clock,
            Lease::new(clock, Duration::from_secs(1)),
            tasks.clone(),
        );
        let cluster = |name: &str| Cluster {
            name: name.to_owned(),
            ..config.ring.clusters[0].clone()
        };
        let stays = publishers.open(&cluster("stays")).unwrap();
        for number in 0..3 {
            publishers.open(&cluster(&number.to_string())).unwrap();
            assert_eq!(publishers.size(), 2);
            assert_eq!(tasks.running().len(), 2, "the one that stays, and the newest");
            publishers.keep(|output| output == stays);
            assert_eq!(publishers.size(), 1);
            tokio::time::timeout(Duration::from_secs(10), async {
                while !tasks.running()[1] {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
        }
    }
}
