//! A nats-server as a child process.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::ConnectOptions;
use e2e::port::Port;
use e2e::process::{Process, Spec};
use e2e::tools;
use tempfile::TempDir;

use crate::certificates::{Authority, Pair};
use crate::{http, wait};

pub use self::cluster::Cluster;
pub use self::operator::Operator;

mod cluster;
mod operator;

/// Ready takes tens of milliseconds on an idle machine.
const START: Duration = Duration::from_secs(20);

/// What the rig's own clients log in as where a server asks who they are.
const RIG_USER: &str = "rig";
const RIG_PASSWORD: &str = "rig-may-all";

/// How clients say who they are.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Not at all.
    #[default]
    None,
    /// By this token.
    Token(String),
    /// As one of these users. (A user `rig` that may do everything is added for the rig's own clients.)
    Users(Vec<User>),
    /// By a JWT that an operator's account has signed.
    Operator(Operator),
}

/// A user of a server.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Its name; with [`User::nkey`]: nothing.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Its public NKEY (`U…`), instead of a name and password. Make one with [`user_nkey`].
    pub nkey: Option<String>,
    /// Its permissions in the syntax of the configuration file, such as `publish: {deny: ["forbidden.>"]}`; empty: all.
    pub permissions: String,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether JetStream is on.
    pub jetstream: bool,
    /// JetStream's domain.
    pub domain: Option<String>,
    /// Who may log in.
    pub login: Login,
    /// TLS with a certificate of this test's own authority.
    pub tls: bool,
    /// With TLS: clients need a certificate too.
    pub client_certificate: bool,
    /// The largest message.
    pub max_payload: usize,
    /// Further lines of the configuration file.
    pub config: String,
    /// Where it listens: 127.0.0.1, or an address of this machine that pods reach.
    pub host: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            jetstream: true,
            domain: None,
            login: Login::None,
            tls: false,
            client_certificate: true,
            max_payload: 1 << 20,
            config: String::new(),
            host: Ipv4Addr::LOCALHOST,
        }
    }
}

/// The certificates of a server with TLS.
#[derive(Debug)]
pub struct Tls {
    /// The authority; it can sign further clients.
    pub authority: Authority,
    /// A client certificate that the server accepts.
    pub client: Pair,
}

/// A server. It ends, and its store goes, when this is dropped.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    port: Port,
    monitoring: Port,
    login: Login,
    tls: Option<Tls>,
    dir: TempDir,
}

impl Nats {
    /// Starts one with JetStream, open to all.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one and waits until it is healthy.
    pub async fn start_with(options: Options) -> Result<Self> {
        let mut nats = Self::launch(options)?;
        nats.wait_healthy(START).await?;
        Ok(nats)
    }

    /// Starts one and waits for nothing: a server of a cluster is healthy only when others are there.
    fn launch(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-nats-")
            .tempdir()
            .context("failed to make a directory")?;
        let port = Port::reserve_at(options.host)?;
        let monitoring = Port::reserve()?;
        let mut tls = None;
        let mut text = format!(
            "listen: \"{}\"\nhttp: \"{}\"\nmax_payload: {}\n",
            port.address(),
            monitoring.address(),
            options.max_payload
        );
        // The observer must be the last to be cut off for being slow: it is what judges.
        text.push_str("max_pending: 512MB\nwrite_deadline: \"60s\"\n");
        if options.jetstream {
            // Bounds are stated, so that a full disk of the machine does not read as a fault of the forwarder.
            let store = dir.path().join("store");
            let domain = options.domain.map(|domain| format!("domain: {domain}, "));
            writeln!(
                text,
                "jetstream {{{}store_dir: {}, max_memory_store: 2GB, max_file_store: 20GB}}",
                domain.unwrap_or_default(),
                quoted(&store)
            )?;
        }
        write_login(&mut text, &options.login)?;
        if options.tls {
            let authority = Authority::new(&dir.path().join("certificates"))?;
            let server = authority.server("nats")?;
            let client = authority.client("forwarder")?;
            let (cert, key, ca) = (
                quoted(&server.cert_file),
                quoted(&server.key_file),
                quoted(&authority.ca_file),
            );
            writeln!(
                text,
                "tls {{cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: {}}}",
                options.client_certificate
            )?;
            tls = Some(Tls { authority, client });
        }
        text.push_str(&options.config);
        let file = dir.path().join("nats.conf");
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
        let spec = Spec::new("nats-server", tools::nats_server()?, dir.path().join("nats.log"))
            .arg("-c")
            .arg(&file);
        Ok(Self {
            process: Process::start(spec)?,
            port,
            monitoring,
            login: options.login,
            tls,
            dir,
        })
    }

