//! How a client is made.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use forwarder_beacon::{Announcement, Known, Subjects, Verifier};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Client, Inner};
use crate::dial::{Dialer, Question};
use crate::error::{ConnectError, JetStreamError};
use crate::hosts::{LoginOf, Policy};
use crate::limits::{Limits, Pin, Repeats};
use crate::login::Login;
use crate::network::Network;
use crate::state::told::{Told, Totals};
use crate::state::{Setup, State};

/// The pause before the given servers are asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// How a client is made: see the crate's documentation.
#[derive(Clone)]
pub struct Options {
    pin: Pin,
    login_of: LoginOf,
    allowed: Option<Vec<String>>,
    repeats: Repeats,
    limits: Limits,
    inbox_prefix: String,
    root_certificates: Vec<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("pin", &self.pin)
            .field("allowed", &self.allowed)
            .field("repeats", &self.repeats)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Of a client that believes this pin, and logs in nowhere.
    #[must_use]
    pub fn new(pin: Pin) -> Self {
        Self {
            pin,
            login_of: Arc::new(|_| None),
            allowed: None,
            repeats: Repeats::default(),
            limits: Limits::default(),
            inbox_prefix: "_INBOX".to_owned(),
            root_certificates: Vec::new(),
            client_certificate: None,
        }
    }

    /// Logs in with what this chooses by a cluster's name in the ring. `*` is the name of the servers that [`Self::connect`] is given.
    ///
    /// A login goes only to the hosts of those servers and to [`Self::allow_hosts`], and only by TLS. The exceptions without TLS are
    /// those servers themselves, and hosts that are allowed as `nats://host`.
    #[must_use]
    pub fn credentials<L: Into<Option<Login>>>(mut self, login_of: impl Fn(&str) -> L + Send + Sync + 'static) -> Self {
        self.login_of = Arc::new(move |cluster| login_of(cluster).into());
        self
    }

    /// Connects to these hosts, beside those that [`Self::connect`] is given, and to no others: `host`, `*.domain`, or `nats://host`
    /// where a login may go without TLS.
    ///
    /// Without this a client with a login connects to the hosts of the given servers only, and one without a login to all.
    #[must_use]
    pub fn allow_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.allowed = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// What happens to a record that was there before. By default it is dropped.
    #[must_use]
    pub fn repeats(mut self, repeats: Repeats) -> Self {
        self.repeats = repeats;
        self
    }

    /// Other bounds of memory and time.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The inbox prefix of the users. Pods answer below `_INBOX`, below a first token that begins with `_INBOX_`, and below the
    /// cluster's own `inboxPrefix`.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// Trusts the authorities in this PEM file too.
    #[must_use]
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.root_certificates.push(file.into());
        self
    }

    /// Shows servers a certificate, by PEM files.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Asks any of these servers for the ring, and begins. Any server of any member will do.
    ///
    /// The client's tasks run on the present tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::NoAnswer`] after [`Limits::connect`].
    pub async fn connect<U: AsRef<str>>(self, urls: impl IntoIterator<Item = U>) -> Result<Client, ConnectError> {
        let Self {
            pin,
            login_of,
            allowed,
            repeats,
            limits,
            inbox_prefix,
            root_certificates,
            client_certificate,
        } = self;
        let urls: Vec<U> = urls.into_iter().collect();
        let policy = Policy::new(&urls, allowed.as_deref(), login_of)?;
        let dialer = Dialer {
            within: limits.dial,
            inbox_prefix,
            root_certificates,
            client_certificate,
        };
        let subjects = Subjects::new(&pin.subject);
        let question = Arc::new(Question {
            ring: pin.ring.clone(),
            subjects: subjects.clone(),
            verifier: Verifier::of(&pin.public_key)?,
            within: limits.answer,
        });
        let told = first_answer(&dialer, &policy, &question, limits.connect).await?;
        if let Some(stream) = told.publishing.stream.clone() {
            return Err(JetStreamError { stream }.into());
        }

        let (events, first) = broadcast::channel(limits.events.max(1));
        let totals = Arc::<Totals>::default();
        let known = Arc::new(RwLock::new(Known::of(&pin.ring)));
        let (requests_in, requests) = mpsc::unbounded_channel();
        let inner = Inner {
            requests: requests_in,
            events: events.clone(),
            first: Mutex::new(Some(first)),
            known: Arc::clone(&known),
            totals: Arc::clone(&totals),
            streams: AtomicU64::new(0),
            queue: limits.queue,
            queue_bytes: limits.queue_bytes,
        };
        let longest_pause = limits.reconnect;
        let mut state = State::new(Setup {
            verifier: Verifier::of(&pin.public_key)?,
            subjects,
            policy,
            limits,
            repeats,
            known,
            told: Told::new(events, totals),
        });
        state.learn(&told, std::time::Instant::now());
        let network = Network::new(state, dialer, question, longest_pause, requests);
        tokio::spawn(network.run());
        Ok(Client::new(inner))
    }
}

async fn first_answer(
    dialer: &Dialer,
    policy: &Policy,
    question: &Arc<Question>,
    within: Duration,
) -> Result<Announcement, ConnectError> {
    let deadline = Instant::now() + within;
    let mut last = "no answer in time".to_owned();
    for turn in 0.. {
        let route = policy.seed_route();
        let mut alone: Vec<_> = Vec::new();
        // Each server by itself: one that is reached may be of another ring.
        for server in &route.servers {
            alone.push(crate::hosts::Route {
                servers: vec![server.clone()],
                ..route.clone()
            });
        }
        let probing = dialer.probe(alone, Arc::clone(question), turn);
        match timeout_at(deadline, probing).await {
            Ok(Ok(told)) => return Ok(told),
            Ok(Err(reason)) => last = reason,
            Err(_) => break,
        }
        if Instant::now() + PAUSE >= deadline {
            break;
        }
        sleep(PAUSE).await;
    }
    Err(ConnectError::NoAnswer(last))
}
