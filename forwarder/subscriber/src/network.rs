//! The client's task: it owns the state, reads all connections, and has the state's decisions carried out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode};
use forwarder_beacon::Announcement;
use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::dial::{Dialer, Question};
use crate::hosts::Route;
use crate::link::{Command, Link, LinkId, Order, Report};
use crate::merge::Cluster;
use crate::pump::Pump;
use crate::request::Request;
use crate::state::{Action, State};

/// How long the task sleeps where nothing has to be done.
const LONG: Duration = Duration::from_secs(3_600);

/// The end of a link that commands it.
#[derive(Debug)]
struct Held {
    number: u64,
    commands: mpsc::UnboundedSender<Command>,
    route: watch::Sender<Route>,
    /// Its present connection.
    connection: Option<Up>,
}

#[derive(Clone, Copy, Debug)]
struct Up {
    generation: u64,
    answers: u64,
    digests: u64,
}

/// What a subscription that is none of records brings.
#[derive(Clone, Copy, Debug)]
enum Special {
    Answers(Cluster),
    Digests(Cluster),
}

/// See the module.
pub(crate) struct Network {
    state: State,
    dialer: Dialer,
    question: Arc<Question>,
    longest_pause: Duration,
    generations: Arc<AtomicU64>,
    pump: Pump,
    links: HashMap<Cluster, Held>,
    /// Of each tap of records the cluster.
    taps: HashMap<u64, Cluster>,
    special: HashMap<u64, Special>,
    /// Keys of what is no tap of records, from the top down.
    next_special: u64,
    next_link: u64,
    requests: mpsc::UnboundedReceiver<Request>,
    reports: mpsc::UnboundedReceiver<(LinkId, Report)>,
    reports_in: mpsc::UnboundedSender<(LinkId, Report)>,
    probes: mpsc::UnboundedReceiver<Option<Announcement>>,
    probes_in: mpsc::UnboundedSender<Option<Announcement>>,
    turn: usize,
}

impl Network {
    pub(crate) fn new(
        state: State,
        dialer: Dialer,
        question: Arc<Question>,
        longest_pause: Duration,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let (reports_in, reports) = mpsc::unbounded_channel();
        let (probes_in, probes) = mpsc::unbounded_channel();
        Self {
            state,
            dialer,
            question,
            longest_pause,
            generations: Arc::default(),
            pump: Pump::default(),
            links: HashMap::new(),
            taps: HashMap::new(),
            special: HashMap::new(),
            next_special: u64::MAX,
            next_link: 0,
            requests,
            reports,
            reports_in,
            probes,
            probes_in,
            turn: 0,
        }
    }

