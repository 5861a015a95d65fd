//! To which hosts a client connects, and where it logs in. Pure.
//!
//! Logins are chosen by a cluster's name in the ring. An announcement names servers. It never makes a client log in at a host that
//! the program did not name.

use std::fmt;
use std::sync::Arc;

use async_nats::ServerAddr;

use crate::error::ConnectError;
use crate::login::Login;

/// As a cluster's name: the servers that the program names itself.
pub(crate) const SEED: &str = "*";

/// Chooses a login by a cluster's name.
pub(crate) type LoginOf = Arc<dyn Fn(&str) -> Option<Login> + Send + Sync>;

/// A server that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: ServerAddr,
    /// TLS must be spoken, whatever the server says.
    pub(crate) needs_tls: bool,
}

/// To which servers of a cluster a client connects, and how it logs in there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    pub(crate) servers: Vec<Server>,
    pub(crate) login: Option<Login>,
    /// Servers that are not used, each with the reason.
    pub(crate) refused: Vec<(String, String)>,
}

impl Route {
    /// Why servers are not used.
    pub(crate) fn reasons(&self) -> String {
        let reasons: Vec<String> = self
            .refused
            .iter()
            .map(|(server, reason)| format!("{server}: {reason}"))
            .collect();
        reasons.join("; ")
    }
}

/// A host that the program allows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    /// The host, or `.domain` for all below it.
    host: String,
    /// Credentials may go there without TLS.
    is_plain: bool,
}

/// Decides on servers.
#[derive(Clone)]
pub(crate) struct Policy {
    seeds: Vec<ServerAddr>,
    allowed: Option<Vec<Allowed>>,
    login_of: LoginOf,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seeds,
            allowed,
            login_of: _,
        } = self;
        f.debug_struct("Policy")
            .field("seeds", seeds)
            .field("allowed", allowed)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Trusts the hosts of `urls`, and those of `allowed`: `host`, `*.domain`, or `nats://host` to log in without TLS too.
    pub(crate) fn new<U: AsRef<str>>(
        urls: &[U],
        allowed: Option<&[String]>,
        login_of: LoginOf,
    ) -> Result<Self, ConnectError> {
        let seeds = urls.iter().map(|url| parse(url.as_ref()));
        let seeds: Vec<ServerAddr> = seeds.collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(ConnectError::NoServer);
        }
        let allowed = allowed.map(|hosts| hosts.iter().map(|host| Allowed::parse(host)).collect());
        Ok(Self {
            seeds,
            allowed: allowed.transpose()?,
            login_of,
        })
    }

    /// To the servers that the program has named.
    pub(crate) fn seed_route(&self) -> Route {
        let login = (self.login_of)(SEED);
        let server = |address: &ServerAddr| Server {
            needs_tls: is_encrypted(address),
            address: address.clone(),
        };
        Route {
            servers: self.seeds.iter().map(server).collect(),
            login,
            refused: Vec::new(),
        }
    }

    /// To a cluster whose servers an announcement names.
    pub(crate) fn route(&self, cluster: &str, urls: &[String]) -> Route {
        let login = (self.login_of)(cluster);
        let mut route = Route::default();
        for url in urls {
            let judged = parse(url)
                .map_err(|error| error.to_string())
                .and_then(|address| self.judge(address, login.is_some()));
            match judged {
                Ok(server) => route.servers.push(server),
                Err(reason) => route.refused.push((shown(url), reason)),
            }
        }
        route.login = login;
        route
    }

    fn judge(&self, address: ServerAddr, has_login: bool) -> Result<Server, String> {
        let host = address.host().to_lowercase();
        let is_seed = |seed: &&ServerAddr| seed.host().eq_ignore_ascii_case(&host);
        let allows = |allowed: &&Allowed| allowed.matches(&host);
        let rules = self.allowed.as_deref().unwrap_or_default();
        if (self.allowed.is_some() || has_login)
            && !self.seeds.iter().any(|seed| is_seed(&seed))
            && !rules.iter().any(|rule| allows(&rule))
        {
            return Err(format!("the host {host:?} is not allowed: name it in allow_hosts"));
        }
        let is_named_plain = self
            .seeds
            .iter()
            .filter(is_seed)
            .any(|seed| seed.port() == address.port() && !is_encrypted(seed));
        let may_be_plain = is_named_plain || rules.iter().filter(allows).any(|rule| rule.is_plain);
        let needs_tls = is_encrypted(&address);
        if has_login && !needs_tls && !may_be_plain {
            return Err(format!(
                "a login is sent by TLS only: let the ring name tls://{host}, or allow \"nats://{host}\""
            ));
        }
        Ok(Server { address, needs_tls })
    }
}

impl Allowed {
    fn parse(text: &str) -> Result<Self, ConnectError> {
        let text = text.trim().to_lowercase();
        let (host, is_plain) = match text.strip_prefix("nats://") {
            Some(host) => (host, true),
            None => (text.strip_prefix("tls://").unwrap_or(&text), false),
        };
        let host = match host.strip_prefix('*') {
            Some(domain) if domain.len() > 1 && domain.starts_with('.') => domain,
            Some(_) => "",
            None => host,
        };
        let is_host = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(ConnectError::Address {
                text,
                reason: "a host is `name`, `*.domain`, or one of them with nats:// in front".to_owned(),
            });
        }
        Ok(Self {
            host: host.to_owned(),
            is_plain,
        })
    }

    fn matches(&self, host: &str) -> bool {
        if self.host.starts_with('.') {
            host.len() > self.host.len() && host.ends_with(&self.host)
        } else {
            host == self.host
        }
    }
}

fn is_encrypted(address: &ServerAddr) -> bool {
    address.tls_required()
}

fn parse(url: &str) -> Result<ServerAddr, ConnectError> {
    let refuse = |reason: String| ConnectError::Address {
        text: shown(url),
        reason,
    };
    let address: ServerAddr = url
        .trim()
        .parse()
        .map_err(|error: std::io::Error| refuse(error.to_string()))?;
    if address.is_websocket() {
        return Err(refuse("WebSockets are not supported: use nats:// or tls://".to_owned()));
    }
    if address.host().is_empty() {
        return Err(refuse("it has no host".to_owned()));
    }
    if address.username().is_some() || address.password().is_some() {
        return Err(refuse(
            "it has a user or a password: use Options::credentials".to_owned(),
        ));
    }
    Ok(address)
}

/// A URL without user and password.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
