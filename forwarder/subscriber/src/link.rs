//! The task of the connection to one cluster: it connects, again and again, and carries out what the client's task decides.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State as Connection;
use async_nats::{Client, Event, ServerError, Subscriber};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::dial::{Dialed, Dialer};
use crate::hosts::Route;
use crate::merge::Cluster;

/// The first pause before the next attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How often the connection is looked after: its end may have been told to nobody.
const TICK: Duration = Duration::from_secs(1);

/// What is to be done on one connection.
#[derive(Debug)]
pub(crate) struct Command {
    /// On no other one.
    pub(crate) generation: u64,
    pub(crate) order: Order,
}

/// See [`Command`].
#[derive(Debug)]
pub(crate) enum Order {
    /// Subscribe, and report it.
    Subscribe {
        /// The tap.
        key: u64,
        subject: String,
    },
    /// Publish.
    Publish {
        subject: String,
        reply: Option<String>,
        body: Vec<u8>,
    },
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Report {
    /// There is a connection.
    Up {
        generation: u64,
        inbox: String,
        has_several: bool,
        /// What comes below the inbox.
        answers: Subscriber,
        digests: Subscriber,
    },
    /// It has ended.
    Down { generation: u64, reason: String },
    /// An attempt has failed.
    Failed { reason: String },
    /// A subscription was sent.
    Subscribed {
        generation: u64,
        key: u64,
        subscriber: Subscriber,
    },
    /// async-nats has dropped a message, because a queue was full.
    Slow,
    /// The server denies something.
    Denied { reason: String },
}

/// Which link, also where a cluster has another one by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId {
    pub(crate) cluster: Cluster,
    /// Its number, which no other link of the client has.
    pub(crate) number: u64,
}

/// See the module.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    /// Gives each connection a number that no other connection of the client has.
    pub(crate) generations: Arc<AtomicU64>,
    pub(crate) dialer: Dialer,
    pub(crate) route: watch::Receiver<Route>,
    pub(crate) digest: String,
    pub(crate) longest_pause: Duration,
    /// The task ends when nobody commands any more.
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) reports: mpsc::UnboundedSender<(LinkId, Report)>,
}

impl Link {
    /// Connects again and again, until nobody commands any more.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut turn = self.id.cluster as usize;
        loop {
            let route = self.route.borrow_and_update().clone();
            turn = turn.wrapping_add(1);
            let dialer = self.dialer.clone();
            let Some(dialed) = self.meanwhile(dialer.dial(&route, turn)).await else {
                return;
            };
            match dialed {
                Ok(dialed) => {
                    pause = FIRST_PAUSE;
                    if self.serve(dialed).await.is_none() {
                        return;
                    }
                }
                Err(reason) => self.report(Report::Failed { reason }),
            }
            if self.meanwhile(sleep(jittered(pause))).await.is_none() {
                return;
            }
            pause = (pause * 2).min(self.longest_pause);
        }
    }

    /// Serves one connection to its end. None: nobody commands any more.
    async fn serve(&mut self, dialed: Dialed) -> Option<()> {
        let Dialed {
            client,
            mut events,
            has_several,
        } = dialed;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let inbox = client.new_inbox();
        let subscribed = async {
            let answers = client.subscribe(format!("{inbox}.*")).await?;
            let digests = client.subscribe(self.digest.clone()).await?;
            Ok::<_, async_nats::SubscribeError>((answers, digests))
        };
        let (answers, digests) = match subscribed.await {
            Ok(subscribed) => subscribed,
            Err(error) => {
                let reason = error.to_string();
                self.report(Report::Failed { reason });
                return Some(());
            }
        };
        self.report(Report::Up {
            generation,
            inbox,
            has_several,
            answers,
            digests,
        });
        let mut reason = "the connection was lost".to_owned();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let command = command?;
                    if command.generation == generation && !self.carry_out(&client, command).await {
                        break;
                    }
                }
                event = events.recv() => match event {
                    Some(Event::Disconnected | Event::Closed) | None => break,
                    Some(event) => self.heard(event, &mut reason),
                },
                _ = ticks.tick() => if client.connection_state() != Connection::Connected {
                    break;
                },
            }
        }
        self.report(Report::Down { generation, reason });
        Some(())
    }

    /// False: the connection has ended.
    async fn carry_out(&self, client: &Client, command: Command) -> bool {
        match command.order {
            Order::Subscribe { key, subject } => match client.subscribe(subject).await {
                Ok(subscriber) => {
                    self.report(Report::Subscribed {
                        generation: command.generation,
                        key,
                        subscriber,
                    });
                    true
                }
                Err(error) => self.denies(&error, error.kind() == async_nats::client::SubscribeErrorKind::Other),
            },
            Order::Publish { subject, reply, body } => {
                let published = match reply {
                    Some(reply) => client.publish_with_reply(subject, reply, body.into()).await,
                    None => client.publish(subject, body.into()).await,
                };
                let Err(error) = published else { return true };
                self.denies(&error, error.kind() == async_nats::client::PublishErrorKind::Send)
            }
        }
    }

    /// Says what has failed. False: the connection has ended.
    fn denies(&self, error: &dyn std::error::Error, has_ended: bool) -> bool {
        if !has_ended {
            let reason = error.to_string();
            self.report(Report::Denied { reason });
        }
        !has_ended
    }

    fn heard(&self, event: Event, reason: &mut String) {
        match event {
            Event::SlowConsumer(_) => self.report(Report::Slow),
            Event::ServerError(error) => {
                let text = match error {
                    ServerError::Other(text) => text,
                    error => error.to_string(),
                };
                if text.to_lowercase().contains("permissions violation") {
                    self.report(Report::Denied { reason: text });
                } else {
                    *reason = format!("the server said: {text}");
                }
            }
            _ => {}
        }
    }

    /// Awaits this. Commands of before are for no connection any more. None: nobody commands any more.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                value = &mut future => return Some(value),
                command = self.commands.recv() => drop(command?),
            }
        }
    }

    fn report(&self, report: Report) {
        // The client may have ended.
        self.reports.send((self.id, report)).ok();
    }
}

/// Between the half and the whole, so that not all clients come back at one moment.
fn jittered(pause: Duration) -> Duration {
    use std::hash::BuildHasher as _;
    let random = std::hash::RandomState::new().hash_one(0_u8) % 1_000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or_default() / 1_000
}
