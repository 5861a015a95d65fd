//! The demo on Kubernetes: Helm installs the operator, three manifests make forwarders, and kubectl does the rest, as a person would.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use crds::AssetForwarder;
use e2e_rig::forwarder::Metrics;
use e2e_rig::interrupts::Interrupts;
use e2e_rig::kubernetes::Kubernetes;
use e2e_rig::observer::Observer;
use e2e_rig::traffic::{Amount, Flow, Plan, Traffic};
use e2e_rig::{http, wait};
use fanout_client::Pin;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};

use crate::subscribers::{self, Subscribers};
use crate::view::View;
use crate::{Cli, QUIET};

/// Where Helm puts the operator.
const SYSTEM: &str = "fanout-system";
/// Where the example manifests put everything else.
const NAMESPACE: &str = "plant";
/// The forwarder of the example manifests.
const FORWARDER: &str = "assets";
/// The clusters of the example manifests; the last one joins on the way.
const CLUSTERS: [&str; 4] = ["c1", "c2", "c3", "c4"];
/// It leaves on the way.
const LEAVES: &str = "c2";
/// The channel's topic.
const TOPIC: &str = "ofa_assets";

/// Within which an install, a roll or a change of the ring ends, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lets an event show in the table before the next one.
const SHOWN: Duration = Duration::from_secs(4);

pub(crate) async fn run(cli: &Cli) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let view = View::new(&CLUSTERS);
    let plant = tokio::select! {
        plant = Plant::start(cli, &view) => plant?,
        () = interrupts.next() => return Ok(ExitCode::from(130)),
    };
    plant.work(cli, view, interrupts).await
}

struct Plant {
    kubernetes: Kubernetes,
    flow: Flow,
    traffic: Traffic,
    observer: Observer,
    subscribers: Subscribers,
}

impl Plant {
    async fn start(cli: &Cli, view: &View) -> Result<Self> {
        let kubernetes = Kubernetes::of_run().await?;
        install(&kubernetes, view).await?;
        let begin = Instant::now();
        kubectl(&kubernetes, view, &["apply", "-f", "charts/examples/quickstart/"]).await?;
        for name in &CLUSTERS[..3] {
            // The subscribers are outside Kubernetes, where the names of Services mean nothing.
            let patch = format!(
                r#"{{"spec":{{"clientServers":["{}"]}}}}"#,
                server(&kubernetes, name).await?
            );
            let patch = [
                "-n",
                NAMESPACE,
                "patch",
                "natscluster",
                name,
                "--type=merge",
                "-p",
                &patch,
            ];
            kubectl(&kubernetes, view, &patch).await?;
        }
        let forwarder = ready(&kubernetes, 0).await?;
        view.say(&format!("ready {:.1} s after the apply", begin.elapsed().as_secs_f64()));
        ensure!(forwarder.spec.replicas > 0, "the example has no pods");
        kubectl(&kubernetes, view, &["-n", NAMESPACE, "get", "fanout"]).await?;

        let kafka = address(&kubernetes, "kafka").await?;
        let plan = Plan {
            assets: cli.assets,
            ..Plan::default()
        };
        let traffic = Traffic::new(&kafka, TOPIC, plan)?;
        let mut servers = Vec::new();
        for name in CLUSTERS {
            servers.push((name, server(&kubernetes, name).await?));
        }
        let observer = Observer::live_at(&servers, traffic.ledger()).await?;
        view.say(&format!(
            "{} subscribers begin, each to follow one asset",
            cli.subscribers
        ));
        let members: Vec<String> = servers.iter().take(3).map(|(_, server)| server.clone()).collect();
        let pin = pin(&kubernetes).await?;
        let subscribers = Subscribers::begin(pin, &members, traffic.ledger(), cli.subscribers, &CLUSTERS).await?;
        view.say(&format!("sending {} records/s of {} assets", cli.rate, cli.assets));
        let flow = traffic.start(Amount {
            rate: Some(cli.rate),
            lasting: None,
            records: None,
        })?;
        Ok(Self {
            kubernetes,
            flow,
            traffic,
            observer,
            subscribers,
        })
    }

