//! The whole process on one page: every task, and what ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use forwarder_core::document::{LogFormat, LogLevel, Logging};
use forwarder_service::http::Server;
use forwarder_service::shutdown::{self, Shutdown};
use kube::{Client, Config};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::cli::{Cli, Format, Level};
use crate::context::{Context, Scope, Settings};
use crate::controllers::{asset_forwarder, kafka_channel, nats_cluster};
use crate::index::{Readiness, Rings, follow_rings, follow_secrets, secret_wakes};
use crate::leader::{Candidate, End};
use crate::metrics::Metrics;
use crate::reconcile::events::Events;
use crate::serve::{probes, router};
use crate::watch::{Shared, WATCH};

/// A request without any data for so long has failed. The server ends a watch before that.
const SILENCE: Duration = Duration::from_secs(WATCH.as_secs() + 15);

/// Runs until `stop`, until the Lease is lost, or until a part ends by itself.
///
/// ```text
/// every replica   metrics and probes · router (watches the rings' ConfigMaps) · candidate for the Lease
/// the leader      NatsCluster · KafkaChannel · AssetForwarder, beside one watch of each · the Secrets that they refer to
/// ```
/// If one task ends, the process ends: a replica that does only a part of its work would look healthy.
///
/// # Errors
/// Whatever ends the process.
pub async fn run(cli: Cli, mut stop: Shutdown) -> anyhow::Result<()> {
    forwarder_service::logging::init(&logging(&cli))?;
    let mut config = Config::infer()
        .await
        .context("failed to find the address and the credentials of the API server")?;
    config.read_timeout = Some(SILENCE);
    // What counts is for how long a request has waited, not its connection before it.
    config.reset_reader_on_write = true;
    let client = Client::try_from(config.clone()).context("failed to create a client for the API server")?;
    let mut once = config.clone();
    once.default_retry = false;
    let unretried = Client::try_from(once).context("failed to create a client for the API server")?;
    let metrics = Arc::new(Metrics::new()?);
    let scope = match &cli.watch_namespace {
        Some(namespace) if !namespace.is_empty() => Scope::Namespace(namespace.clone()),
        _ => Scope::Cluster,
    };
    let metrics_server = Server::bind(&cli.address, cli.metrics_port).await?;
    let router_server = Server::bind(&cli.address, cli.router_port).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ?scope,
        metrics = %metrics_server.address(),
        router = %router_server.address(),
        "operator started"
    );

    // What all replicas do goes on until the controllers have ended, so it has a shutdown of its own.
    let (trigger, last) = shutdown::channel();
    let readiness = Arc::new(Readiness::default());
    let rings = Arc::new(Rings::default());
    {
        let rings = Arc::clone(&rings);
        readiness.wants("rings of the router", move || rings.are_read());
    }
    let mut parts = JoinSet::new();
    {
        let (metrics, readiness, mut last) = (Arc::clone(&metrics), Arc::clone(&readiness), last.clone());
        parts.spawn(async move {
            probes::serve(
                metrics_server,
                metrics,
                readiness,
                async move { last.requested().await },
            )
            .await;
            "the metrics server"
        });
    }
    {
        let (client, scope) = (client.clone(), scope.clone());
        parts.spawn(async move {
            tokio::select! {
                () = router::serve(router_server, Arc::clone(&rings), last) => "the router",
                never = follow_rings(&client, &scope, &rings) => match never {},
            }
        });
    }

    let candidate = Candidate::new(config, &cli.namespace, &cli.lease, &cli.identity)
        .context("failed to create a client for the Lease")?;
    let leads = tokio::select! {
        acquired = candidate.acquire(&mut stop) => acquired,
        Some(ended) = parts.join_next() => return Err(ended_early(ended)),
    };
    let mut result = Ok(());
    if let Some(mut renewed) = leads {
        info!("became the leader");
        metrics.set_leader(true);
        let settings = Settings {
            forwarder_image: cli.forwarder_image,
            forwarder_image_pull_policy: cli.forwarder_image_pull_policy.as_str(),
            require_secret_opt_in: cli.require_secret_opt_in,
            pod_security_ids: cli.pod_security_ids,
            namespace: cli.namespace,
            concurrency: cli.concurrency,
        };
        let events = Events::new(client.clone(), cli.identity.clone());
        let context = Arc::new(Context::new(
            client,
            unretried,
            scope,
            settings,
            events,
            Arc::clone(&metrics),
            readiness,
        ));
        result = lead(&candidate, &mut renewed, context, &mut parts, stop).await;
        metrics.set_leader(false);
    }
    trigger.stop();
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a part of the process has failed");
        }
    }
    result
}

