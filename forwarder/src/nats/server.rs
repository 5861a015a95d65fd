//! Which server to connect to, and which one next.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use forwarder_core::config::server::{ServerError, ServerUrl, without_userinfo};

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
}

#[derive(Debug)]
struct Entry {
    address: ServerAddress,
    /// From the configuration, which only a person changes; else from an INFO.
    configured: bool,
}

impl ServerPool {
    /// The configured servers, in their order.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be read.
    pub fn new(servers: &[String]) -> Result<Self, AddressError> {
        let mut pool = Self {
            servers: VecDeque::new(),
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

    /// The server to try now; the next call gives another one.
    pub fn next_server(&mut self) -> ServerAddress {
        self.servers.rotate_left(1);
        // `new` leaves no empty pool, and configured servers are never dropped.
        self.servers[self.servers.len() - 1].address.clone()
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
        let announced: Vec<ServerAddress> = connect_urls
            .iter()
            .take(MAX_LEARNT)
            .filter_map(|text| match ServerAddress::parse(text) {
                Ok(address) => Some(address),
                Err(error) => {
                    tracing::debug!(%teacher, %error, "ignoring a server that the cluster announces");
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

    fn contains(&self, address: &ServerAddress) -> bool {
        self.servers.iter().any(|entry| entry.address.is_same_place(address))
    }
}

#[cfg(test)]
mod tests;
