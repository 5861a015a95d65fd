//! The operator at scale, against a real API server: how long it takes, what it asks for, and how much memory it holds.
//!
//! ```text
//! a model's children ─▶ a plain loop applies them │ the operator makes as many │ a minute of rest │ a member joins
//!                     └───────────── both through the rig's proxy, which counts ─────────────────────────────────┘
//! a new operator: a ring of 30 │ a new operator: all objects, and foreign Secrets
//! └───────────── directly, as installed: its memory is what is looked at ───────┘
//! ```
//! Forwarders have no pods, so that the operator is measured and not the node.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use e2e_rig::crowd::{counted, counts, each, has_ring, is_ready, make, make_foreign_secrets, wait_all};
use e2e_rig::interrupts::Interrupts;
use e2e_rig::kafka::Kafka;
use e2e_rig::kubernetes::{ApiProxy, Kubernetes, Namespace, Operator};
use e2e_rig::manifests::{asset_forwarder, kafka_channel, nats_cluster};
use e2e_rig::nats::Nats;
use e2e_rig::process::{peak_rss_bytes, rss_bytes};
use e2e_rig::wait;
use k8s_openapi::api::core::v1;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::figures::{Figures, say};

/// The forwarder whose children are applied by the loop. Its name is as long as those of the others.
const MODEL: &str = "line-model";

/// The kinds of a forwarder's children.
const CHILDREN: &str =
    "configmaps,secrets,services,serviceaccounts,deployments,roles,rolebindings,poddisruptionbudgets,networkpolicies";

/// Members of the rings whose memory is measured.
const MEMBERS: usize = 30;

/// How long a settled operator is looked at.
const REST: Duration = Duration::from_secs(60);

/// An operator that has written nothing for so long has settled: longer than anything that it polls while it is not.
const SETTLED: Duration = Duration::from_secs(6);

/// Between two looks at its metrics.
const LOOK: Duration = Duration::from_millis(500);

/// No step of many objects is worth more.
const PATIENCE: Duration = Duration::from_secs(2_400);

/// How many of what.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Counts {
    /// With --operator: AssetForwarders without pods.
    #[arg(long, default_value_t = 1_000, requires = "operator", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    forwarders: u32,
    /// With --operator: objects of ours at the end. The rest are KafkaChannels and NatsClusters outside of rings, half each.
    #[arg(long, default_value_t = 10_000, requires = "operator")]
    objects: u32,
    /// With --operator: Secrets at the end that are none of the operator's business.
    #[arg(long, default_value_t = 30_000, requires = "operator")]
    secrets: u32,
}

/// Measures, prints and deletes what it has made, also when it is interrupted.
pub(crate) async fn run(counts: Counts, figures: &mut Figures) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let stand = tokio::select! {
        stand = Stand::start(counts) => stand?,
        // What had started is dropped, and ends.
        () = interrupts.next() => return Ok(ExitCode::from(130)),
    };
    // No operator outlives this: it would put back what is taken away afterwards.
    let measured = tokio::select! {
        // A signal ends a kubectl as well, whose failure is not what is to be told.
        biased;
        () = interrupts.next() => {
            say("interrupted: what was made is deleted");
            Ok(ExitCode::from(130))
        }
        measured = stand.measure(figures) => measured.map(|()| ExitCode::SUCCESS),
    };
    let printed = figures.print();
    let cleared = tokio::select! {
        cleared = stand.clear() => cleared,
        // Whoever asks twice does not want to wait.
        () = interrupts.next() => return Ok(ExitCode::from(130)),
    };
    let code = measured?;
    printed.and(cleared)?;
    Ok(code)
}

/// What operators work on. The namespaces are deleted, and the servers end, when this is dropped.
struct Stand {
    counts: Counts,
    kubernetes: Kubernetes,
    /// Of the operator and all that it works on.
    own: Namespace,
    /// Of foreign Secrets.
    foreign: Namespace,
    kafka: Kafka,
    /// Of all channels.
    topic: String,
    /// Stands for the servers of all clusters.
    nats: Nats,
}

impl Stand {
    async fn start(counts: Counts) -> Result<Self> {
        let kubernetes = Kubernetes::of_run().await?;
        kubernetes.install_definitions().await?;
        let kafka = Kafka::start().await?;
        let topic = kafka.topic("assets", crate::PARTITIONS).await?;
        Ok(Self {
            counts,
            own: Namespace::new(&kubernetes)?,
            foreign: Namespace::new(&kubernetes)?,
            kubernetes,
            kafka,
            topic,
            nats: Nats::start().await?,
        })
    }