    /// `nats://host:port`, or `tls://…`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "tls" } else { "nats" };
        format!("{scheme}://{}", self.port.address())
    }

    /// `host:port`, for a proxy.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The certificates, of a server with TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Its directory: configuration, log, store.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process, to signal it and to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A client of the rig's own, who may do everything.
    pub async fn client(&self) -> Result<async_nats::Client> {
        self.connect_options()
            .connect(self.url())
            .await
            .with_context(|| format!("failed to connect to {}", self.url()))
    }

    /// What [`Nats::client`] connects with.
    pub fn connect_options(&self) -> ConnectOptions {
        let mut options = match &self.login {
            Login::None => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token.clone()),
            Login::Users(_) => ConnectOptions::with_user_and_password(RIG_USER.to_owned(), RIG_PASSWORD.to_owned()),
            Login::Operator(operator) => operator.connect_options(),
        };
        // What the server delivers to an inbox can be captured by a stream like any message. With four tokens it does not match the `*.*` of
        // records, and an observer does not observe itself.
        options = options.custom_inbox_prefix("_INBOX.rig.own");
        if let Some(tls) = &self.tls {
            options = options
                .add_root_certificates(tls.authority.ca_file.clone())
                .add_client_certificate(tls.client.cert_file.clone(), tls.client.key_file.clone());
        }
        options
    }

    /// A monitoring page as JSON: `/varz`, `/connz`, `/jsz?streams=1`.
    pub async fn monitor(&self, page: &str) -> Result<serde_json::Value> {
        let body = http::get_ok(&self.monitoring.address(), page).await?;
        serde_json::from_str(&body).with_context(|| format!("{page} of nats-server is not JSON"))
    }

    /// SIGKILL: what it held in memory is gone, its files stay.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// Starts it again on the same port and store, after [`Nats::kill9`] or [`Nats::shut_down`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again()?;
        self.wait_healthy(START).await
    }

    /// Kills and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.start_again().await
    }

    /// SIGTERM, as an orderly end.
    pub fn shut_down(&mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait_exit(START).map(drop)
    }

    /// SIGUSR2: lame duck mode. It takes nobody in, tells its clients that it is going away, and ends after its grace period.
    pub fn lame_duck(&mut self) -> Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGUSR2)
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    pub fn pause(&mut self) -> Result<()> {
        self.process.stop()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.cont()
    }

    /// Replaces a text in the configuration file and has the server read it again (SIGHUP): for permissions and users that change.
    pub fn reconfigure(&mut self, from: &str, to: &str) -> Result<()> {
        let file = self.dir.path().join("nats.conf");
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        if !text.contains(from) {
            bail!("{} does not hold {from:?}:\n{text}", file.display());
        }
        fs::write(&file, text.replace(from, to)).with_context(|| format!("failed to write {}", file.display()))?;
        self.process.signal(nix::sys::signal::Signal::SIGHUP)
    }

    async fn wait_healthy(&mut self, within: Duration) -> Result<()> {
        let address = self.monitoring.address();
        let health = wait::eventually(within, "nats-server is healthy", || async {
            Ok(http::get(&address, "/healthz").await?.0 == 200)
        })
        .await;
        health.with_context(|| self.process.log_tail())
    }
}

/// A user's NKEY: the public key (`U…`) for [`User::nkey`] and the seed (`SU…`) for the client.
pub fn user_nkey() -> Result<(String, String)> {
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().context("failed to read the seed of a new NKEY")?;
    Ok((pair.public_key(), seed))
}

fn write_login(text: &mut String, login: &Login) -> Result<()> {
    match login {
        Login::None => {}
        Login::Token(token) => writeln!(text, "authorization {{token: \"{token}\"}}")?,
        Login::Users(users) => {
            text.push_str("authorization {users: [\n");
            writeln!(text, "  {{user: \"{RIG_USER}\", password: \"{RIG_PASSWORD}\"}}")?;
            for User {
                name,
                password,
                nkey,
                permissions,
            } in users
            {
                let who = match nkey {
                    Some(nkey) => format!("nkey: {nkey}"),
                    None => format!("user: \"{name}\", password: \"{password}\""),
                };
                let may = if permissions.is_empty() {
                    String::new()
                } else {
                    format!(", permissions: {{{permissions}}}")
                };
                writeln!(text, "  {{{who}{may}}}")?;
            }
            text.push_str("]}\n");
        }
        Login::Operator(operator) => text.push_str(operator.config()),
    }
    Ok(())
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}
