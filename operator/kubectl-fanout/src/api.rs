//! Reads from the API server, and the two writes that there are. Each request is bounded in time.

mod pods;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use crds::{AssetForwarder, NatsCluster};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::pods::Asked;
use crate::fault::{Fault, Right};
use crate::view::declared::{Declared, map_name};
use crate::view::pods::selector;
use crate::view::snapshot::Snapshot;

/// A person waits for it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Who we are in the fields that we write.
const MANAGER: &str = "kubectl-fanout";

/// Objects in a page of a list, and pages at most. A namespace with more is no place to look at from a terminal.
const PAGE: u32 = 500;
const PAGES: usize = 20;

/// How to find the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// The file with the clusters and logins; none: as kubectl finds it.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in it; none: the current one.
    pub(crate) context: Option<String>,
    /// The namespace; none: that of the context.
    pub(crate) namespace: Option<String>,
}

/// A namespace of a cluster.
#[derive(Clone)]
pub(crate) struct Place {
    client: Client,
    /// The namespace.
    pub(crate) namespace: String,
}

impl Place {
    /// Finds the cluster. Nothing is asked yet.
    pub(crate) async fn find(access: Access) -> Result<Self, Fault> {
        let Access {
            kubeconfig,
            context,
            namespace,
        } = access;
        let failed = |why: String| Fault::Connect(why);
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        let config = match kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(&file).map_err(|error| failed(error.to_string()))?;
                Config::from_custom_kubeconfig(read, &options).await
            }
            None if options.context.is_some() => Config::from_kubeconfig(&options).await,
            // In a pod there is no file.
            None => {
                let config = Config::infer().await.map_err(|error| failed(error.to_string()))?;
                Ok(config)
            }
        };
        let mut config = config.map_err(|error| failed(error.to_string()))?;
        config.connect_timeout = Some(TIMEOUT);
        // A person sees a fault at once, and decides.
        config.default_retry = false;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| failed(error.to_string()))?;
        Ok(Self { client, namespace })
    }

    /// The same cluster, another namespace.
    pub(crate) fn within(&self, namespace: &str) -> Self {
        Self {
            client: self.client.clone(),
            namespace: namespace.to_owned(),
        }
    }

    /// A forwarder.
    pub(crate) async fn forwarder(&self, name: &str) -> Result<AssetForwarder, Fault> {
        self.get(name, "assetforwarders.fanout.openfactory.io").await
    }

    /// All forwarders of the namespace.
    pub(crate) async fn forwarders(&self) -> Result<Vec<AssetForwarder>, Fault> {
        self.list("assetforwarders.fanout.openfactory.io", &ListParams::default())
            .await
    }

    /// A cluster.
    pub(crate) async fn cluster(&self, name: &str) -> Result<NatsCluster, Fault> {
        self.get(name, "natsclusters.fanout.openfactory.io").await
    }

    /// All clusters of the namespace.
    pub(crate) async fn clusters(&self) -> Result<Vec<NatsCluster>, Fault> {
        self.list("natsclusters.fanout.openfactory.io", &ListParams::default())
            .await
    }

    /// Sets `spec.suspend` of a forwarder.
    pub(crate) async fn suspend(&self, name: &str, suspend: bool) -> Result<AssetForwarder, Fault> {
        let patch = json!({"spec": {"suspend": suspend}});
        self.patch(name, "assetforwarders.fanout.openfactory.io", &patch).await
    }

    /// Sets `spec.drain` of a cluster.
    pub(crate) async fn drain(&self, name: &str) -> Result<NatsCluster, Fault> {
        let patch = json!({"spec": {"drain": true}});
        self.patch(name, "natsclusters.fanout.openfactory.io", &patch).await
    }

    /// The ring of a forwarder.
    pub(crate) async fn declared(&self, forwarder: &AssetForwarder) -> Result<Declared, Fault> {
        let name = map_name(forwarder.metadata.name.as_deref().unwrap_or_default());
        let map = match self.get::<ConfigMap>(&name, "configmaps").await {
            Ok(map) => Some(map),
            Err(Fault::NotFound(_)) => None,
            Err(fault) => return Err(fault),
        };
        Declared::read(map.as_ref(), forwarder)
    }

    /// A forwarder with its ring and its pods. What cannot be read beside the forwarder itself is in the gaps.
    pub(crate) async fn snapshot(&self, name: &str, asked: Asked) -> Result<Snapshot, Fault> {
        let forwarder = self.forwarder(name).await?;
        Ok(self.snapshot_of(forwarder, asked).await)
    }

    /// The same of a forwarder that has been read.
    pub(crate) async fn snapshot_of(&self, forwarder: AssetForwarder, asked: Asked) -> Snapshot {
        let name = forwarder.metadata.name.clone().unwrap_or_default();
        let labels = ListParams::default().labels(&selector(&name));
        let (declared, pods) = tokio::join!(self.declared(&forwarder), self.list::<Pod>("pods", &labels));
        let mut gaps = Vec::new();
        let pods = match pods {
            Ok(pods) => {
                let (pods, faults) = pods::ask(self, &pods, &name, asked).await;
                gaps.extend(faults.iter().map(Fault::gap));
                Some(pods)
            }
            Err(fault) => {
                gaps.push(fault.gap());
                None
            }
        };
        Snapshot {
            forwarder,
            declared,
            pods,
            gaps,
        }
    }

    /// The pods of a forwarder that are there, without asking them.
    pub(crate) async fn pods(&self, forwarder: &str) -> Result<Vec<Pod>, Fault> {
        let labels = ListParams::default().labels(&selector(forwarder));
        self.list("pods", &labels).await
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn get<K>(&self, name: &str, resource: &'static str) -> Result<K, Fault>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let what = format!("read the {} {name}", K::kind(&()));
        let api = self.api::<K>();
        self.request(what, "get", resource, api.get(name)).await
    }

    async fn list<K>(&self, resource: &'static str, params: &ListParams) -> Result<Vec<K>, Fault>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let what = || format!("list the {}s of the namespace {}", K::kind(&()), self.namespace);
        let api = self.api::<K>();
        let mut params = params.clone().limit(PAGE);
        let mut items = Vec::new();
        for _ in 0..PAGES {
            let listed = self.request(what(), "list", resource, api.list(&params)).await?;
            items.extend(listed.items);
            match listed.metadata.continue_.filter(|next| !next.is_empty()) {
                None => return Ok(items),
                Some(next) => params = params.continue_token(&next),
            }
        }
        // A part of them would be taken for all.
        Err(Fault::Api {
            what: what(),
            why: format!("there are more than {}", items.len()),
        })
    }

    async fn patch<K>(&self, name: &str, resource: &'static str, patch: &Value) -> Result<K, Fault>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let what = format!("change the {} {name}", K::kind(&()));
        let api = self.api::<K>();
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        self.request(what, "patch", resource, api.patch(name, &params, &patch))
            .await
    }

    /// Makes a request, and says in our words why it failed.
    async fn request<T>(
        &self,
        what: String,
        verbs: &'static str,
        resource: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let right = Right {
                    verbs,
                    resource,
                    namespace: self.namespace.clone(),
                };
                Err(explain(what, right, &error))
            }
            Err(_) => Err(Fault::Api {
                what,
                why: format!("the API server did not answer within {} s", TIMEOUT.as_secs()),
            }),
        }
    }
}