    async fn work(self, cli: &Cli, mut view: View, mut interrupts: Interrupts) -> Result<ExitCode> {
        let Self {
            kubernetes,
            flow,
            traffic,
            observer,
            subscribers,
        } = self;
        let (observer, ledger) = (Arc::new(observer), traffic.ledger());
        let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
        let mut interrupted = false;
        let begin = Instant::now();
        {
            let happens = async {
                happen(&kubernetes, &observer, &Say(say)).await?;
                tokio::time::sleep(cli.lasting().saturating_sub(begin.elapsed())).await;
                anyhow::Ok(())
            };
            let mut happens = pin!(happens);
            let mut tick = tokio::time::interval(view.period());
            loop {
                tokio::select! {
                    done = &mut happens => {
                        done?;
                        break;
                    }
                    Some(line) = said.recv() => view.say(&line),
                    _ = tick.tick() => view.draw(&observer, &ledger, &pages(&kubernetes).await, &subscribers),
                    () = interrupts.next() => {
                        interrupted = true;
                        break;
                    }
                }
            }
        }
        while let Ok(line) = said.try_recv() {
            view.say(&line);
        }
        view.say(if interrupted {
            "interrupted: sending stops, what is on the way arrives"
        } else {
            "sending is over; what is on the way arrives"
        });
        flow.stop().await.context("the traffic to Kafka failed")?;
        let verdict = tokio::select! {
            verdict = observer.settle(QUIET) => verdict?,
            // Whoever asks twice does not want to wait: the verdict so far.
            () = interrupts.next() => observer.verdict()?,
        };
        view.draw(&observer, &ledger, &pages(&kubernetes).await, &subscribers);
        let followed = subscribers.settle().await;
        view.close(&verdict, followed.as_ref());
        let is_well = verdict.check().is_ok() && subscribers::check(followed.as_ref()).is_ok();
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What a person reads; the events happen beside the table that is drawn.
struct Say(tokio::sync::mpsc::UnboundedSender<String>);

impl Say {
    fn say(&self, text: &str) {
        // Nobody is left to read it when the demo ends.
        drop(self.0.send(text.to_owned()));
    }
}

/// A cluster joins, a pod is deleted, the pods are rolled, a cluster drains and leaves: each when the one before has come to its end.
async fn happen(kubernetes: &Kubernetes, observer: &Observer, say: &Say) -> Result<()> {
    tokio::time::sleep(SHOWN).await;
    let pairs = pairs(observer);
    let epoch = epoch(kubernetes).await?;
    let begin = Instant::now();
    let joins = "charts/examples/joining/nats-cluster-c4.yaml";
    let servers = format!("clientServers=[{}]", server(kubernetes, "c4").await?);
    say.say(&format!("$ kubectl apply -f {joins}   (with {servers})"));
    let manifest = tokio::fs::read_to_string(joins).await;
    let mut manifest: serde_json::Value =
        serde_saphyr::from_str(&manifest.with_context(|| format!("failed to read {joins}"))?)?;
    manifest["spec"]["clientServers"] = serde_json::json!([server(kubernetes, "c4").await?]);
    let printed = kubernetes.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await?;
    say.say(printed.trim_end());
    let forwarder = ready(kubernetes, epoch).await?;
    say.say(&format!(
        "c4 has joined: every pod uses the new ring {:.1} s after the apply; {} % of the hash space moved",
        begin.elapsed().as_secs_f64(),
        moved(&forwarder)
    ));
    tokio::time::sleep(SHOWN).await;
    say.say(&format!(
        "{} assets were seen to move",
        self::pairs(observer).saturating_sub(pairs)
    ));

    let pods = names(kubernetes).await?;
    let pod = pods.first().context("there is no pod")?;
    run_and_say(
        kubernetes,
        say,
        &["-n", NAMESPACE, "delete", "pod", pod, "--wait=false"],
    )
    .await?;
    wait::eventually(PATIENCE, "another pod has its place", || async {
        let now = names(kubernetes).await?;
        Ok(now.len() == pods.len() && !now.contains(pod))
    })
    .await?;
    ready(kubernetes, 0).await?;
    say.say("another pod has its place");
    tokio::time::sleep(SHOWN).await;

    let roll = r#"{"spec":{"podTemplate":{"annotations":{"example.com/rolled":"once"}}}}"#;
    run_and_say(
        kubernetes,
        say,
        &[
            "-n",
            NAMESPACE,
            "patch",
            "assetforwarder",
            FORWARDER,
            "--type=merge",
            "-p",
            roll,
        ],
    )
    .await?;
    let begin = Instant::now();
    ready(kubernetes, 0).await?;
    say.say(&format!(
        "all pods are rolled, after {:.1} s",
        begin.elapsed().as_secs_f64()
    ));
    tokio::time::sleep(SHOWN).await;

    let epoch = self::epoch(kubernetes).await?;
    let drain = r#"{"spec":{"drain":true}}"#;
    run_and_say(
        kubernetes,
        say,
        &[
            "-n",
            NAMESPACE,
            "patch",
            "natscluster",
            LEAVES,
            "--type=merge",
            "-p",
            drain,
        ],
    )
    .await?;
    let forwarder = ready(kubernetes, epoch).await?;
    say.say(&format!(
        "{LEAVES} is drained; {} % of the hash space moved",
        moved(&forwarder)
    ));
    run_and_say(kubernetes, say, &["-n", NAMESPACE, "delete", "natscluster", LEAVES]).await?;
    run_and_say(kubernetes, say, &["-n", NAMESPACE, "get", "fanout"]).await?;
    run_and_say(
        kubernetes,
        say,
        &[
            "-n",
            NAMESPACE,
            "get",
            "events",
            "--sort-by=.lastTimestamp",
            "--field-selector",
            "reportingComponent=fanout-operator",
        ],
    )
    .await?;
    Ok(())
}

/// The two charts, with the images that the runner has loaded.
async fn install(kubernetes: &Kubernetes, view: &View) -> Result<()> {
    let image = |image: &str| {
        let parts = image
            .rsplit_once(':')
            .map(|(repository, tag)| (repository.to_owned(), tag.to_owned()));
        parts.with_context(|| format!("the image {image} has no tag"))
    };
    let (operator, operator_tag) = image(&kubernetes.cluster.operator_image)?;
    let (forwarder, forwarder_tag) = image(&kubernetes.cluster.forwarder_image)?;
    let sets = [
        format!("image.repository={operator}"),
        format!("image.tag={operator_tag}"),
        format!("forwarderImage.repository={forwarder}"),
        format!("forwarderImage.tag={forwarder_tag}"),
    ];
    let common = ["--namespace", SYSTEM, "--create-namespace", "--wait"];
    let mut crds = vec!["upgrade", "--install", "fanout-crds", "charts/fanout-crds"];
    crds.extend(common);
    let mut chart = vec!["upgrade", "--install", "fanout-operator", "charts/fanout-operator"];
    chart.extend(common);
    for set in &sets {
        chart.extend(["--set", set]);
    }
    for args in [crds, chart] {
        view.say(&format!("$ helm {}", args.join(" ")));
        kubernetes.helm(&args).await?;
    }
    Ok(())
}

/// Says what is run, and what it printed.
async fn kubectl(kubernetes: &Kubernetes, view: &View, args: &[&str]) -> Result<()> {
    view.say(&format!("$ kubectl {}", args.join(" ")));
    let printed = kubernetes.kubectl(args, "").await?;
    view.say(printed.trim_end());
    Ok(())
}

async fn run_and_say(kubernetes: &Kubernetes, say: &Say, args: &[&str]) -> Result<()> {
    say.say(&format!("$ kubectl {}", args.join(" ")));
    let printed = kubernetes.kubectl(args, "").await?;
    say.say(printed.trim_end());
    Ok(())
}

/// Waits until the forwarder is ready as its spec is now, in an epoch above this one.
async fn ready(kubernetes: &Kubernetes, epoch: i64) -> Result<AssetForwarder> {
    let api = Api::<AssetForwarder>::namespaced(kubernetes.client.clone(), NAMESPACE);
    wait::value(PATIENCE, "the forwarder is ready", || async {
        let forwarder = api.get(FORWARDER).await?;
        let status = forwarder.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let ready = ready.ok_or_else(|| anyhow!("nobody has looked at it yet"))?;
        ensure!(
            status.observed_generation == forwarder.metadata.generation && ready.status == "True",
            "{}: {}",
            ready.reason,
            ready.message
        );
        let now = status.ring.map_or(0, |ring| ring.epoch);
        ensure!(now > epoch, "its ring has epoch {now}");
        Ok(Some(forwarder))
    })
    .await
}

async fn epoch(kubernetes: &Kubernetes) -> Result<i64> {
    Ok(ready(kubernetes, 0)
        .await?
        .status
        .and_then(|status| status.ring)
        .map_or(0, |ring| ring.epoch))
}

fn moved(forwarder: &AssetForwarder) -> String {
    let ring = forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    ring.and_then(|ring| ring.moved_percent.clone()).unwrap_or_default()
}

/// Pairs of an asset and a cluster that had records of it: an asset that moves makes a new one.
fn pairs(observer: &Observer) -> usize {
    (0..CLUSTERS.len())
        .filter_map(|cluster| u8::try_from(cluster).ok())
        .map(|cluster| observer.look(|tally| tally.assets_of(cluster)))
        .sum()
}

/// Where subscribers outside Kubernetes reach a cluster.
async fn server(kubernetes: &Kubernetes, cluster: &str) -> Result<String> {
    Ok(format!(
        "nats://{}",
        address(kubernetes, &format!("nats-{cluster}")).await?
    ))
}

/// What subscribers pin: the status says it.
async fn pin(kubernetes: &Kubernetes) -> Result<Pin> {
    let status = ready(kubernetes, 0).await?.status.unwrap_or_default();
    let beacon = status.beacon.context("the forwarder announces no ring")?;
    Ok(Pin::new(beacon.public_key, beacon.ring, beacon.subject))
}

/// The address of a Service, which this machine has a way to.
async fn address(kubernetes: &Kubernetes, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(kubernetes.client.clone(), NAMESPACE)
        .get(name)
        .await?;
    let spec = service.spec.unwrap_or_default();
    let port = spec.ports.unwrap_or_default().first().map(|port| port.port);
    match (spec.cluster_ip, port) {
        (Some(ip), Some(port)) => Ok(format!("{ip}:{port}")),
        _ => Err(anyhow!("Service {NAMESPACE}/{name} has no address")),
    }
}

async fn pods(kubernetes: &Kubernetes) -> Result<Vec<Pod>> {
    let labels = format!("app.kubernetes.io/name=asset-forwarder,app.kubernetes.io/instance={FORWARDER}");
    let api = Api::<Pod>::namespaced(kubernetes.client.clone(), NAMESPACE);
    let mut pods = api.list(&ListParams::default().labels(&labels)).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

async fn names(kubernetes: &Kubernetes) -> Result<Vec<String>> {
    Ok(pods(kubernetes)
        .await?
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect())
}

/// What the pods that run now have counted. One that has just been started does not answer yet.
async fn pages(kubernetes: &Kubernetes) -> Vec<Metrics> {
    let addresses = pods(kubernetes).await.unwrap_or_default().into_iter();
    let addresses = addresses.filter_map(|pod| pod.status.and_then(|status| status.pod_ip));
    futures::stream::iter(addresses)
        .filter_map(|ip| async move {
            let page = http::get_ok(&format!("{ip}:4000"), "/metrics").await.ok()?;
            Some(Metrics::parse(&page))
        })
        .collect()
        .await
}