    /// Goes on until the client and all its streams are gone.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            self.step().await;
            let wake = self.state.next_time().unwrap_or_else(|| Instant::now() + LONG);
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => break,
                },
                Some((link, report)) = self.reports.recv() => self.report(link, report).await,
                Some(told) = self.probes.recv() => self.state.probed(told.as_ref(), Instant::now()),
                () = self.pump.next(&mut batch) => self.take(&mut batch).await,
                () = sleep_until(wake.into()) => {}
            }
        }
        self.state.end();
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Subscribe {
                stream,
                assets,
                id,
                queue,
                begun,
            } => self.state.subscribe(stream, assets, &id, queue, begun, Instant::now()),
            Request::Close { stream } => self.state.close(stream),
        }
    }

    /// Takes messages. Answers and echoes come last: what came before an echo is then taken.
    async fn take(&mut self, batch: &mut Vec<(u64, Message)>) {
        let mut special = Vec::new();
        for (key, message) in batch.drain(..) {
            match self.special.get(&key) {
                None => self.state.record(key, message),
                Some(kind) => special.push((*kind, message)),
            }
        }
        if special.is_empty() {
            return;
        }
        // A subscription that was sent before an echo was reported before it, too.
        while let Ok((link, report)) = self.reports.try_recv() {
            self.report(link, report).await;
        }
        let now = Instant::now();
        for (kind, message) in special {
            match kind {
                Special::Answers(cluster) => {
                    let is_unanswered = message.status == Some(StatusCode::NO_RESPONDERS);
                    self.state
                        .inbox(cluster, &message.subject, &message.payload, is_unanswered, now);
                }
                Special::Digests(cluster) => self.state.digest(cluster, &message.subject, &message.payload, now),
            }
        }
    }

    async fn report(&mut self, link: LinkId, report: Report) {
        let LinkId { cluster, number } = link;
        if self.links.get(&cluster).is_none_or(|held| held.number != number) {
            // It was given up before.
            return;
        }
        let now = Instant::now();
        let is_present = |held: &Held, generation| held.connection.is_some_and(|up| up.generation == generation);
        match report {
            Report::Up {
                generation,
                inbox,
                has_several,
                answers,
                digests,
            } => {
                let keys = [Special::Answers(cluster), Special::Digests(cluster)].map(|kind| {
                    self.next_special -= 1;
                    self.special.insert(self.next_special, kind);
                    self.next_special
                });
                let [answers_key, digests_key] = keys;
                self.pump.add(answers_key, answers);
                self.pump.add(digests_key, digests);
                let Some(held) = self.links.get_mut(&cluster) else {
                    return self.end_special(answers_key, digests_key);
                };
                held.connection = Some(Up {
                    generation,
                    answers: answers_key,
                    digests: digests_key,
                });
                let has_several = has_several || held.route.borrow().servers.len() > 1;
                self.state.up(cluster, generation, inbox, has_several, now);
            }
            Report::Down { generation, reason } => {
                self.lose(cluster).await;
                self.state.down(cluster, generation, &reason);
            }
            Report::Failed { reason } => self.state.failed(cluster, reason, now),
            Report::Subscribed {
                generation,
                key,
                subscriber,
            } => {
                let is_wanted = self
                    .links
                    .get(&cluster)
                    .is_some_and(|held| is_present(held, generation));
                if is_wanted && self.state.has_tap(key) {
                    self.pump.add(key, subscriber);
                    self.taps.insert(key, cluster);
                }
            }
            Report::Slow => self.state.slow(cluster),
            Report::Denied { reason } => self.state.denied(cluster, reason),
        }
    }

    /// Takes what had arrived through a connection that has ended.
    async fn lose(&mut self, cluster: Cluster) {
        let connection = self.links.get_mut(&cluster).and_then(|held| held.connection.take());
        let Some(Up { answers, digests, .. }) = connection else {
            return;
        };
        let taps: Vec<u64> = self
            .taps
            .iter()
            .filter(|(_, of)| **of == cluster)
            .map(|(key, _)| *key)
            .collect();
        for key in taps {
            for message in self.pump.drain(key).await {
                self.state.record(key, message);
            }
            self.pump.remove(key);
            self.taps.remove(&key);
        }
        self.end_special(answers, digests);
    }

    fn end_special(&mut self, answers: u64, digests: u64) {
        for key in [answers, digests] {
            self.special.remove(&key);
            self.pump.remove(key);
        }
    }

    /// Ends a step of the state, and carries out what it decides.
    async fn step(&mut self) {
        loop {
            let actions = self.state.step(Instant::now());
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action).await;
            }
        }
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect { cluster, route } => self.connect(cluster, route),
            Action::Disconnect { cluster } => {
                self.lose(cluster).await;
                // Its task ends when nobody commands it.
                self.links.remove(&cluster);
            }
            Action::Subscribe {
                cluster,
                generation,
                key,
                subject,
            } => self.command(cluster, generation, Order::Subscribe { key, subject }),
            Action::Unsubscribe { key } => {
                self.pump.remove(key);
                self.taps.remove(&key);
            }
            Action::Publish {
                cluster,
                generation,
                subject,
                reply,
                body,
            } => self.command(cluster, generation, Order::Publish { subject, reply, body }),
            Action::Drain { key, fence } => {
                for message in self.pump.drain(key).await {
                    self.state.record(key, message);
                }
                self.state.drained(fence, Instant::now());
            }
            Action::Probe { routes } => {
                let (dialer, question) = (self.dialer.clone(), Arc::clone(&self.question));
                let probes = self.probes_in.clone();
                self.turn += 1;
                let turn = self.turn;
                tokio::spawn(async move {
                    let told = dialer.probe(routes, question, turn).await;
                    // The client may have ended.
                    probes.send(told.ok()).ok();
                });
            }
        }
    }

    fn connect(&mut self, cluster: Cluster, route: Route) {
        if let Some(held) = self.links.get(&cluster) {
            held.route.send_replace(route);
            return;
        }
        let (commands_in, commands) = mpsc::unbounded_channel();
        let (route_in, route) = watch::channel(route);
        self.next_link += 1;
        let number = self.next_link;
        let link = Link {
            id: LinkId { cluster, number },
            generations: Arc::clone(&self.generations),
            dialer: self.dialer.clone(),
            route,
            digest: self.question.subjects.digest(),
            longest_pause: self.longest_pause,
            commands,
            reports: self.reports_in.clone(),
        };
        tokio::spawn(link.run());
        let held = Held {
            number,
            commands: commands_in,
            route: route_in,
            connection: None,
        };
        self.links.insert(cluster, held);
    }

    fn command(&self, cluster: Cluster, generation: u64, order: Order) {
        if let Some(held) = self.links.get(&cluster) {
            // A link that ends reports it.
            held.commands.send(Command { generation, order }).ok();
        }
    }
}
