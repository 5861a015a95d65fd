//! The URL of a NATS server.

use std::fmt;

use url::{Host, Url};

/// The port of a server whose URL names none.
pub const DEFAULT_PORT: u16 = 4222;

/// A NATS server, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Whether the URL asks for TLS.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before the `@`, percent-decoded. Only documents from the environment have it.
    pub userinfo: Option<Userinfo>,
}

/// User and password, or a token, of a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Userinfo {
    /// The user's name; the token, if there is no password.
    pub user: String,
    /// The password.
    pub password: Option<String>,
}

/// Says that there is one, and nothing of it.
impl fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Userinfo(…)")
    }
}

/// Why a text is no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// A comma, blank or control character.
    #[error("holds a comma, a blank or a control character")]
    NotOne,
    /// Another scheme.
    #[error("has a scheme other than nats:// and tls://")]
    Scheme,
    /// No host, or one that cannot be.
    #[error("names no valid host")]
    Host,
    /// Port 0.
    #[error("has port 0")]
    Port,
    /// A path, query or fragment.
    #[error("has a path, query or fragment")]
    Trailing,
    /// User or password that is not UTF-8 once decoded.
    #[error("has a user or password that is not UTF-8")]
    Userinfo,
}

impl ServerUrl {
    /// Takes `nats://host:port`, `tls://host:port`, or without a scheme `host:port`, apart; the port may be left out.
    ///
    /// # Errors
    /// What no NATS client could connect to.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        if text.is_empty() {
            return Err(ServerError::Empty);
        }
        if text.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(ServerError::NotOne);
        }
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("nats://{text}"))
        };
        let url = url.map_err(|_| ServerError::Host)?;
        let tls = match url.scheme() {
            "nats" => false,
            "tls" => true,
            _ => return Err(ServerError::Scheme),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ServerError::Trailing);
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Ipv4(address)) => address.to_string(),
            // The scheme is none that the URL standard knows, so it lets nearly any host pass.
            Some(Host::Domain(name)) if is_host_name(name) => name.to_owned(),
            Some(Host::Domain(_)) | None => return Err(ServerError::Host),
        };
        let port = url.port().unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err(ServerError::Port);
        }
        let userinfo = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Userinfo {
                user: decoded(user)?,
                password: password.map(decoded).transpose()?,
            }),
        };
        Ok(Self {
            tls,
            host,
            port,
            userinfo,
        })
    }
}

/// `nats://host:port`, without user and password.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tls,
            host,
            port,
            userinfo: _,
        } = self;
        let scheme = if *tls { "tls" } else { "nats" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL as written, without what stands between `//` and the last `@`: for logs, answers and error messages.
#[must_use]
pub fn without_userinfo(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    url.rfind('@')
        .filter(|&at| at >= start)
        .map_or_else(|| url.to_owned(), |at| format!("{}{}", &url[..start], &url[at + 1..]))
}

/// Underscores are no part of a host's name by the standards, and of many a Compose file's.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && !name.starts_with(['.', '-'])
}

fn decoded(text: &str) -> Result<String, ServerError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| ServerError::Userinfo)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_nats_clients_take() {
        for (text, shown) in [
            ("nats://c1:4222", "nats://c1:4222"),
            ("tls://c1.example.com", "tls://c1.example.com:4222"),
            ("nats_c1", "nats://nats_c1:4222"),
            ("10.0.0.1:4333/", "nats://10.0.0.1:4333"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_server() {
        for (text, error) in [
            ("", ServerError::Empty),
            ("nats://a,nats://b", ServerError::NotOne),
            ("nats://a b", ServerError::NotOne),
            ("ws://c1:8080", ServerError::Scheme),
            ("nats://", ServerError::Host),
            ("nats://%41", ServerError::Host),
            ("nats://a:99999", ServerError::Host),
            ("nats://a:0", ServerError::Port),
            ("nats://a/b", ServerError::Trailing),
        ] {
            assert_eq!(ServerUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_decoded_and_never_shown() {
        let url = ServerUrl::parse("nats://al%40ice:p%3Ass@c1:4222").unwrap();
        let userinfo = url.userinfo.clone().unwrap();
        assert_eq!(
            (userinfo.user.as_str(), userinfo.password.as_deref()),
            ("al@ice", Some("p:ss"))
        );
        assert_eq!(
            format!("{url} {url:?} {userinfo:?}"),
            "nats://c1:4222 nats://c1:4222 Userinfo(…)"
        );
        assert_eq!(without_userinfo("nats://a:b@c@host:1"), "nats://host:1");
        assert_eq!(without_userinfo("token@host"), "host");
        assert_eq!(without_userinfo("nats://host"), "nats://host");
    }
}
