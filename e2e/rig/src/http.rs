//! The least of an HTTP client, on a port of this machine: for probes, metrics and monitoring pages, and for APIs that speak JSON.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page that takes longer is no answer. (A machine that compiles at the same time is slow.)
const WITHIN: Duration = Duration::from_secs(5);

/// Gets `path` from `address` (`host:port`): the status code and the body.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    request("GET", address, path, "").await
}

/// Sends JSON by `method` to `path` of `address` (`host:port`): the status code and the body of the answer.
pub async fn send(method: &str, address: &str, path: &str, json: &str) -> Result<(u16, String)> {
    request(method, address, path, json).await
}

/// As [`get`]; anything but 200 is an error that holds the body.
pub async fn get_ok(address: &str, path: &str) -> Result<String> {
    match get(address, path).await? {
        (200, body) => Ok(body),
        (status, body) => Err(anyhow!("http://{address}{path} answered {status}: {body}")),
    }
}

async fn request(method: &str, address: &str, path: &str, json: &str) -> Result<(u16, String)> {
    timeout(WITHIN, exchange(method, address, path, json))
        .await
        .with_context(|| format!("no answer from http://{address}{path} within {WITHIN:?}"))?
        .with_context(|| format!("failed to {method} http://{address}{path}"))
}

async fn exchange(method: &str, address: &str, path: &str, json: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection and comes in no chunks.
    let content = match json.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{content}\r\n{json}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("the answer has no end of headers: {answer}"))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| anyhow!("the answer has no status: {head}"))?;
    Ok((status, body.to_owned()))
}
