//! The controller of `KafkaChannel`: looks whether the topic can be had, and keeps a managed one as declared.
//!
//! ```text
//! dereference ─▶ validate ─▶ inspect ─▶ decide ─▶ apply ─▶ status
//! (Secrets)      (pure)      (Kafka)    (pure)    (Kafka)  (pure, then one write)
//! ```
//! Nothing is changed that could harm records. Partitions grow only after a user has acknowledged what that means. A topic is
//! deleted only if `deletionPolicy` says so, this channel has created it (`creation`) and nothing else uses it (`users`).

mod apply;
mod creation;
mod decide;
mod dereference;
mod inspect;
mod keep;
mod refusals;
mod removal;
mod seen;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod threads;
mod users;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::KafkaChannel;
use crds::kafka_channel::DeletionPolicy;
use forwarder_service::shutdown::Shutdown;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

pub use self::validate::{Validated, validate};

use self::keep::Keeper;
use self::removal::{Removal, Tried, removal};
use self::seen::Failure;
use self::status::Facts;
use crate::context::Context;
use crate::index::Name;
use crate::reconcile::credentials::{Secrets, SecretsError, secrets_of_kafka};
use crate::reconcile::drive::{self, Slots, drive};
use crate::reconcile::finalizer::{self, FinalizerError};
use crate::reconcile::own_writes::{LATER, Newest, SOON};
use crate::watch::{Subscription, changes, declared, hash};

/// On channels whose deletion deletes the topic, and only on them.
pub const FINALIZER: &str = "fanout.openfactory.io/topic";

