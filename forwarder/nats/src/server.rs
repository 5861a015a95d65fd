//! Which server to connect to, and which one next.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use forwarder_core::document::Cluster;
use forwarder_core::document::server::{ServerError, ServerUrl, without_userinfo};

use super::protocol::ServerInfo;

/// More learnt servers than any cluster has: a bound on what one INFO can make us keep.
const MAX_LEARNT: usize = 256;

/// Where a server is, and what its URL says about how to talk to it. Displays without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host, port and TLS. Credentials in it come, as in NATS clients, before configured tokens and passwords.
    pub url: ServerUrl,
    /// The name that the certificate is checked against, where it is not the host: clusters announce IP addresses, while
    /// certificates are issued for the name that was configured.
    pub certificate_name: Option<String>,
}

/// Why there is no server to connect to. The messages never show what stands before an `@`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// A URL that cannot be used.
    #[error("the server URL {url:?} {problem}")]
    Url {
        /// The URL without credentials.
        url: String,
        /// The rest of the sentence; not a source, as the message has it already.
        problem: ServerError,
    },
    /// No server at all.
    #[error("no server is configured; name at least one, such as nats://host:4222")]
    None,
}

/// What answers at an address that the cluster announced is of another cluster. No record may be written there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the server at {address}, which cluster {wanted:?} announces, belongs to {found}, so it gets no records. Correct what the cluster's \
     servers announce (client_advertise), or set discoverServers: false"
)]
pub struct ForeignServer {
    /// Its address.
    pub address: Box<ServerAddress>,
    /// The cluster's name, as the last configured server said it.
    pub wanted: String,
    /// The cluster that it says it belongs to.
    pub found: Belongs,
}

/// Which cluster a server says it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// The cluster of this name.
    To(String),
    /// None.
    Nowhere,
}

impl fmt::Display for Belongs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(name) => write!(f, "the cluster {name:?}"),
            Self::Nowhere => f.write_str("no cluster"),
        }
    }
}

impl ServerAddress {
    /// Reads what [`ServerUrl::parse`] reads.
    ///
    /// # Errors
    /// When the text is no such URL.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        ServerUrl::parse(text)
            .map(Self::from)
            .map_err(|problem| AddressError::Url {
                url: without_userinfo(text),
                problem,
            })
    }

    /// The name that the server's certificate must carry.
    #[must_use]
    pub fn certificate_name(&self) -> &str {
        self.certificate_name.as_deref().unwrap_or(&self.url.host)
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.url.port == other.url.port && self.url.host.eq_ignore_ascii_case(&other.url.host)
    }

    fn is_ip(&self) -> bool {
        self.url.host.parse::<IpAddr>().is_ok()
    }
}