/// What has ended.
type Part = &'static str;

/// Runs the controllers while this process holds the Lease. It is released after they have ended, so that the next leader runs
/// alone.
async fn lead(
    candidate: &Candidate,
    renewed: &mut Instant,
    context: Arc<Context>,
    parts: &mut JoinSet<Part>,
    mut stop: Shutdown,
) -> anyhow::Result<()> {
    let (trigger, controllers_stop) = shutdown::channel();
    let mut controllers = JoinSet::new();
    let (wakes, (of_clusters, of_channels, of_forwarders)) = secret_wakes();
    controllers.spawn(follow_secrets(Arc::clone(&context), wakes, controllers_stop.clone()));
    let mut clusters = Shared::<NatsCluster>::of(&context);
    let mut channels = Shared::<KafkaChannel>::of(&context);
    let mut forwarders = Shared::<AssetForwarder>::of(&context);
    controllers.spawn(nats_cluster::run(
        Arc::clone(&context),
        clusters.subscribe(),
        forwarders.subscribe(),
        of_clusters,
        controllers_stop.clone(),
    ));
    controllers.spawn(kafka_channel::run(
        Arc::clone(&context),
        channels.subscribe(),
        of_channels,
        controllers_stop.clone(),
    ));
    let resources = asset_forwarder::watch::Resources {
        forwarders: forwarders.subscribe(),
        rivals: forwarders.subscribe(),
        clusters: clusters.subscribe(),
        channels: channels.subscribe(),
    };
    controllers.spawn(asset_forwarder::run(
        context,
        resources,
        of_forwarders,
        controllers_stop.clone(),
    ));
    controllers.spawn(clusters.run(controllers_stop.clone()));
    controllers.spawn(channels.run(controllers_stop.clone()));
    controllers.spawn(forwarders.run(controllers_stop));
    let end = tokio::select! {
        end = candidate.hold(renewed, &mut stop) => end,
        Some(ended) = parts.join_next() => return Err(ended_early(ended)),
        Some(ended) = controllers.join_next() => match ended {
            Ok(()) => bail!("a controller has ended unexpectedly"),
            Err(error) => return Err(error).context("a controller has failed"),
        },
    };
    if end == End::Lost {
        // Others may begin in a moment: what is under way must not go on beside them.
        controllers.shutdown().await;
        bail!("the Lease is lost: another replica goes on");
    }
    // Reconciles that have begun are finished under a Lease that is still renewed.
    trigger.stop();
    let (_renewing, mut forever) = shutdown::channel();
    tokio::select! {
        () = async { while controllers.join_next().await.is_some() {} } => candidate.release().await,
        _ = candidate.hold(renewed, &mut forever) => bail!("the Lease was lost while reconciles were being finished"),
    }
    Ok(())
}

fn ended_early(ended: Result<Part, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(part) => anyhow::anyhow!("{part} has ended unexpectedly"),
        Err(error) => anyhow::Error::from(error).context("a part of the process has failed"),
    }
}

fn logging(cli: &Cli) -> Logging {
    Logging {
        level: match cli.log_level {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
        },
        format: match cli.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        },
        http_requests: false,
    }
}
