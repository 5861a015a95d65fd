//! One Kafka and four NATS servers beside the cluster, and names for them in it: what a person tries manifests with.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::plan::{Addresses, Files};
use crate::broker::{Broker, Setup};
use crate::port::Port;
use crate::process::{Process, Spec};
use crate::tools;

/// The namespace of the Services.
pub const NAMESPACE: &str = "plant";

/// The NATS servers, `nats-c1` and so on.
const SERVERS: u16 = 4;

const KAFKA_PORT: u16 = 9092;
const NATS_PORT: u16 = 4222;

/// nats-server is there in tens of milliseconds on an idle machine.
const START: Duration = Duration::from_secs(20);

/// The servers; they end with this.
#[derive(Debug)]
pub(super) struct Plant {
    _kafka: Broker,
    _nats: Vec<Process>,
}

/// From inside: starts them, and waits until they listen.
pub(super) fn start(files: &Files, addresses: Addresses) -> Result<Plant> {
    let dir = files.at("plant");
    let node = addresses.node();
    let mut nats = Vec::new();
    for number in 1..=SERVERS {
        let name = format!("nats-c{number}");
        let store = dir.join(&name);
        fs::create_dir_all(&store).with_context(|| format!("failed to create {}", store.display()))?;
        let port = port_of(number);
        let spec = Spec::new(&name, tools::nats_server()?, files.log(&name))
            .args(["-a", &node.to_string(), "-p", &port.to_string(), "-js", "-sd"])
            .arg(store);
        let mut process = Process::start(spec)?;
        wait_listening(&mut process, SocketAddr::from((node, port)))?;
        nats.push(process);
    }
    let setup = Setup {
        plain: Some(Port::fixed(node, KAFKA_PORT)),
        ..Setup::default()
    };
    Ok(Plant {
        _kafka: Broker::start(&dir.join("kafka"), setup)?,
        _nats: nats,
    })
}

fn wait_listening(process: &mut Process, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        if process.try_exit()?.is_some() || Instant::now() >= deadline {
            bail!(
                "{} does not listen on {address}\n{}",
                process.name(),
                process.log_tail()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Each server has a port of its own, since all are at the node's address. Their Services have the usual one.
fn port_of(number: u16) -> u16 {
    NATS_PORT + number - 1
}

/// The namespace, and a Service without a selector for each server.
pub(super) fn manifests(addresses: Addresses) -> Result<String> {
    let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    service(&mut text, addresses, "kafka", KAFKA_PORT, KAFKA_PORT)?;
    for number in 1..=SERVERS {
        service(
            &mut text,
            addresses,
            &format!("nats-c{number}"),
            NATS_PORT,
            port_of(number),
        )?;
    }
    Ok(text)
}

fn service(text: &mut String, addresses: Addresses, name: &str, port: u16, target: u16) -> Result<()> {
    let node = addresses.node();
    writeln!(
        text,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  ports: [{{name: client, port: {port}, targetPort: {target}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: client, port: {target}}}]
endpoints: [{{addresses: [{node}]}}]"
    )
    .context("failed to write a manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_its_service_on_the_usual_port() {
        let text = manifests(Addresses::of(0)).unwrap();
        assert_eq!(text.matches("kind: Service\n").count(), 5);
        assert_eq!(text.matches("port: 4222, targetPort").count(), 4);
        assert!(text.contains("port: 4222, targetPort: 4225"));
    }
}
