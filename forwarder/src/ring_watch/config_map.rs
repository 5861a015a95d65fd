//! The ConfigMap that declares the ring, watched by the Kubernetes API.
//!
//! The API tells a change at once; the kubelet brings it to a mounted file when its cache and its period allow, which takes a
//! minute and more. What comes from here is whole, so one look is enough.

use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, DefaultBackoff};
use kube::{Api, Client, Config};
use tokio::sync::mpsc;

use super::declared::Said;
use super::file::read_ring;

/// The key of the ConfigMap.
const KEY: &str = "ring.yaml";

/// Between two attempts, should the growing pauses ever end.
const PAUSE: Duration = Duration::from_secs(30);

/// The server ends a watch after some five minutes at the latest; a connection that is silent for longer is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Which ConfigMap holds the ring, under the key `ring.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A text is no `NAMESPACE/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NAMESPACE/NAME, such as plant/line-ring")]
pub struct ConfigMapKeyError;

impl FromStr for ConfigMapKey {
    type Err = ConfigMapKeyError;

    fn from_str(text: &str) -> Result<Self, ConfigMapKeyError> {
        // What else Kubernetes asks of a name it will say itself; these would reach another path of its API.
        let is_name = |part: &str| {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            part.bytes().next().is_some_and(is_plain)
                && part.bytes().all(|byte| is_plain(byte) || b"-.".contains(&byte))
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(ConfigMapKeyError),
        }
    }
}

impl fmt::Display for ConfigMapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Says what the ConfigMap holds, at each change, for as long as anybody listens.
pub(super) async fn watch(key: &ConfigMapKey, listener: mpsc::Sender<Said>) {
    let mut pauses = DefaultBackoff::default();
    loop {
        let fault = match client() {
            Ok(client) => follow(key, client, &listener).await,
            Err(reason) => reason,
        };
        if listener.send(Said::Unreachable(fault)).await.is_err() {
            return;
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE)).await;
    }
}

/// Says what the ConfigMap holds until a fault, which is the answer. A watch that goes on after a fault by itself says nothing
/// until the next change; one that begins anew says at once what there is, so that the fault is known to be over.
async fn follow(key: &ConfigMapKey, client: Client, listener: &mpsc::Sender<Said>) -> String {
    let api = Api::namespaced(client, &key.namespace);
    let mut changes = pin!(watcher::watch_object::<ConfigMap>(api, &key.name));
    while let Some(change) = changes.next().await {
        match change {
            // Whoever does not listen any more is told by the next fault.
            Ok(config_map) => drop(listener.send(read(key, config_map.as_ref())).await),
            Err(error) => return fault(key, &error),
        }
    }
    format!("the watch on ConfigMap {key} has ended")
}

fn client() -> Result<Client, String> {
    let mut config = Config::incluster().map_err(|error| {
        format!(
            "this process does not run in a pod with a service account token: {}",
            told_once(&error)
        )
    })?;
    config.read_timeout = Some(READ_TIMEOUT);
    // The client would repeat a request for minutes before it says anything; here each fault is to be told.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| format!("failed to create a Kubernetes API client: {}", told_once(&error)))
}

fn read(key: &ConfigMapKey, config_map: Option<&ConfigMap>) -> Said {
    let Some(config_map) = config_map else {
        return Said::Gone(format!("ConfigMap {key} does not exist"));
    };
    let text = config_map.data.as_ref().and_then(|data| data.get(KEY));
    match text.map(|text| read_ring(text)) {
        None => Said::Gone(format!("ConfigMap {key} has no key `{KEY}`")),
        Some(Said::Wrong(reason)) => Said::Wrong(format!("ConfigMap {key}: {reason}")),
        Some(said) => said,
    }
}

/// What is wrong, and what to do where a person can do something.
fn fault(key: &ConfigMapKey, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status {
        Some(status) if status.code == 403 => format!(
            "the Kubernetes API does not let this pod watch ConfigMap {key} ({}). Give its service account a Role \
             in namespace `{}` with the verbs get, list, watch on configmaps, resourceNames [{}]",
            status.message, key.namespace, key.name
        ),
        Some(status) => format!(
            "the Kubernetes API answered {} {} about ConfigMap {key}",
            status.code, status.message
        ),
        None => format!("failed to watch ConfigMap {key}: {}", told_once(error)),
    }
}

/// An error with its sources, of a library whose errors repeat some of them and leave others out.
fn told_once(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::Status;

    use super::*;

    fn key() -> ConfigMapKey {
        "plant/line-ring".parse().unwrap()
    }

    fn config_map(name: &str, text: &str) -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([(name.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_config_map_is_named_by_namespace_and_name() {
        assert_eq!(key().to_string(), "plant/line-ring");
        for wrong in [
            "",
            "ring",
            "/ring",
            "plant/",
            "a/b/c",
            "plant/../x",
            "../ring",
            "plant/R",
            "a b/c",
            "plant/x?y",
        ] {
            assert_eq!(wrong.parse::<ConfigMapKey>(), Err(ConfigMapKeyError), "{wrong}");
        }
    }

    #[test]
    fn a_ring_is_read_under_its_key() {
        let text = "{epoch: 8, clusters: [{name: C1, servers: [nats://c1]}]}";
        let said = read(&key(), Some(&config_map("ring.yaml", text)));
        assert!(matches!(&said, Said::Ring(ring) if ring.epoch == 8), "{said:?}");
        for (config_map, expected) in [
            (None, Said::Gone("ConfigMap plant/line-ring does not exist".to_owned())),
            (
                Some(config_map("ring.yml", text)),
                Said::Gone("ConfigMap plant/line-ring has no key `ring.yaml`".to_owned()),
            ),
            (
                Some(config_map("ring.yaml", "{epoch: 8, clusters: []}")),
                Said::Wrong(
                    "ConfigMap plant/line-ring: clusters: is empty: no cluster owns anything; name at least one"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(read(&key(), config_map.as_ref()), expected);
        }
    }

    #[test]
    fn a_missing_right_is_named() {
        let denied = Status::failure("configmaps is forbidden", "Forbidden")
            .with_code(403)
            .boxed();
        let said = fault(&key(), &watcher::Error::InitialListFailed(kube::Error::Api(denied)));
        for part in [
            "plant/line-ring",
            "configmaps is forbidden",
            "get, list, watch",
            "resourceNames [line-ring]",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