/// The annotation that lets a deleted channel go at once and leaves the topic, with the value `true`.
pub const SKIP_TOPIC_DELETION: &str = "fanout.openfactory.io/skip-topic-deletion";

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("failed to read the KafkaChannel again")]
    Channel(#[source] Box<kube::Error>),
    #[error("failed to list the KafkaChannels and AssetForwarders that may use the topic")]
    Users(#[source] Box<kube::Error>),
    #[error("the KafkaChannel is gone: the operator creates nothing for it")]
    Gone,
    #[error("the API server or Kafka has not answered within {:?}", removal::TRY)]
    Silent,
    #[error(transparent)]
    Finalizer(#[from] FinalizerError),
    #[error("failed to keep credentials in a private folder")]
    Folder(#[from] std::io::Error),
    #[error("all threads for Kafka stayed busy: brokers of this namespace or of other namespaces answer slowly")]
    Busy,
    #[error("a thread for Kafka has failed")]
    Thread(#[from] tokio::task::JoinError),
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

impl drive::Failure for ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Secrets(_) | Self::Channel(_) | Self::Users(_) => "dereference",
            Self::Gone => "gone",
            Self::Silent => "timeout",
            Self::Finalizer(_) => "finalizer",
            Self::Folder(_) => "folder",
            Self::Busy => "busy",
            Self::Thread(_) => "thread",
            Self::Status(_) => "status",
        }
    }
}

impl ReconcileError {
    fn channel(error: kube::Error) -> Self {
        Self::Channel(Box::new(error))
    }

    fn users(error: kube::Error) -> Self {
        Self::Users(Box::new(error))
    }

    fn status(error: kube::Error) -> Self {
        Self::Status(Box::new(error))
    }
}

/// How many channels are looked at together at least: most of a look is waiting for somebody else's brokers.
const LOOKS: u16 = 64;

/// Runs the controller until `stop`. `of_secrets` says whose Secrets have changed.
pub async fn run(
    context: Arc<Context>,
    channels: Subscription<KafkaChannel>,
    of_secrets: impl Stream<Item = ObjectRef<KafkaChannel>> + Send + 'static,
    stop: Shutdown,
) {
    let Subscription {
        store: channels,
        events: own,
    } = channels;
    context.metrics.show_ready(channels.clone(), |channel: &KafkaChannel| {
        let status = channel.status.as_ref()?;
        Some((status.observed_generation, &status.conditions))
    });
    let own = own.inspect({
        let context = Arc::clone(&context);
        move |event| context.references.channels.hear(event, secrets_of)
    });
    let own = changes(own.map(Ok), |channel| {
        Some(hash(&(
            declared(channel),
            channel.annotations().get(SKIP_TOPIC_DELETION),
        )))
    });
    let own = own.map(|channel| ObjectRef::from_obj(&channel));
    let controller = drive::controller(channels, stream::select(own, of_secrets));
    let slots = Slots::new(context.settings.concurrency.max(LOOKS));
    drive("KafkaChannel", controller, slots, context, reconcile, stop).await;
}

fn secrets_of(channel: &KafkaChannel) -> BTreeSet<Name> {
    let namespace = channel.namespace().unwrap_or_default();
    let secrets = secrets_of_kafka(&channel.spec.connection).into_iter();
    secrets.map(|name| (namespace.clone(), name)).collect()
}

async fn reconcile(channel: Arc<KafkaChannel>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let api = Api::<KafkaChannel>::namespaced(context.client.clone(), &channel.namespace().unwrap_or_default());
    let newest = context.own_writes.newest(&api, channel).await;
    let channel = match newest.map_err(ReconcileError::channel)? {
        Newest::Known(channel) => channel,
        Newest::Behind => return Ok(Action::requeue(SOON)),
        Newest::Gone => return Ok(Action::requeue(LATER)),
    };
    let now = Timestamp::now();
    let mut next = removal(&channel, false, now);
    if matches!(next, Removal::Deletes { .. }) {
        next = removal(&channel, removal::namespace_goes(&channel, &context).await, now);
    }
    let (facts, record) = match next {
        Removal::Stays => {
            let secrets = dereference::secrets(&channel, &context).await?;
            // Before the topic is made: one that nobody would delete must not come to be.
            finalizer::set(&context, &api, &channel, FINALIZER, deletes_topic(&channel)).await?;
            let keeper = Keeper {
                context: &context,
                api: &api,
                channel: &channel,
                secrets: &secrets,
                now,
            };
            keeper.keep().await?
        }
        next => {
            let tried = match next {
                Removal::Leaves(why) => Tried::Left(why),
                Removal::Deletes { past } => {
                    let tried = tokio::time::timeout(removal::TRY, removal::remove(&channel, &context, &api, now));
                    removal::concluded(tried.await.unwrap_or(Err(ReconcileError::Silent)), past)
                }
                Removal::Stays => return Ok(Action::await_change()),
            };
            let Tried::Waits(facts) = tried else {
                removal::tell(&context, &channel, &tried).await;
                finalizer::set(&context, &api, &channel, FINALIZER, false).await?;
                return Ok(Action::await_change());
            };
            (facts, creation::recorded(&channel).cloned())
        }
    };
    let status = status::status(&channel, &facts, record.as_ref(), now);
    // The record of the creation is written by itself.
    let old = channel.status.as_ref().map(creation::without);
    crate::reconcile::status::write(&context, &api, &channel, old.as_ref(), &status)
        .await
        .map_err(ReconcileError::status)?;
    Ok(Action::requeue(status::again_after(
        &channel,
        &status,
        record.as_ref(),
        now,
    )))
}

/// Whether deleting the channel deletes the topic.
fn deletes_topic(channel: &KafkaChannel) -> bool {
    let topic = &channel.spec.topic;
    topic.managed && topic.deletion_policy == DeletionPolicy::Delete
}

/// Runs `work` on a thread of its own, with the connection's files in a private folder for as long as it lasts.
async fn with_kafka<T: Send + 'static>(
    context: &Context,
    channel: &KafkaChannel,
    secrets: &Secrets,
    work: impl FnOnce(crds::kafka_channel::Topic, forwarder_core::document::KafkaConnection) -> Result<T, Failure>
    + Send
    + 'static,
) -> Result<Result<T, Facts>, ReconcileError> {
    let folder = tempfile::tempdir()?;
    let Validated { connection, files } = match validate(channel, secrets, folder.path()) {
        Ok(validated) => validated,
        Err(refused) => return Ok(Err(Facts::Refused(refused))),
    };
    let topic = channel.spec.topic.clone();
    let namespace = channel.namespace().unwrap_or_default();
    let worked = threads::run(threads::places(context), &namespace, move || {
        files.write(folder.path())?;
        let worked = work(topic, connection);
        drop(folder);
        Ok::<_, std::io::Error>(worked)
    });
    Ok(worked.await??.map_err(Facts::Failed))
}
