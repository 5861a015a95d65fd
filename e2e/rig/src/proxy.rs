//! A TCP proxy between the forwarder and a server: the network that fails on demand.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::port::Port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::wait;

/// Pieces on the way in one direction of one connection: with [`PIECE`] 1 MiB, as much as a kernel's socket buffers would hold.
const QUEUE: usize = 64;
const PIECE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// What comes in goes out, after a delay.
    Passing(Duration),
    /// Connections stay, and nothing passes in the directions that are set.
    Stalled { to_server: bool, to_client: bool },
    /// No connection is held or taken.
    Cut,
}

/// A proxy, on a port of 127.0.0.1 if nobody says otherwise, passing until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    network: watch::Sender<Network>,
    target: watch::Sender<Option<String>>,
    open: Arc<watch::Sender<usize>>,
    listening: watch::Receiver<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before `target` (`host:port`).
    pub async fn start(target: &str) -> Result<Self> {
        let proxy = Self::bind().await?;
        proxy.aim(target);
        Ok(proxy)
    }

    /// A proxy before `target` at an address of this machine that pods reach.
    pub async fn start_at(host: Ipv4Addr, target: &str) -> Result<Self> {
        let proxy = Self::bind_at(host).await?;
        proxy.aim(target);
        Ok(proxy)
    }

    /// A proxy whose target is not known yet ([`Proxy::aim`]); connections wait for it. Kafka needs to be told of its proxy before it starts.
    pub async fn bind() -> Result<Self> {
        Self::bind_at(Ipv4Addr::LOCALHOST).await
    }

    async fn bind_at(host: Ipv4Addr) -> Result<Self> {
        let port = Port::reserve_at(host)?;
        let (network, watched) = watch::channel(Network::Passing(Duration::ZERO));
        let (target, aimed) = watch::channel(None);
        let open = Arc::new(watch::Sender::new(0));
        let (heard, listening) = watch::channel(false);
        let accepting = tokio::spawn(accept(port.address(), watched, aimed, Arc::clone(&open), heard));
        let proxy = Self {
            port,
            network,
            target,
            open,
            listening,
            accepting,
        };
        proxy.wait_listening(true).await?;
        Ok(proxy)
    }

    /// Sets the target for connections to come.
    pub fn aim(&self, target: &str) {
        self.target.send_replace(Some(target.to_owned()));
    }

    /// Its own address, `host:port`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Its own address as a NATS URL.
    pub fn nats_url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// How many connections it holds.
    pub fn connections(&self) -> usize {
        *self.open.borrow()
    }

    /// Drops all connections and refuses new ones; returns when that is so. What was on the way is gone.
    pub async fn cut(&self) -> Result<()> {
        self.network.send_replace(Network::Cut);
        self.wait_listening(false).await?;
        wait::eventually(
            Duration::from_secs(5),
            "the proxy has dropped its connections",
            || async { Ok(self.connections() == 0) },
        )
        .await
    }

    /// Drops all connections but takes new ones at once.
    pub async fn reset(&self) -> Result<()> {
        self.cut().await?;
        self.heal().await
    }

    /// Keeps connections, takes new ones, and passes nothing.
    pub fn stall(&self) {
        self.network.send_replace(Network::Stalled {
            to_server: true,
            to_client: true,
        });
    }

    /// Passes what goes to the server and holds back what it answers: publishes arrive, acknowledgements do not. Followed by [`Proxy::cut`],
    /// they are lost.
    pub fn stall_answers(&self) {
        self.network.send_replace(Network::Stalled {
            to_server: false,
            to_client: true,
        });
    }

    /// Holds back what goes to the server and passes what it says.
    pub fn stall_requests(&self) {
        self.network.send_replace(Network::Stalled {
            to_server: true,
            to_client: false,
        });
    }

    /// Passes everything again, what was held back first.
    pub async fn heal(&self) -> Result<()> {
        self.slow(Duration::ZERO).await
    }

    /// Passes everything after a delay in each direction.
    pub async fn slow(&self, delay: Duration) -> Result<()> {
        self.network.send_replace(Network::Passing(delay));
        self.wait_listening(true).await
    }

    async fn wait_listening(&self, want: bool) -> Result<()> {
        self.listening
            .clone()
            .wait_for(|listening| *listening == want)
            .await
            .context("the proxy's task has ended")?;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // The connections' tasks watch this.
        self.network.send_replace(Network::Cut);
    }
}

async fn accept(
    address: String,
    mut network: watch::Receiver<Network>,
    target: watch::Receiver<Option<String>>,
    open: Arc<watch::Sender<usize>>,
    listening: watch::Sender<bool>,
) {
    loop {
        if network.wait_for(|network| *network != Network::Cut).await.is_err() {
            return;
        }
        let listener = match TcpListener::bind(&address).await {
            Ok(listener) => listener,
            // Connections of before may still be closing.
            Err(_) => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        listening.send_replace(true);
        loop {
            let client = tokio::select! {
                () = is_cut(&mut network) => break,
                accepted = listener.accept() => accepted,
            };
            if let Ok((client, _)) = client {
                open.send_modify(|open| *open += 1);
                let (network, target, open) = (network.clone(), target.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    // A connection that ends is the normal course here, whatever the reason.
                    drop(carry(client, network, target).await);
                    open.send_modify(|open| *open -= 1);
                });
            }
        }
        // A closed listener is what makes the kernel refuse.
        drop(listener);
        listening.send_replace(false);
    }
}

async fn is_cut(network: &mut watch::Receiver<Network>) {
    // An error says that the proxy is gone: that is a cut too.
    drop(network.wait_for(|network| *network == Network::Cut).await.map(drop));
}

async fn carry(
    client: TcpStream,
    mut network: watch::Receiver<Network>,
    mut target: watch::Receiver<Option<String>>,
) -> io::Result<()> {
    let mut cut = network.clone();
    let through = async {
        let gone = |_| io::Error::other("the proxy is gone");
        let address = target
            .wait_for(Option::is_some)
            .await
            .map_err(gone)?
            .clone()
            .unwrap_or_default();
        let server = TcpStream::connect(address).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let mut other = network.clone();
        tokio::try_join!(
            direction(&mut from_client, &mut to_server, &mut network, true),
            direction(&mut from_server, &mut to_client, &mut other, false),
        )?;
        Ok(())
    };
    tokio::select! {
        () = is_cut(&mut cut) => Ok(()),
        result = through => result,
    }
}

/// Reads and writes apart from each other, so that a delay is a delay and not a slower link.
async fn direction(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    network: &mut watch::Receiver<Network>,
    towards_server: bool,
) -> io::Result<()> {
    let (pieces, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            if length == 0 || pieces.send((Instant::now(), piece)).await.is_err() {
                return Ok::<(), io::Error>(());
            }
        }
    };
    let write = async move {
        while let Some((arrived, piece)) = queue.recv().await {
            let passing = network.wait_for(|network| match network {
                Network::Passing(_) => true,
                Network::Stalled { to_server, to_client } => !(if towards_server { *to_server } else { *to_client }),
                Network::Cut => false,
            });
            let delay = match *passing.await.map_err(|_| io::Error::other("the proxy is gone"))? {
                Network::Passing(delay) => delay,
                _ => Duration::ZERO,
            };
            if !delay.is_zero() {
                sleep_until(arrived + delay).await;
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}
