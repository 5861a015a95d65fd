//! Which server to connect to, and which one next.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

/// The port of a server whose address names none.
const DEFAULT_PORT: u16 = 4222;

/// More learnt servers than any cluster has: a bound on what one INFO can make us keep.
const MAX_LEARNT: usize = 256;

/// Where a server is, and what its URL says about how to talk to it. Displays without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The URL asks for TLS (`tls://`).
    pub tls: bool,
    /// Credentials in the URL. As in NATS clients they come before configured tokens and passwords.
    pub user_info: Option<UserInfo>,
    /// The name that the certificate is checked against, where it is not `host`: clusters announce IP addresses, while
    /// certificates are issued for the name that was configured.
    pub certificate_name: Option<String>,
}

/// Credentials in a URL.
#[derive(Clone, PartialEq, Eq)]
pub enum UserInfo {
    /// `nats://token@host`.
    Token(String),
    /// `nats://user:password@host`.
    UserPassword(String, String),
}

/// A server's URL that cannot be used. The messages never show what stands before an `@`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// A scheme that we do not speak.
    #[error("server URL {url:?}: the scheme must be nats:// or tls://, or none")]
    Scheme {
        /// The URL without credentials.
        url: String,
    },
    /// No host, or one with characters that no host has.
    #[error("server URL {url:?}: the host must be a name, an IPv4 address or an IPv6 address in brackets")]
    Host {
        /// The URL without credentials.
        url: String,
    },
    /// A port that is none.
    #[error("server URL {url:?}: the port must be a number from 1 to 65535")]
    Port {
        /// The URL without credentials.
        url: String,
    },
    /// Something after host and port.
    #[error("server URL {url:?}: nothing may follow host and port; list several servers one by one")]
    Trailing {
        /// The URL without credentials.
        url: String,
    },
    /// Credentials with a broken percent sign, or empty ones.
    #[error("server URL {url:?}: what stands before the @ must be a token or user:password, percent-encoded")]
    UserInfo {
        /// The URL without credentials.
        url: String,
    },
    /// No server at all.
    #[error("no server is configured; name at least one, such as nats://host:4222")]
    None,
}

impl ServerAddress {
    /// Reads `nats://host:port`, `tls://host:port` or `host:port`; the port may be missing, an IPv6 address stands in brackets,
    /// and `user:password@` or `token@` may precede the host.
    ///
    /// # Errors
    /// When the text is none of these.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let url = || without_user_info(text);
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("nats") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tls") => (true, rest),
            Some(_) => return Err(AddressError::Scheme { url: url() }),
        };
        let (user_info, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((info, rest)) => (
                Some(UserInfo::parse(info).ok_or_else(|| AddressError::UserInfo { url: url() })?),
                rest,
            ),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', ',']) {
            return Err(AddressError::Trailing { url: url() });
        }
        let (host, port) = split_port(rest).ok_or_else(|| AddressError::Host { url: url() })?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => parse_port(port).ok_or_else(|| AddressError::Port { url: url() })?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
            user_info,
            certificate_name: None,
        })
    }

    /// The name that the server's certificate must carry.
    #[must_use]
    pub fn certificate_name(&self) -> &str {
        self.certificate_name.as_deref().unwrap_or(&self.host)
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    fn is_ip(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(credentials)")
    }
}

impl UserInfo {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => percent_decode(text).filter(|token| !token.is_empty()).map(Self::Token),
            Some((user, password)) => {
                let user = percent_decode(user).filter(|user| !user.is_empty())?;
                Some(Self::UserPassword(user, percent_decode(password)?))
            }
        }
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
            address.tls |= teacher.tls;
            address.user_info.clone_from(&teacher.user_info);
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

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; `None`: not a host.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!host.is_empty() && host.bytes().all(valid) && !port.is_some_and(|port| port.contains(':')))
        .then_some((host, port))
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16::from_str` alone would take "+1".
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|port| *port > 0)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        out.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
    }
    String::from_utf8(out).ok()
}

/// The text as it may be shown. Cuts at the last `@`, so that a password with odd characters is not shown in part.
fn without_user_info(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{after}"),
        None => format!("***@{after}"),
    }
}

#[cfg(test)]
mod tests;