impl From<ServerUrl> for ServerAddress {
    fn from(url: ServerUrl) -> Self {
        Self {
            url,
            certificate_name: None,
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The servers of one cluster, in turn.
#[derive(Debug)]
pub struct ServerPool {
    /// The one that was used last stands last. Never empty.
    servers: VecDeque<Entry>,
    /// Servers that the cluster announces are used too.
    discovers: bool,
    /// The cluster's name, as the last configured server said it. Empty: unknown.
    cluster: String,
}

#[derive(Debug)]
struct Entry {
    address: ServerAddress,
    /// From the configuration, which only a person changes; else from an INFO.
    configured: bool,
}

impl ServerPool {
    /// The servers of a cluster: those that are configured, in their order, and later those that it announces, if they may be used.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be read.
    pub fn of(cluster: &Cluster) -> Result<Self, AddressError> {
        let mut pool = Self::new(&cluster.servers)?;
        pool.discovers = cluster.discovers_servers();
        Ok(pool)
    }

    /// The configured servers, in their order.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be read.
    pub fn new(servers: &[String]) -> Result<Self, AddressError> {
        let mut pool = Self {
            servers: VecDeque::new(),
            discovers: true,
            cluster: String::new(),
        };
        for text in servers {
            let address = ServerAddress::parse(text)?;
            if !pool.contains(&address) {
                pool.servers.push_back(Entry {
                    address,
                    configured: true,
                });
            }
        }
        if pool.servers.is_empty() {
            Err(AddressError::None)
        } else {
            Ok(pool)
        }
    }

    /// All servers, in the order in which they are to be tried.
    #[must_use]
    pub fn in_turn(&self) -> Vec<ServerAddress> {
        self.servers.iter().map(|entry| entry.address.clone()).collect()
    }

    /// This one was used: all others come first from now on.
    pub fn used(&mut self, server: &ServerAddress) {
        let at = self.position(server);
        if let Some(entry) = at.and_then(|at| self.servers.remove(at)) {
            self.servers.push_back(entry);
        }
    }

    /// Judges the INFO of a server of the pool, before any record is written there and whenever another one comes: takes up what it
    /// says about the cluster, or forgets the server.
    ///
    /// # Errors
    /// [`ForeignServer`], for a learnt address behind which there is another cluster by now. A configured one is never foreign: a person
    /// has said that it is ours.
    pub fn meet(&mut self, server: &ServerAddress, info: &ServerInfo) -> Result<(), ForeignServer> {
        let at = self.position(server);
        if at.is_some_and(|at| self.servers[at].configured) {
            self.cluster.clone_from(&info.cluster);
        } else if is_declared(&self.cluster) && info.cluster != self.cluster {
            // Servers find each other by routes, and a route between clusters of different names is refused. One without a name takes
            // on that of the others with its first route. So whoever is of a named cluster says this name, and nothing else.
            if let Some(at) = at {
                self.servers.remove(at);
            }
            return Err(ForeignServer {
                address: Box::new(server.clone()),
                wanted: self.cluster.clone(),
                found: match info.cluster.as_str() {
                    "" => Belongs::Nowhere,
                    name => Belongs::To(name.to_owned()),
                },
            });
        }
        self.learn(server, &info.connect_urls);
        Ok(())
    }

    /// So many servers are known: after as many failures in a row each has been tried.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Takes up what an INFO of `teacher` says about the cluster: new servers join, and learnt ones that it no longer names leave.
    ///
    /// New ones inherit the teacher's TLS, credentials and certificate name: an announced address carries none of them, and
    /// must not lead from an encrypted connection to a plain one.
    pub fn learn(&mut self, teacher: &ServerAddress, connect_urls: &[String]) {
        if !self.discovers {
            return;
        }
        let announced: Vec<ServerAddress> = connect_urls
            .iter()
            .take(MAX_LEARNT)
            .filter_map(|text| match ServerAddress::parse(text) {
                Ok(address) => Some(address),
                Err(error) => {
                    tracing::debug!(%teacher, %error, "ignoring an invalid server address that the cluster announces");
                    None
                }
            })
            .collect();
        self.servers
            .retain(|entry| entry.configured || announced.iter().any(|address| address.is_same_place(&entry.address)));
        for mut address in announced {
            if self.contains(&address) {
                continue;
            }
            address.url.tls |= teacher.url.tls;
            address.url.userinfo.clone_from(&teacher.url.userinfo);
            if address.is_ip() {
                let name = teacher.certificate_name();
                address.certificate_name = name.parse::<IpAddr>().is_err().then(|| name.to_owned());
            }
            self.servers.push_back(Entry {
                address,
                configured: false,
            });
        }
    }

    fn position(&self, address: &ServerAddress) -> Option<usize> {
        self.servers
            .iter()
            .position(|entry| entry.address.is_same_place(address))
    }

    fn contains(&self, address: &ServerAddress) -> bool {
        self.position(address).is_some()
    }
}

/// Whether a person has chosen this name of a cluster, so that it proves something. nats-server gives a cluster without a name a random one
/// at each start, and lets it change when servers meet: 22 letters and digits (a NUID). A name of this form may be either, so it proves
/// nothing. A server of no cluster has none; a leaf node without a cluster has its server's name, and where that has none, its id, which
/// is as random: 56 letters and digits.
fn is_declared(name: &str) -> bool {
    let is_random = matches!(name.len(), 22 | 56) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !name.is_empty() && !is_random
}

#[cfg(test)]
mod tests;
