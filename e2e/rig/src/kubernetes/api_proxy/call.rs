//! What a request to the API server is about.

use std::fmt;

use hyper::{Method, Uri};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// One object.
    Get,
    /// All objects of a kind.
    List,
    /// Changes, for as long as the connection stays.
    Watch,
    /// A new object.
    Create,
    /// An object in the place of another.
    Update,
    /// A part of an object; server-side apply too.
    Patch,
    /// The end of objects.
    Delete,
}

impl Verb {
    /// Whether it changes anything.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }
}

/// A request, by what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked for.
    pub verb: Verb,
    /// The resource and its subresource, such as `assetforwarders/status`.
    pub resource: String,
    /// The object's name; empty where all are meant, or a new one.
    pub name: String,
}

impl Call {
    /// None: it is about no resource (`/version`, `/readyz`).
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let mut path = uri.path().trim_matches('/').split('/').peekable();
        match path.next() {
            Some("api") => drop(path.next()?),
            Some("apis") => drop((path.next()?, path.next()?)),
            _ => return None,
        }
        let mut resource = path.next()?;
        // /namespaces/NAME alone is about the namespace itself.
        let mut name = path.next().unwrap_or_default();
        if resource == "namespaces"
            && let Some(inside) = path.next()
        {
            resource = inside;
            name = path.next().unwrap_or_default();
        }
        let resource = match path.next() {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource.to_owned(),
        };
        let watches = uri.query().is_some_and(|query| {
            let mut pairs = query.split('&');
            pairs.any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1"))
        });
        let verb = match *method {
            Method::GET if watches => Verb::Watch,
            Method::GET if name.is_empty() => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::Get,
        };
        Some(Self {
            verb,
            resource,
            name: name.to_owned(),
        })
    }

    /// Whether it is part of what everybody does who leads or tells: the holder of a Lease, the writer of Events.
    pub fn is_aside(&self) -> bool {
        matches!(self.resource.as_str(), "leases" | "events")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = format!("{:?}", self.verb).to_lowercase();
        write!(f, "{verb} {} {}", self.resource, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(method: &Method, uri: &str) -> Option<String> {
        Call::of(method, &uri.parse().unwrap()).map(|call| call.to_string())
    }

    #[test]
    fn a_request_is_told_by_its_path() {
        let group = "/apis/fanout.openfactory.io/v1alpha1";
        for (method, uri, wanted) in [
            (
                Method::GET,
                "/api/v1/namespaces/a/secrets/b".to_owned(),
                "get secrets b",
            ),
            (Method::GET, "/api/v1/namespaces/a".to_owned(), "get namespaces a"),
            (
                Method::GET,
                "/api/v1/configmaps?limit=500".to_owned(),
                "list configmaps ",
            ),
            (
                Method::GET,
                format!("{group}/natsclusters?&watch=true&timeoutSeconds=290"),
                "watch natsclusters ",
            ),
            (
                Method::PATCH,
                format!("{group}/namespaces/a/assetforwarders/plant/status?fieldManager=x"),
                "patch assetforwarders/status plant",
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/a/events".to_owned(),
                "create events ",
            ),
        ] {
            assert_eq!(said(&method, &uri).as_deref(), Some(wanted), "{uri}");
        }
        assert_eq!(said(&Method::GET, "/version"), None);
    }
}
