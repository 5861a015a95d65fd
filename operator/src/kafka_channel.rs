//! The controller of `KafkaChannel`: looks whether the topic can be had, and keeps a managed one as declared.
//!
//! ```text
//! dereference ─▶ validate ─▶ inspect ─▶ plan ─▶ change ─▶ assess ─▶ status
//! (Secrets)      (pure)      (Kafka)    (pure)  (Kafka)   (pure)    (one write)
//! ```
//! Nothing is changed that could harm records: partitions grow only where somebody has acknowledged what that means, and a
//! topic is deleted only where `deletionPolicy` says so.

mod admin;
mod assess;
mod dereference;
mod inspect;
mod plan;
mod removal;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;

use crds::KafkaChannel;
use crds::kafka_channel::DeletionPolicy;
use forwarder::shutdown::Shutdown;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};

pub use self::validate::{InvalidSpec, Validated, validate};

use self::assess::Facts;
use self::dereference::{DereferenceError, Dereferenced, dereference};
use self::inspect::Failure;
use self::plan::{Step, plan};
use self::removal::{Removal, Why, removal};
use crate::context::Context;
use crate::controller::{self, drive, metadata};
use crate::credentials::{referrers, secrets_of_kafka};
use crate::finalizer::{self, FinalizerError};
use crate::status;

/// On channels whose deletion deletes the topic, and only on them.
pub const FINALIZER: &str = "fanout.openfactory.io/topic";

/// The annotation that lets a deleted channel go at once and leaves the topic, with the value `true`.
pub const SKIP_TOPIC_DELETION: &str = "fanout.openfactory.io/skip-topic-deletion";

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error(transparent)]
    Finalizer(#[from] FinalizerError),
    #[error("failed to keep credentials in a private folder")]
    Folder(#[from] std::io::Error),
    #[error("a thread that talked to Kafka has failed")]
    Thread(#[from] tokio::task::JoinError),
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

impl controller::Failure for ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "dereference",
            Self::Finalizer(_) => "finalizer",
            Self::Folder(_) => "folder",
            Self::Thread(_) => "thread",
            Self::Status(_) => "status",
        }
    }
}

/// Runs the controller until `stop`.
pub async fn run(context: Arc<Context>, stop: Shutdown) {
    let controller = controller::controller::<KafkaChannel>(&context);
    let channels = controller.store();
    context.metrics.show_ready(channels.clone(), |channel: &KafkaChannel| {
        let status = channel.status.as_ref()?;
        Some((status.observed_generation, &status.conditions))
    });
    let secrets = metadata(&context, controller::watching());
    let controller = controller.watches_stream(secrets, move |secret| {
        referrers(&channels, &secret, |channel: &KafkaChannel| {
            secrets_of_kafka(&channel.spec.connection)
        })
    });
    drive("KafkaChannel", controller, context, reconcile, stop).await;
}

async fn reconcile(channel: Arc<KafkaChannel>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let api = Api::<KafkaChannel>::namespaced(context.client.clone(), &channel.namespace().unwrap_or_default());
    let now = Timestamp::now();
    let found = dereference(&channel, &context).await?;
    let facts = match removal(&channel, &found, now) {
        Removal::Stays => {
            // Before the topic is made: one that nobody would delete must not come to be.
            finalizer::set(&context, &api, &channel, FINALIZER, deletes_topic(&channel)).await?;
            Some(keep(&channel, &found, &context).await?)
        }
        Removal::Deletes { past } => match (remove(&channel, &found, &context).await?, past) {
            (Some(_), Some(bound)) => {
                removal::tell(&context, &channel, Why::Bound(bound)).await;
                None
            }
            (removed, _) => removed,
        },
        Removal::Leaves(why) => {
            removal::tell(&context, &channel, why).await;
            None
        }
    };
    let Some(facts) = facts else {
        finalizer::set(&context, &api, &channel, FINALIZER, false).await?;
        return Ok(Action::await_change());
    };
    let status = assess::status(&channel, &facts, now);
    status::write(&context, &api, &channel, channel.status.as_ref(), &status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))?;
    Ok(Action::requeue(assess::again_after(&channel, &status, now)))
}

/// Whether deleting the channel deletes the topic.
fn deletes_topic(channel: &KafkaChannel) -> bool {
    let topic = &channel.spec.topic;
    topic.managed && topic.deletion_policy == DeletionPolicy::Delete
}

/// Looks at the topic, changes what is not as declared, and looks again.
async fn keep(channel: &KafkaChannel, found: &Dereferenced, context: &Context) -> Result<Facts, ReconcileError> {
    let (facts, done) = with_kafka(channel, found, |topic, connection| {
        let mut seen = inspect::inspect(&connection, &topic)?;
        let mut plan = plan(&topic, &seen);
        let mut done = Vec::new();
        if !plan.steps.is_empty() {
            for step in std::mem::take(&mut plan.steps) {
                admin::change(&connection, &topic.name, &step)?;
                done.push(step);
            }
            seen = inspect::inspect_until(&connection, &topic, |seen| {
                plan = plan::plan(&topic, seen);
                plan.steps.is_empty()
            })?;
        }
        Ok((seen, plan, done))
    })
    .await?
    .map_or_else(
        |facts| (facts, Vec::new()),
        |(seen, plan, done)| (Facts::Seen { seen, plan }, done),
    );
    for step in done {
        let (reason, note) = step.told(&channel.spec.topic.name);
        context.events.normal(&channel.object_ref(&()), reason, note).await;
    }
    Ok(facts)
}

/// Deletes the topic; none: it is gone.
async fn remove(
    channel: &KafkaChannel,
    found: &Dereferenced,
    context: &Context,
) -> Result<Option<Facts>, ReconcileError> {
    let removed = with_kafka(channel, found, |topic, connection| {
        // Who is refused, and why, only this tells.
        if inspect::inspect(&connection, &topic)?.topic.is_none() {
            return Ok(());
        }
        admin::change(&connection, &topic.name, &Step::Delete)
    });
    match removed.await? {
        Ok(()) => {
            let (reason, note) = Step::Delete.told(&channel.spec.topic.name);
            context.events.normal(&channel.object_ref(&()), reason, note).await;
            Ok(None)
        }
        Err(facts) => Ok(Some(facts)),
    }
}

/// Runs `work` on a thread of its own, with the connection's files in a private folder for as long as it lasts.
async fn with_kafka<T: Send + 'static>(
    channel: &KafkaChannel,
    found: &Dereferenced,
    work: impl FnOnce(crds::kafka_channel::Topic, forwarder_core::config::KafkaConnection) -> Result<T, Failure>
    + Send
    + 'static,
) -> Result<Result<T, Facts>, ReconcileError> {
    let folder = tempfile::tempdir()?;
    let Validated { connection, files } = match validate(channel, &found.secrets, folder.path()) {
        Ok(validated) => validated,
        Err(refused) => return Ok(Err(Facts::Refused(refused))),
    };
    files.write(folder.path())?;
    let topic = channel.spec.topic.clone();
    // librdkafka's calls block.
    let worked = tokio::task::spawn_blocking(move || {
        let worked = work(topic, connection);
        drop(folder);
        worked
    });
    Ok(worked.await?.map_err(Facts::Failed))
}