/// Why a request failed.
pub(crate) fn explain(what: String, right: Right, error: &kube::Error) -> Fault {
    let kube::Error::Api(status) = error else {
        return Fault::Api {
            what,
            why: described(error),
        };
    };
    match status.code {
        401 => Fault::Unauthorized { what },
        403 if is_of_rights(&status.message) => Fault::Forbidden { what, right },
        404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => Fault::NotFound(format!(
            "failed to {what}: the API server has no {}; install the chart fanout-crds, or look into another cluster",
            right.resource
        )),
        404 => Fault::NotFound(format!(
            "failed to {what}: there is none in the namespace {}",
            right.namespace
        )),
        _ => Fault::Api {
            what,
            why: status.message.clone(),
        },
    }
}

/// Whether a refusal is for want of a right. An admission refuses with the same code, for reasons of its own.
fn is_of_rights(message: &str) -> bool {
    message.contains(" cannot ") || message.is_empty()
}

/// An error with its causes.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Many errors repeat their cause.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn fault(code: u16, message: &str, name: &str) -> Fault {
        let status: Status = serde_json::from_value(json!({
            "code": code, "message": message, "details": {"name": name},
        }))
        .unwrap();
        let right = Right {
            verbs: "get",
            resource: "configmaps",
            namespace: "plant".to_owned(),
        };
        explain(
            "read the ConfigMap x".to_owned(),
            right,
            &kube::Error::Api(Box::new(status)),
        )
    }

    #[test]
    fn each_answer_of_the_api_server_is_told_in_our_words() {
        for (code, message, name, exit, part) in [
            (401, "Unauthorized", "", 4, "Log in again"),
            (
                403,
                r#"configmaps "x" is forbidden: User "u" cannot get resource"#,
                "x",
                4,
                "get on configmaps in the namespace plant",
            ),
            (
                403,
                r#"admission webhook "w" denied the request: no"#,
                "x",
                1,
                "denied the request",
            ),
            (
                404,
                r#"configmaps "x" not found"#,
                "x",
                3,
                "there is none in the namespace plant",
            ),
            (
                404,
                "the server could not find the requested resource",
                "",
                3,
                "install the chart fanout-crds",
            ),
            (500, "etcd is away", "", 1, "etcd is away"),
        ] {
            let fault = fault(code, message, name);
            assert_eq!(fault.code() as u8, exit, "{fault}");
            assert!(fault.to_string().contains(part), "{fault}");
        }
    }
}
