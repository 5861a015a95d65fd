//! Asks URLs whether they answer: for `helm test`, since the image holds no other program.

use std::io;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::InvalidUri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An endpoint that takes longer is not well.
const WITHIN: Duration = Duration::from_secs(10);
/// The status line, and what of the body helps a person.
const MOST_BYTES: u64 = 4_096;

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// No URL at all.
    #[error("{url:?} is not a valid URL; use one such as http://fanout-operator-router:8002/forwarders")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        source: InvalidUri,
    },
    /// Another scheme, or no host.
    #[error("{0:?} is not an http:// URL with a host; use one such as http://fanout-operator-router:8002/forwarders")]
    NotHttp(String),
    /// No connection, or one that was cut off.
    #[error("failed to get {url}")]
    Get {
        /// Where.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// Too slow.
    #[error("{0} has not answered within {WITHIN:?}")]
    Slow(String),
    /// Another status than 2xx, or no HTTP.
    #[error("{url} did not answer with a 2xx status: {answer}")]
    Unwell {
        /// Where.
        url: String,
        /// The beginning of what it answered.
        answer: String,
    },
}

/// Asks one URL, which must answer 2xx.
///
/// # Errors
/// [`HealthError`]
pub async fn check(url: &str) -> Result<(), HealthError> {
    let uri: Uri = url.parse().map_err(|source| HealthError::Url {
        url: url.to_owned(),
        source,
    })?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(HealthError::NotHttp(url.to_owned()));
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // HTTP/1.0: the answer ends with the connection and comes in no chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let answer = timeout(WITHIN, exchange(host, uri.port_u16().unwrap_or(80), &request))
        .await
        .map_err(|_| HealthError::Slow(url.to_owned()))?
        .map_err(|source| HealthError::Get {
            url: url.to_owned(),
            source,
        })?;
    if well(&answer) {
        return Ok(());
    }
    Err(HealthError::Unwell {
        url: url.to_owned(),
        answer,
    })
}

async fn exchange(host: &str, port: u16, request: &str) -> io::Result<String> {
    // An IPv6 address stands in brackets in a URL.
    let host = host.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the answer's status is 2xx.
fn well(answer: &str) -> bool {
    let mut words = answer.split_whitespace();
    words.next().is_some_and(|protocol| protocol.starts_with("HTTP/1."))
        && words
            .next()
            .is_some_and(|status| status.len() == 3 && status.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(url: &str) -> String {
        match check(url).await {
            Ok(()) => "well".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn only_what_answers_2xx_is_well() {
        let router = Router::new()
            .route("/well", get(async || "ok"))
            .route("/unwell", get(async || (StatusCode::SERVICE_UNAVAILABLE, "no ring")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(answer(&format!("{at}/well?a=b")).await, "well");
        let unwell = answer(&format!("{at}/unwell")).await;
        assert!(unwell.contains("503") && unwell.contains("no ring"), "{unwell}");
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let gone = answer(&format!("{at}/well")).await;
        assert_eq!(gone, format!("failed to get {at}/well"));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_refused_by_name() {
        for url in ["https://a/b", "a", "/a", "http://"] {
            let refusal = answer(url).await;
            assert!(
                refusal.contains(url) && refusal.contains("use one such as"),
                "{refusal}"
            );
        }
    }
}
