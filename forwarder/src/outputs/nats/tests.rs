//! Addresses that change and partitions that are given up, met with servers that play a script.

use std::sync::Arc;

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::{Input, PartitionId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::message::Origin;
use forwarder_nats::server::ServerAddress;

/// For what happens at once; a longer wait is a failure.
const SOON: Duration = Duration::from_secs(10);

/// A publisher with the other ends of its channels.
pub(super) struct Rig {
    pub(super) publisher: Publisher,
    pub(super) commands: mpsc::UnboundedSender<ToPublisher>,
    pub(super) receipts: blocking::Receiver<Receipts>,
    pub(super) counters: ClusterMetrics,
    pub(super) answers: Answers,
    pub(super) lease: Lease,
}

/// A publisher to `server` that may write. `publish` is the document's section.
pub(super) fn rig(server: &str, publish: &str) -> Rig {
    let config = Checked::from_yaml(&format!(
        "
source: {{connection: {{bootstrapServers: ['k:9092']}}, topic: t, group: g}}
ring: {{epoch: 1, clusters: [{{name: C1, servers: ['nats://{server}']}}]}}
publish: {publish}
"
    ))
    .unwrap();
    let metrics = Metrics::new(&config.admin).unwrap();
    let counters = metrics.cluster("C1");
    let clock = Clock::start();
    let lease = Lease::new(clock, Duration::from_secs(600));
    lease.renew(clock.micros());
    let (commands, commands_out) = mpsc::unbounded_channel();
    let (answers, answers_out) = answers::queue();
    let (receipts_in, receipts) = blocking::channel();
    let publisher = Publisher::new(
        1,
        &config.ring.clusters[0],
        &config,
        commands_out,
        answers_out,
        receipts_in,
        metrics,
        clock,
        lease.clone(),
        Link::default(),
    )
    .unwrap();
    Rig {
        publisher,
        commands,
        receipts,
        counters,
        answers,
        lease,
    }
}

pub(super) fn partition(number: i32) -> PartitionId {
    PartitionId::new(Input::FIRST, number).unwrap()
}

pub(super) fn message(number: i32, lane: u64) -> Message {
    let tag = Tag {
        partition: partition(number),
        epoch: 1,
        offset: 0,
        sequence: 0,
    };
    Message::pack(Origin::new(tag, None), lane, 0, b"subject", b"", b"body", b"")
}

/// A server that nobody has connected to yet.
pub(super) struct Server {
    listener: TcpListener,
    pub(super) address: String,
}

impl Server {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    /// Takes a client in, up to its log-in, and leaves it waiting for the answer. `elsewhere`: another server of the cluster.
    pub(super) async fn greet(&self, elsewhere: &str) -> Client {
        let (socket, _) = tokio::time::timeout(SOON, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut client = Client {
            socket,
            seen: String::new(),
        };
        client
            .say(&format!(
                "INFO {{\"version\":\"2.15.1\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"connect_urls\":[\"{elsewhere}\"]}}\r\n"
            ))
            .await;
        client.hear("PING\r\nPING\r\n").await;
        client
    }

    /// The command to reach the cluster here from now on.
    fn reach(&self, publisher: &Publisher) -> ToPublisher {
        let mut cluster = publisher.cluster.clone();
        cluster.servers = vec![format!("nats://{}", self.address)];
        ToPublisher::Reach(Box::new(cluster))
    }
}

pub(super) struct Client {
    socket: TcpStream,
    /// What it has sent and nobody has waited for.
    seen: String,
}

impl Client {
    /// A client that has left hears nothing, which is no fault.
    pub(super) async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.ok();
    }

    pub(super) async fn hear(&mut self, text: &str) {
        tokio::time::timeout(SOON, async {
            while !self.seen.contains(text) {
                let mut bytes = [0; 4096];
                let count = self.socket.read(&mut bytes).await.unwrap();
                assert!(count > 0, "left without {text:?}, after {:?}", self.seen);
                self.seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
        })
        .await
        .unwrap();
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    /// All that the client sends until it leaves.
    pub(super) async fn hear_out(mut self) -> String {
        tokio::time::timeout(SOON, self.socket.read_to_string(&mut self.seen))
            .await
            .unwrap()
            .ok();
        self.seen
    }
}

#[tokio::test]
async fn who_is_declared_elsewhere_while_connecting_is_reached_only_there() {
    let (old, new) = (Server::new().await, Server::new().await);
    let Rig {
        mut publisher,
        commands,
        ..
    } = rig(&old.address, "{}");
    let reach = new.reach(&publisher);
    let script = async {
        let mut client = old.greet("old.example.com:4222").await;
        commands.send(reach).unwrap();
        client.say("PONG\r\nPONG\r\n").await;
        let mut moved = new.greet("new.example.com:4222").await;
        moved.say("PONG\r\nPONG\r\n").await;
        (client, moved)
    };
    let connecting = tokio::time::timeout(SOON, publisher.connect());
    let (connected, (_client, _moved)) = tokio::join!(connecting, script);
    let ControlFlow::Continue(Ok((server, _connection))) = connected.unwrap() else {
        panic!("no connection");
    };
    assert_eq!(server, ServerAddress::parse(&new.address).unwrap());
    assert_eq!(publisher.servers.len(), 2, "its own servers, and none of the old ones");
    assert!(!publisher.moved, "the connection is to be kept");
}

#[tokio::test]
async fn an_old_address_gets_no_record_when_another_is_declared_while_connecting() {
    let (old, new) = (Server::new().await, Server::new().await);
    let Rig {
        publisher,
        commands,
        receipts,
        ..
    } = rig(&old.address, "{}");
    let reach = new.reach(&publisher);
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    let running = tokio::spawn(publisher.run());
    let mut client = old.greet("old.example.com:4222").await;
    commands.send(reach).unwrap();
    client.say("PONG\r\nPONG\r\n").await;
    assert_eq!(client.hear_out().await, "");
    let mut moved = new.greet("new.example.com:4222").await;
    moved.say("PONG\r\nPONG\r\n").await;
    moved.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    moved.say("PONG\r\n").await;
    drop(commands);
    assert_eq!(moved.hear_out().await, "");
    running.await.unwrap();
    drop(receipts);
}

#[tokio::test]
async fn a_connection_stays_that_was_made_after_the_new_address_was_declared() {
    let (old, new) = (Server::new().await, Server::new().await);
    let Rig {
        mut publisher,
        commands,
        counters,
        ..
    } = rig(&old.address, "{}");
    commands.send(new.reach(&publisher)).unwrap();
    assert!(publisher.pause(SOON / 100).await.is_continue());
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    let running = tokio::spawn(publisher.run());
    let mut client = new.greet("new.example.com:4222").await;
    client.say("PONG\r\nPONG\r\n").await;
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    client.say("PONG\r\n").await;
    // Each write has an answer, so the connection was there for both.
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    assert_eq!(counters.reconnects.get(), 0);
    drop(commands);
    running.await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_to_leave_gets_nothing_more_and_what_it_has_got_is_awaited() {
    let (old, new) = (Server::new().await, Server::new().await);
    let Rig {
        publisher,
        commands,
        counters,
        receipts,
        ..
    } = rig(&old.address, "{}");
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    let running = tokio::spawn(publisher.run());
    let mut client = old.greet(&new.address).await;
    client.say("PONG\r\nPONG\r\n").await;
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    let lame_duck = format!(
        "INFO {{\"version\":\"2.15.1\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"ldm\":true,\"connect_urls\":[\"{}\"]}}\r\n",
        new.address
    );
    // Its answer to the PING is behind the INFO.
    client.say(&format!("{lame_duck}PING\r\n")).await;
    client.hear("PONG\r\n").await;
    commands.send(Command::Deliver(vec![message(0, 2)]).into()).unwrap();
    client.say("PING\r\n").await;
    client.hear("PONG\r\n").await;
    client.say("PONG\r\n").await;
    assert_eq!(client.hear_out().await, "");
    let mut elsewhere = new.greet(&new.address).await;
    elsewhere.say("PONG\r\nPONG\r\n").await;
    elsewhere.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    elsewhere.say("PONG\r\n").await;
    drop(commands);
    assert_eq!(elsewhere.hear_out().await, "");
    assert_eq!(counters.repeats_possible.get(), 0);
    running.await.unwrap();
    drop(receipts);
}

/// It may be lame in earnest: what it does not answer is sent elsewhere, after a while.
#[tokio::test]
async fn a_server_that_asks_to_leave_and_answers_nothing_is_left_after_the_confirm_timeout() {
    let (old, new) = (Server::new().await, Server::new().await);
    let Rig {
        publisher,
        commands,
        counters,
        receipts,
        ..
    } = rig(&old.address, "{retry: {confirmTimeoutMs: 300}}");
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    let running = tokio::spawn(publisher.run());
    let mut client = old.greet(&new.address).await;
    client.say("PONG\r\nPONG\r\n").await;
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    client.say("INFO {\"max_payload\":1048576,\"ldm\":true}\r\n").await;
    assert_eq!(client.hear_out().await, "");
    let mut elsewhere = old.greet(&new.address).await;
    elsewhere.say("PONG\r\nPONG\r\n").await;
    elsewhere.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    assert_eq!(counters.repeats_possible.get(), 1);
    drop(commands);
    running.await.unwrap();
    drop(receipts);
}

#[test]
fn who_gave_partitions_up_is_answered_only_when_their_bytes_are_cut() {
    let mut publisher = rig("127.0.0.1:1", "{}").publisher;
    let abandon = |publisher: &mut Publisher, number: i32| {
        let (done, answer) = blocking::channel();
        publisher.obey(Command::Abandon {
            assignments: Arc::from([(partition(number), 1)]),
            done,
        });
        move || answer.try_recv() == Err(blocking::TryRecvError::Disconnected)
    };
    publisher.obey(Command::Deliver(vec![message(0, 1)]));
    assert!(publisher.outbox.next(0).is_some());
    let first = abandon(&mut publisher, 0);
    // It has nothing of this one, and nothing new of that one.
    let other = abandon(&mut publisher, 1);
    let again = abandon(&mut publisher, 0);
    assert!(!first(), "the bytes of its record may still wait");
    assert!(!other(), "nobody can tell whose bytes wait");
    assert!(!again(), "the bytes of its record still wait");
    publisher.cutting.clear();
    assert!(first() && other() && again());
    assert!(abandon(&mut publisher, 1)(), "nothing waits");
}

#[tokio::test]
async fn an_answer_goes_out_between_records_and_its_denial_is_no_word_about_them() {
    let server = Server::new().await;
    let Rig {
        publisher,
        commands,
        counters,
        answers,
        ..
    } = rig(&server.address, "{}");
    assert!(answers.send("_INBOX.early".into(), b"x".to_vec()), "it waits in vain");
    let running = tokio::spawn(publisher.run());
    let mut client = server.greet("127.0.0.1:1").await;
    client.say("PONG\r\nPONG\r\n").await;
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    assert!(answers.send("_INBOX.a".into(), b"ready".to_vec()));
    client.hear("PUB _INBOX.a 5\r\nready\r\n").await;
    client
        .say("-ERR 'Permissions Violation for Publish to \"_INBOX.a\"'\r\nPONG\r\n")
        .await;
    // The record that was out is confirmed, and the next one goes the usual way.
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    assert!(answers.are_denied());
    assert_eq!((counters.published.get(), counters.publish_failures.get()), (1, 0));
    client.say("PONG\r\n").await;
    drop(commands);
    assert_eq!(client.hear_out().await, "");
    assert_eq!(counters.reconnects.get(), 0);
    running.await.unwrap();
}

#[tokio::test]
async fn without_the_lease_nobody_is_told_that_this_process_is_ready() {
    let server = Server::new().await;
    let Rig {
        publisher,
        commands,
        answers,
        lease,
        ..
    } = rig(&server.address, "{}");
    let running = tokio::spawn(publisher.run());
    let mut client = server.greet("127.0.0.1:1").await;
    client.say("PONG\r\nPONG\r\n").await;
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    client.say("PONG\r\n").await;
    assert!(answers.send("_INBOX.a".into(), b"ready".to_vec()));
    client.hear("PUB _INBOX.a 5\r\nready\r\n").await;
    lease.revoke();
    assert!(answers.send("_INBOX.b".into(), b"ready".to_vec()));
    // Its PONG comes behind what was written before.
    client.say("PING\r\n").await;
    client.hear("PONG\r\n").await;
    drop(commands);
    let rest = client.hear_out().await;
    assert!(!rest.contains("_INBOX.b"), "{rest}");
    running.await.unwrap();
}