    async fn measure(&self, figures: &mut Figures) -> Result<()> {
        let proxy = self.kubernetes.api_proxy().await?;
        let flags = ["--watch-namespace", self.own.name.as_str()];
        let mut operator = Operator::measured(&self.kubernetes, &self.own.name, "operator", Some(&proxy), &flags)?;
        operator.wait_leads().await?;
        let model = self.model(&operator).await?;
        stop(&mut operator)?;

        let looped = self.plain_loop(&proxy.client()?, &model).await?;
        figures.add("operator_loop_s", looped, "s");

        operator.start_again()?;
        operator.wait_leads().await?;
        settle(&operator).await?;
        let forwarders = self.forwarders();
        proxy.take_requests();
        say(&format!("{forwarders} forwarders by the operator"));
        let begun = Instant::now();
        make(&self.own.api::<AssetForwarder>(), 0..forwarders, |number| {
            asset_forwarder(&line(number), &line(number), 0)
        })
        .await?;
        self.wait_rings(2).await?;
        let made = begun.elapsed().as_secs_f64();
        settle(&operator).await?;
        let requests = Requests::since_the_last(&proxy);
        figures.add("operator_made_s", made, "s");
        figures.add_bounded("operator_made_ratio", made / looped, "times the loop", 2.0);
        figures.add_bounded(
            "operator_requests",
            requests.per(forwarders),
            "requests/forwarder",
            20.0,
        );

        say(&format!("a settled operator, for {} s", REST.as_secs()));
        proxy.take_requests();
        sleep(REST).await;
        let Requests { writes, reads } = Requests::since_the_last(&proxy);
        let per_second = |count: usize| count as f64 / REST.as_secs_f64();
        figures.add_bounded("operator_settled_writes", per_second(writes), "writes/s", 0.0);
        figures.add_bounded("operator_settled_reads", per_second(reads), "reads/s", 20.0);

        say("a member joins");
        let begun = Instant::now();
        self.add_members(2..3).await?;
        self.wait_rings(3).await?;
        figures.add_bounded("operator_join_s", begun.elapsed().as_secs_f64(), "s", 15.0);
        settle(&operator).await?;
        let requests = Requests::since_the_last(&proxy);
        figures.add("operator_join_requests", requests.per(forwarders), "requests/forwarder");
        stop(&mut operator)?;
        drop(proxy);

        say(&format!("{forwarders} forwarders with rings of {MEMBERS}"));
        let mut operator = self.installed("operator-of-rings").await?;
        self.add_members(3..MEMBERS).await?;
        self.wait_rings(MEMBERS).await?;
        settle(&operator).await?;
        add_memory(figures, "operator_ring", &mut operator, 120.0)?;
        stop(&mut operator)?;

        self.crowd(figures).await
    }

    /// All objects that there are to be, and foreign Secrets, under an operator that finds them there.
    async fn crowd(&self, figures: &mut Figures) -> Result<()> {
        let Counts { objects, secrets, .. } = self.counts;
        let others = (objects as usize).saturating_sub(self.forwarders() + MEMBERS + 1);
        let clusters = others / 2;
        let channels = others - clusters;
        say(&format!(
            "{secrets} foreign Secrets, {clusters} further clusters, {channels} further channels"
        ));
        make_foreign_secrets(&self.foreign.api(), secrets as usize).await?;
        make(&self.own.api::<NatsCluster>(), 0..clusters, |number| {
            let mut cluster = nats_cluster(&format!("apart-{number}"), &format!("APART-{number}"), &self.nats.url());
            cluster["metadata"]["labels"] = json!({});
            cluster
        })
        .await?;
        make(&self.own.api::<KafkaChannel>(), 0..channels, |number| {
            kafka_channel(&format!("apart-{number}"), self.kafka.bootstrap(), &self.topic)
        })
        .await?;

        say("an operator of all of it");
        let mut operator = self.installed("operator-of-all").await?;
        let what = "every object is ready";
        let (all_clusters, all_channels) = (self.own.api(), self.own.api());
        tokio::try_join!(
            wait_all(
                &all_clusters,
                clusters + MEMBERS,
                PATIENCE,
                what,
                is_ready::<NatsCluster>
            ),
            wait_all(&all_channels, channels + 1, PATIENCE, what, is_ready::<KafkaChannel>),
            self.wait_rings(MEMBERS),
        )?;
        settle(&operator).await?;
        add_memory(figures, "operator_crowd", &mut operator, 200.0)?;
        stop(&mut operator)
    }

    /// An operator as a chart installs it: of all namespaces, with nothing before the API server.
    async fn installed(&self, identity: &str) -> Result<Operator> {
        let mut operator = Operator::measured(&self.kubernetes, &self.own.name, identity, None, &[])?;
        operator.wait_leads().await?;
        Ok(operator)
    }

