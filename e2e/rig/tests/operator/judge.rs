//! What the operator's tests ask of a site.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use e2e_rig::http;
use e2e_rig::site::{FORWARDER, Site};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::Value;

/// Waits until all is committed: nothing is lost, nothing out of order, and nothing came twice.
pub(crate) async fn exactly_once(site: &Site) {
    let verdict = site.stage.verdict().await;
    verdict.check_exactly_once().unwrap();
}

/// Waits until all is committed: nothing is lost, nothing out of order, and no more came twice than can have been pending.
pub(crate) async fn repeated_at_most(site: &Site, records: u64) {
    let verdict = site.stage.verdict().await;
    verdict.check().unwrap();
    assert!(verdict.repeated <= records, "{verdict}");
}

/// The names of the forwarder's pods that are not on their way out.
pub(crate) async fn pods(site: &Site) -> BTreeSet<String> {
    let pods = site.namespace.pods(FORWARDER).await.unwrap();
    pods.iter().map(ResourceExt::name_any).collect()
}

/// What each pod says of itself.
pub(crate) async fn pod_statuses(site: &Site) -> Result<Vec<Value>> {
    let mut statuses = Vec::new();
    for pod in site.namespace.pods(FORWARDER).await? {
        let ip = pod
            .status
            .and_then(|status| status.pod_ip)
            .context("a pod has no address")?;
        let text = http::get_ok(&format!("{ip}:4000"), "/status").await?;
        statuses.push(serde_json::from_str(&text).context("/status is not JSON")?);
    }
    Ok(statuses)
}

/// The version of the projected credentials, once it is another one than that which the pods have.
pub(crate) async fn credentials_version(site: &Site) -> String {
    let before = pod_statuses(site).await.unwrap();
    let before = before[0]["credentialsVersion"].clone();
    wait::value(SOON, "the projected Secret has a new version", || async {
        let secret: Secret = site.namespace.get(&format!("{FORWARDER}-credentials")).await?;
        let version = secret
            .data
            .unwrap_or_default()
            .remove("version")
            .context("there is no version")?;
        let version = String::from_utf8(version.0)?;
        Ok((before != version.as_str()).then_some(version))
    })
    .await
    .unwrap()
}
