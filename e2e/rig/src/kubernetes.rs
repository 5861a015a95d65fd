//! The cluster of this run for tests of the operator: typed objects, operators as processes, and kubectl and helm as a person runs them.

mod api_proxy;
mod audit;
mod namespace;
mod operator;
mod rights;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use tokio::task::spawn_blocking;

use crate::cluster::Cluster;
use crate::stage::SOON;
use crate::wait;

pub use self::api_proxy::{ApiProxy, Call, Fault, Moment, Rule, Verb};
pub use self::audit::{AuditLog, Write};
pub use self::namespace::Namespace;
pub use self::operator::Operator;

/// The cluster of this run.
#[derive(Clone)]
pub struct Kubernetes {
    /// A client that may do everything.
    pub client: Client,
    /// How to reach it otherwise, and what is in it.
    pub cluster: Cluster,
}

impl Kubernetes {
    /// See [`Cluster::of_this_run`].
    pub async fn of_run() -> Result<Self> {
        let cluster = Cluster::of_this_run()?;
        let config = config(&cluster).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            cluster,
        })
    }

    /// A proxy before the API server.
    pub async fn api_proxy(&self) -> Result<ApiProxy> {
        let mut config = config(&self.cluster).await?;
        // Whoever asks is to hear what the server says.
        config.default_retry = false;
        ApiProxy::start(Client::try_from(config)?).await
    }

    /// A client that is a ServiceAccount: it has a token of its own, and nothing else.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Result<Client> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let asked = accounts
            .create_token_request(account, &PostParams::default(), &TokenRequest::default())
            .await
            .with_context(|| format!("failed to ask for a token of {namespace}/{account}"))?;
        let token = asked.status.and_then(|status| status.token);
        let token = token.context("the answer has no token")?;
        let mut config = config(&self.cluster).await?;
        config.auth_info = AuthInfo {
            token: Some(token.into()),
            ..AuthInfo::default()
        };
        Ok(Client::try_from(config)?)
    }

    /// The audit log from now on.
    pub fn audit_log(&self) -> Result<AuditLog> {
        AuditLog::follow(&self.cluster)
    }

    /// Where a server of this machine must listen to be reached by pods.
    pub fn host(&self) -> Ipv4Addr {
        self.cluster.host_address
    }

    /// Installs the three resources, if they are not there as this checkout has them. Operators may do what the chart grants from then on.
    pub async fn install_definitions(&self) -> Result<()> {
        self.install(crds::definition::all()).await?;
        rights::grant(&self.client).await
    }

    /// Installs definitions, in the place of those that are there.
    pub async fn install(&self, definitions: Vec<CustomResourceDefinition>) -> Result<()> {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let params = PatchParams::apply("e2e").force();
        for definition in definitions {
            let name = definition.name_any();
            api.patch(&name, &params, &Patch::Apply(&definition))
                .await
                .with_context(|| format!("failed to install {name}"))?;
            wait::eventually(SOON, "the definition is established", || async {
                let status = api.get(&name).await?.status.unwrap_or_default();
                let mut conditions = status.conditions.unwrap_or_default().into_iter();
                Ok(conditions.any(|condition| condition.type_ == "Established" && condition.status == "True"))
            })
            .await?;
        }
        Ok(())
    }

    /// Runs kubectl with this standard input; yields what it printed.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let (cluster, input) = (self.cluster.clone(), input.to_owned());
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            cluster.kubectl_with(&args, &input)
        })
        .await?
    }

    /// Runs helm; yields what it printed.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let mut helm = self.cluster.program("helm");
        helm.args(args);
        let output = spawn_blocking(move || helm.output())
            .await?
            .context("failed to run helm")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("helm {} failed ({}): {printed}{errors}", args.join(" "), output.status);
        }
        Ok(printed)
    }
}

async fn config(cluster: &Cluster) -> Result<Config> {
    let read = Kubeconfig::read_from(&cluster.kubeconfig)
        .with_context(|| format!("failed to read {}", cluster.kubeconfig.display()))?;
    Ok(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)
}