    /// Two clusters, the channel and a forwarder that goes again: what the operator has made for it, without what the server adds.
    async fn model(&self, operator: &Operator) -> Result<Vec<Value>> {
        self.add_members(0..2).await?;
        let channel = serde_json::from_value(kafka_channel("assets", self.kafka.bootstrap(), &self.topic))?;
        self.own
            .api::<KafkaChannel>()
            .create(&PostParams::default(), &channel)
            .await?;
        let api = self.own.api::<AssetForwarder>();
        let forwarder = serde_json::from_value(asset_forwarder(MODEL, MODEL, 0))?;
        api.create(&PostParams::default(), &forwarder).await?;
        wait_all(&api, 1, PATIENCE, "the first forwarder is ready", |forwarder| {
            has_ring(forwarder, 2)
        })
        .await?;
        settle(operator).await?;
        let uid = api.get(MODEL).await?.uid();
        let listed: Value = serde_json::from_str(&self.own.kubectl(&["get", CHILDREN, "-o", "json"]).await?)?;
        let all = listed["items"].as_array().into_iter().flatten();
        let own = all.filter(|child| {
            let owner = &child["metadata"]["ownerReferences"][0]["uid"];
            owner.as_str().is_some() && owner.as_str() == uid.as_deref()
        });
        let model: Vec<Value> = own.map(bare).collect();
        ensure!(!model.is_empty(), "the operator has made nothing for {MODEL}");
        api.delete(MODEL, &DeleteParams::background()).await?;
        wait::eventually(PATIENCE, "the model is gone", || async {
            Ok(api.get_opt(MODEL).await?.is_none())
        })
        .await?;
        Ok(model)
    }

    /// Applies the model's children for each forwarder in a namespace that goes again. Yields the seconds that it took.
    async fn plain_loop(&self, client: &Client, model: &[Value]) -> Result<f64> {
        let forwarders = self.forwarders();
        let kinds: Vec<String> = model
            .iter()
            .map(|child| text_of(child, "kind").map(str::to_owned))
            .collect::<Result<_>>()?;
        say(&format!(
            "a plain loop for {forwarders} forwarders of {} children: {}",
            model.len(),
            kinds.join(", ")
        ));
        let texts: Vec<(ApiResource, String)> = model
            .iter()
            .map(|child| Ok((resource(child)?, child.to_string())))
            .collect::<Result<_>>()?;
        let namespace = Namespace::new(&self.kubernetes)?;
        let params = PatchParams::apply("bench").force();
        let begun = Instant::now();
        each(0..forwarders * texts.len(), |number| {
            let (name, params) = (line(number / texts.len()), &params);
            let child = texts.get(number % texts.len());
            let namespace = &namespace.name;
            async move {
                let (resource, text) = child.context("there is no such child")?;
                let child: DynamicObject = serde_json::from_str(&text.replace(MODEL, &name))?;
                let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource);
                let applied = api.patch(&child.name_any(), params, &Patch::Apply(&child)).await;
                applied
                    .map(drop)
                    .with_context(|| format!("failed to apply {} {}", resource.kind, child.name_any()))
            }
        })
        .await?;
        let seconds = begun.elapsed().as_secs_f64();
        // Its end would be a load of its own beside what is measured next.
        say("the loop's objects are deleted");
        let name = namespace.name.clone();
        drop(namespace);
        let namespaces = Api::<v1::Namespace>::all(self.kubernetes.client.clone());
        wait::eventually(PATIENCE, "the loop's namespace is gone", || async {
            let gone = namespaces.get_opt(&name).await?.is_none();
            if !gone {
                sleep(LOOK).await;
            }
            Ok(gone)
        })
        .await?;
        Ok(seconds)
    }

    async fn add_members(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        make(&self.own.api::<NatsCluster>(), numbers, |number| {
            nats_cluster(&format!("c{number}"), &format!("C{number}"), &self.nats.url())
        })
        .await
    }

    /// Waits until the last forwarder has a ring of so many.
    async fn wait_rings(&self, members: usize) -> Result<()> {
        let what = format!("all are ready with {members} members");
        let wanted = i32::try_from(members).context("a ring beyond all bounds")?;
        let forwarders = self.own.api::<AssetForwarder>();
        wait_all(&forwarders, self.forwarders(), PATIENCE, &what, |forwarder| {
            has_ring(forwarder, wanted)
        })
        .await
    }

    fn forwarders(&self) -> usize {
        self.counts.forwarders as usize
    }

    /// Takes the finalizers off that nobody is left to take off, then deletes the namespaces.
    async fn clear(self) -> Result<()> {
        let api = self.own.api::<NatsCluster>();
        let clusters = api.list(&ListParams::default()).await?.items;
        let held: Vec<String> = clusters
            .iter()
            .filter(|cluster| !cluster.finalizers().is_empty())
            .map(|cluster| cluster.name_any())
            .collect();
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        each(0..held.len(), |number| {
            let (api, none, name) = (&api, &none, held.get(number));
            async move {
                let name = name.context("there is no such cluster")?;
                api.patch(name, &PatchParams::default(), none).await?;
                Ok(())
            }
        })
        .await
        .context("failed to take finalizers off")
    }
}

