//! The URL of a NATS server.

use std::fmt;

use url::{Host, ParseError, Url};

use crate::percent;

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

/// The login that a URL contains.
#[derive(Clone, PartialEq, Eq)]
pub enum Userinfo {
    /// `nats://token@host`.
    Token(String),
    /// `nats://user:password@host`; the password may be empty.
    UserPassword(String, String),
}

/// Shows that there is a login, and nothing of it.
impl fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Userinfo(…)")
    }
}

/// Why a text is not a server URL.
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
    /// No host, or an invalid one.
    #[error("names no valid host")]
    Host,
    /// A port that is not a number from 1 to 65535.
    #[error("names no valid port")]
    Port,
    /// A path, query or fragment.
    #[error("has a path, query or fragment")]
    Trailing,
    /// Before the `@` no name, a broken percent sign, a slash, or what is not UTF-8 once decoded.
    #[error("must have a token or user:password before the @, percent-encoded")]
    Userinfo,
}

impl ServerUrl {
    /// Reads `nats://host:port`, `tls://host:port`, or without a scheme `host:port`; the port may be left out.
    ///
    /// # Errors
    /// The text is not a URL that a NATS client could connect to.
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        if text.is_empty() {
            return Err(ServerError::Empty);
        }
        if text.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(ServerError::NotOne);
        }
        let Parts {
            scheme,
            userinfo,
            place,
        } = Parts::of(text);
        let url = Url::parse(&format!("{}{place}", scheme.unwrap_or("nats://"))).map_err(|error| match error {
            ParseError::InvalidPort => ServerError::Port,
            _ => ServerError::Host,
        })?;
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
        Ok(Self {
            tls,
            host,
            port,
            userinfo: userinfo.map(Userinfo::parse).transpose()?,
        })
    }
}

impl Userinfo {
    fn parse(text: &str) -> Result<Self, ServerError> {
        // A host ends before the first of these: for others it is not the user who would stand here, but another server.
        if text.contains(['/', '?', '#']) {
            return Err(ServerError::Userinfo);
        }
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (text, None),
        };
        if user.is_empty() {
            return Err(ServerError::Userinfo);
        }
        Ok(match password {
            None => Self::Token(decoded(user)?),
            Some(password) => Self::UserPassword(decoded(user)?, decoded(password)?),
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
    let Parts {
        scheme,
        userinfo: _,
        place,
    } = Parts::of(url);
    format!("{}{place}", scheme.unwrap_or_default())
}

/// A URL's text in three: what is shown of it and what is read from it must not differ in where the password ends.
struct Parts<'a> {
    /// With its `://`.
    scheme: Option<&'a str>,
    /// What stands before the last `@`: a password may hold one that was not encoded.
    userinfo: Option<&'a str>,
    /// The rest.
    place: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        // A password may hold the mark too; what stands before it then is no scheme.
        let is_scheme = |at: &usize| text[..*at].bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (scheme, rest) = match text.find("://").filter(is_scheme) {
            Some(at) => (Some(&text[..at + 3]), &text[at + 3..]),
            None => (None, text),
        };
        let (userinfo, place) = match rest.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, rest),
        };
        Self {
            scheme,
            userinfo,
            place,
        }
    }
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
    percent::unescape(text.as_bytes())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(ServerError::Userinfo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_nats_clients_take() {
        for (text, shown) in [
            ("nats://c1:4222", "nats://c1:4222"),
            ("NATS://c1", "nats://c1:4222"),
            ("tls://c1.example.com", "tls://c1.example.com:4222"),
            ("nats_c1", "nats://nats_c1:4222"),
            ("a_b-c.d:1", "nats://a_b-c.d:1"),
            ("10.0.0.1", "nats://10.0.0.1:4222"),
            ("10.0.0.1:4333/", "nats://10.0.0.1:4333"),
            ("nats://[::1]:4223", "nats://[::1]:4223"),
            ("[FD00::1]", "nats://[fd00::1]:4222"),
            ("token@c1:1", "nats://c1:1"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(ServerUrl::parse("[::1]").unwrap().host, "::1");
    }

    #[test]
    fn refuses_what_is_no_server() {
        for (text, error) in [
            ("", ServerError::Empty),
            ("nats://a,nats://b", ServerError::NotOne),
            ("nats://a b", ServerError::NotOne),
            ("ws://c1:8080", ServerError::Scheme),
            ("http://c1", ServerError::Scheme),
            ("nats://", ServerError::Host),
            ("nats://secret@", ServerError::Host),
            ("nats://%41", ServerError::Host),
            ("nats://::1", ServerError::Host),
            ("nats://[::1", ServerError::Host),
            ("nats://[x]:1", ServerError::Host),
            ("nats://[::1]x", ServerError::Host),
            ("nats://a:99999", ServerError::Port),
            ("nats://u:secret@a:0", ServerError::Port),
            ("a:+1", ServerError::Port),
            ("nats://a/b", ServerError::Trailing),
            ("a:1?b", ServerError::Trailing),
            ("nats://@a", ServerError::Userinfo),
            ("nats://:secret@a", ServerError::Userinfo),
            ("nats://secret%2@a", ServerError::Userinfo),
            ("nats://%ff:secret@a", ServerError::Userinfo),
            ("nats://a/secret@b", ServerError::Userinfo),
        ] {
            assert_eq!(ServerUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_token_or_user_and_password_are_decoded() {
        let token = |token: &str| Userinfo::Token(token.to_owned());
        let user = |user: &str, password: &str| Userinfo::UserPassword(user.to_owned(), password.to_owned());
        for (text, userinfo) in [
            ("nats://tok%20en@h", token("tok en")),
            ("nats://u:p@h", user("u", "p")),
            ("al%40ice:p%40%3a:x@h:1", user("al@ice", "p@::x")),
            ("u:@h", user("u", "")),
            ("u:a@b@[::1]:1", user("u", "a@b")),
            ("tls://\u{fc}:%C3%BC|\"@h", user("\u{fc}", "\u{fc}|\"")),
        ] {
            assert!(ServerUrl::parse(text).unwrap().userinfo == Some(userinfo), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_never_shown() {
        let url = ServerUrl::parse("nats://alice:secret@c1:4222").unwrap();
        assert_eq!(
            format!("{url} {url:?} {:?}", url.userinfo),
            "nats://c1:4222 nats://c1:4222 Some(Userinfo(…))"
        );
        assert_eq!(without_userinfo("nats://a:b@c@host:1"), "nats://host:1");
        assert_eq!(without_userinfo("token@host"), "host");
        assert_eq!(without_userinfo("nats://host"), "nats://host");
        assert_eq!(without_userinfo("user:sec://ret@host"), "host");
        assert_eq!(without_userinfo("secret@ws://host"), "ws://host");
    }
}
