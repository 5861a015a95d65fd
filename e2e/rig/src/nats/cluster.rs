//! Several servers that are one cluster: they tell each other, and their clients, where all of them are.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::port::Port;
use serde_json::{Value, json};

use super::{Nats, Options};
use crate::wait;

/// Until servers that have to choose a leader have one: some seconds, and several times that on a machine that is busy.
const TOGETHER: Duration = Duration::from_secs(60);

/// A cluster of servers. Any of them may be killed and started again.
#[derive(Debug)]
pub struct Cluster {
    /// The servers: n1, n2…
    pub servers: Vec<Nats>,
    /// The routes' ports, which are theirs also while one is down.
    _routes: Vec<Port>,
}

impl Cluster {
    /// Starts so many servers that are alike, in a cluster of this name.
    pub async fn start(name: &str, count: usize, options: &Options) -> Result<Self> {
        Self::start_with(name, vec![options.clone(); count]).await
    }

    /// Starts a server for each of these options, and waits until each is healthy and knows the addresses of all.
    pub async fn start_with(name: &str, each: Vec<Options>) -> Result<Self> {
        let routes: Vec<Port> = each
            .iter()
            .map(|_| Port::reserve_at(Ipv4Addr::LOCALHOST))
            .collect::<Result<_>>()?;
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats-route://{}\"", port.address()))
            .collect();
        let urls = urls.join(", ");
        let mut servers = Vec::new();
        for (place, (mut options, route)) in each.into_iter().zip(&routes).enumerate() {
            let (number, listen) = (place + 1, route.address());
            options.config.push_str(&format!(
                "\nserver_name: n{number}\ncluster {{name: \"{name}\", listen: \"{listen}\", routes: [{urls}]}}\n"
            ));
            servers.push(Nats::launch(options)?);
        }
        for nats in &mut servers {
            nats.wait_healthy(TOGETHER).await?;
        }
        let count = servers.len();
        // One alone announces nobody.
        for nats in servers.iter().filter(|_| count > 1) {
            wait::eventually(TOGETHER, "the servers of a cluster know each other", || async {
                let page = nats.monitor("/varz").await?;
                let known = page["connect_urls"].as_array().map_or(0, Vec::len);
                Ok(known == count)
            })
            .await
            .with_context(|| format!("cluster {name}"))?;
        }
        Ok(Self {
            servers,
            _routes: routes,
        })
    }

    /// Has the server at this place (n1: 0) lead a stream, asked through `nats`, which is of the cluster too.
    pub async fn lead(nats: &Nats, stream: &str, place: usize) -> Result<()> {
        let wanted = format!("n{}", place + 1);
        let client = nats.client().await?;
        let what = format!("{wanted} leads stream {stream}");
        wait::eventually(TOGETHER, &what, || async {
            let info = request(&client, &format!("$JS.API.STREAM.INFO.{stream}"), &json!({})).await?;
            if info["cluster"]["leader"] == wanted.as_str() {
                return Ok(true);
            }
            // A follower that has not caught up yet is refused: asked again with the next look.
            let wish = json!({"placement": {"preferred": wanted}});
            let answer = request(&client, &format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), &wish).await?;
            ensure!(answer["success"] == true, "{answer}");
            Ok(false)
        })
        .await
    }
}

async fn request(client: &async_nats::Client, subject: &str, body: &Value) -> Result<Value> {
    let answer = client
        .request(subject.to_owned(), body.to_string().into())
        .await
        .with_context(|| format!("no answer to {subject}"))?;
    serde_json::from_slice(&answer.payload).with_context(|| format!("the answer to {subject} is not JSON"))
}