fn line(number: usize) -> String {
    format!("line-{number:05}")
}

/// A child as somebody would apply it who has no owner for it: what the server or the owner has added would be refused, or be deleted.
fn bare(child: &Value) -> Value {
    let mut child = child.clone();
    if let Some(fields) = child.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = child["metadata"].as_object_mut() {
        metadata.retain(|field, _| ["name", "labels", "annotations"].contains(&field.as_str()));
    }
    if let Some(spec) = child.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| !field.starts_with("clusterIP"));
    }
    child
}

/// Where objects like this one are.
fn resource(object: &Value) -> Result<ApiResource> {
    let api_version = text_of(object, "apiVersion")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = GroupVersionKind::gvk(group, version, text_of(object, "kind")?);
    Ok(ApiResource::from_gvk(&kind))
}

fn text_of<'a>(object: &'a Value, field: &str) -> Result<&'a str> {
    let text = object[field].as_str();
    text.with_context(|| format!("an object has no {field}"))
}

/// Requests of an operator since the last look, its watches and its Lease aside.
struct Requests {
    writes: usize,
    reads: usize,
}

impl Requests {
    /// Prints them by kind as well.
    fn since_the_last(proxy: &ApiProxy) -> Self {
        let calls = proxy.take_requests();
        for (what, count) in counted(&calls) {
            say(&format!("  {count} × {what}"));
        }
        let counted = calls.iter().filter(|call| counts(call));
        let (writes, reads): (Vec<_>, Vec<_>) = counted.partition(|call| call.verb.is_write());
        Self {
            writes: writes.len(),
            reads: reads.len(),
        }
    }

    /// How many there are for each of so many objects.
    fn per(&self, objects: usize) -> f64 {
        (self.writes + self.reads) as f64 / objects as f64
    }
}

/// Waits until an operator has written nothing for a while, by its own count.
async fn settle(operator: &Operator) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (mut written, mut since) = (None, Instant::now());
    while since.elapsed() < SETTLED {
        let now = operator.metrics().await?.sum("fanout_operator_api_writes_total", &[]);
        if written != Some(now) {
            ensure!(Instant::now() < deadline, "the operator never settles: {now} writes");
            (written, since) = (Some(now), Instant::now());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// What an operator holds now, and the most that it ever held.
fn add_memory(figures: &mut Figures, name: &str, operator: &mut Operator, most: f64) -> Result<()> {
    let pid = operator.process().pid();
    figures.add_bounded(&format!("{name}_rss_mb"), rss_bytes(pid)? as f64 / 1e6, "MB", most);
    figures.add_bounded(
        &format!("{name}_peak_mb"),
        peak_rss_bytes(pid)? as f64 / 1e6,
        "MB",
        most,
    );
    Ok(())
}

/// In good order, so that the Lease is free for the next one.
fn stop(operator: &mut Operator) -> Result<()> {
    let status = operator.stop()?;
    ensure!(
        status.success(),
        "the operator ended with {status}\n{}",
        operator.process().log_tail()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_child_can_be_applied_by_anybody() {
        let child = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "line-model", "labels": {"a": "b"}, "uid": "u", "ownerReferences": [{"uid": "o"}]},
            "spec": {"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "type": "ClusterIP"},
            "status": {},
        });
        let wanted = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "line-model", "labels": {"a": "b"}},
            "spec": {"type": "ClusterIP"},
        });
        assert_eq!(bare(&child), wanted);
        assert_eq!(line(7).len(), MODEL.len());
    }

    #[test]
    fn children_are_found_by_their_kind() {
        let of = |api_version: &str, kind: &str| {
            let found = resource(&json!({"apiVersion": api_version, "kind": kind})).unwrap();
            (found.group, found.version, found.plural)
        };
        let all = |group: &str, version: &str, plural: &str| (group.to_owned(), version.to_owned(), plural.to_owned());
        assert_eq!(of("v1", "ConfigMap"), all("", "v1", "configmaps"));
        let policies = all("networking.k8s.io", "v1", "networkpolicies");
        assert_eq!(of("networking.k8s.io/v1", "NetworkPolicy"), policies);
    }
}
