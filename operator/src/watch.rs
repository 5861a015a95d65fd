//! What is watched and listed, and which of its events say something new.

mod changes;
mod shared;

use std::fmt::Debug;
use std::time::Duration;

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use futures::Stream;
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::warn;

pub use self::changes::{changes, changes_of, declared, hash};
pub use self::shared::{Shared, Subscription};
use crate::context::Context;
use crate::error::describe;

/// The API server ends a watch after so long, and the next one goes on where it stood. If nothing arrives for longer, the network
/// has dropped the connection, or the server hangs. Then the watch starts again: a half-open connection would look like silence.
pub const WATCH: Duration = Duration::from_secs(45);

/// Objects in one page of a list. A page is in memory as a whole, as text and as objects with all that is dropped afterwards. All kinds are
/// listed at the same time when a leader begins, and the allocator gives little of that back.
const PAGE: u32 = 50;

/// How everything is watched.
#[must_use]
pub fn watching() -> watcher::Config {
    watcher::Config::default()
        .timeout(u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX))
        .page_size(PAGE)
}

/// The events of a watch, which is tried again after an error.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config).default_backoff().modify(|object| {
        // Who has written which field is a third of an object, and of what is watched nobody asks for it.
        object.managed_fields_mut().clear();
    })
}

/// As [`watch`], of no more than the metadata of what is in the operator's scope.
pub fn metadata<K>(
    context: &Context,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<K>>>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Send + 'static,
{
    watch(context.scope.api::<PartialObjectMeta<K>>(&context.client), config)
}

/// As [`watch`], of all objects of a kind in the operator's scope, with a store of them that is filled while the events are read.
pub fn stored<K>(
    context: &Context,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watch(context.scope.api::<K>(&context.client), config);
    (store, reflector::reflector(writer, events))
}

/// All objects of a kind in the operator's scope, as the API server has them now. Of a kind that is not installed there are none, as its
/// discovery must say too.
///
/// # Errors
/// The API server refuses, or is not there.
pub async fn listed<K>(context: &Context) -> kube::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = context.scope.api::<K>(&context.client);
    let error = match api.list(&ListParams::default()).await {
        Ok(list) => return Ok(list.items),
        Err(error) => error,
    };
    let is_unknown = matches!(&error, kube::Error::Api(refusal) if refusal.code == 404);
    if is_unknown && is_not_installed::<K>(context).await {
        return Ok(Vec::new());
    }
    Err(error)
}

/// Whether the API server says that it has others of our kinds, and not this one. A 404 alone says less: what stands before the API server
/// may answer so too, and then what is still used would be let go.
async fn is_not_installed<K: Resource<DynamicType = ()>>(context: &Context) -> bool {
    let ours = [
        AssetForwarder::kind(&()),
        KafkaChannel::kind(&()),
        NatsCluster::kind(&()),
    ];
    let served = match context.client.list_api_group_resources(&K::api_version(&())).await {
        Ok(served) => served.resources,
        Err(error) => {
            warn!(kind = %K::kind(&()), error = describe(&error), "failed to find out whether the kind is installed");
            return false;
        }
    };
    let has = |kind: &str| served.iter().any(|resource| resource.kind == kind);
    let own = K::kind(&());
    !has(&own) && ours.iter().any(|kind| *kind != own && has(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_api::{self, context};

    /// What [`listed`] makes of clusters where a list is answered by `code`, and discovery names these kinds; none: it is answered by 404.
    async fn listed_where(code: u16, kinds: Option<&'static [&'static str]>) -> kube::Result<Vec<NatsCluster>> {
        let client = fake_api::client(move |request, _| {
            let group = format!("/apis/{}", NatsCluster::api_version(&()));
            match kinds {
                Some(kinds) if request.uri.path() == group => {
                    let resource = |kind: &&str| {
                        let name = format!("{}s", kind.to_lowercase());
                        json!({"kind": kind, "name": name, "singularName": "", "namespaced": true, "verbs": ["list"]})
                    };
                    let resources: Vec<_> = kinds.iter().map(resource).collect();
                    let list = json!({"kind": "APIResourceList", "groupVersion": NatsCluster::api_version(&()), "resources": resources});
                    (200, list.to_string())
                }
                _ => (code, "404 page not found".to_owned()),
            }
        });
        listed::<NatsCluster>(&context(client)).await
    }

    #[tokio::test]
    async fn of_a_kind_that_is_not_installed_there_are_no_objects() {
        assert!(listed_where(404, Some(&["KafkaChannel"])).await.unwrap().is_empty());
        assert!(listed_where(403, Some(&["KafkaChannel"])).await.is_err());
    }

    #[tokio::test]
    async fn a_404_in_passing_does_not_say_that_a_kind_is_not_installed() {
        let is_error = |listed: kube::Result<Vec<NatsCluster>>| matches!(listed, Err(kube::Error::Api(refusal)) if refusal.code == 404);
        // The kind is there; whoever answers knows none of ours; and nobody answers.
        assert!(is_error(
            listed_where(404, Some(&["NatsCluster", "KafkaChannel"])).await
        ));
        assert!(is_error(listed_where(404, Some(&[])).await));
        assert!(is_error(listed_where(404, None).await));
    }
}
