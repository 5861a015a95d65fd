//! `drain`: takes a cluster out of all rings.

use crds::NatsCluster;
use kube::ResourceExt as _;

use super::waiting::{Look, until};
use crate::api::{Asked, Place};
use crate::cli::Waiting;
use crate::fault::{Code, Fault, Gap};
use crate::output::{Format, warn};
use crate::view::declared::ring_name;
use crate::view::drain::{DrainView, Publishes, is_drained};

/// Forwarders whose pods are asked what they hold. Of more, only the names are told.
const ASKED: usize = 4;

pub(super) async fn run(place: &Place, format: Format, cluster: &str, waiting: Waiting) -> Result<Code, Fault> {
    let name = find(place, cluster).await?;
    let written = place.drain(&name).await?;
    let Waiting { wait, timeout } = waiting;
    let mut has_warned = false;
    let view = if wait {
        until(timeout, async || {
            let cluster = place.cluster(&name).await?;
            if !cluster.spec.drain {
                return Err(Fault::NotYet(format!(
                    "somebody has set spec.drain of the NatsCluster {name} to false meanwhile"
                )));
            }
            let view = look(place, &cluster).await;
            // The same is missing at each look.
            if !has_warned && !view.not_read.is_empty() {
                warn(&view.not_read);
                has_warned = true;
            }
            Ok(if view.drained {
                Look::Done(view)
            } else {
                Look::NotYet(view.line())
            })
        })
        .await?
    } else {
        look(place, &written).await
    };
    format.show(&view, || vec![view.line()])?;
    if !has_warned {
        warn(&view.not_read);
    }
    Ok(Code::Fine)
}

/// The object of a cluster, by its name or by its name in rings.
async fn find(place: &Place, cluster: &str) -> Result<String, Fault> {
    let not_there = match place.cluster(cluster).await {
        Ok(found) => return Ok(found.name_any()),
        // Who may change it may do without reading it; the change tells whether it is there.
        Err(Fault::Forbidden { .. }) => return Ok(cluster.to_owned()),
        Err(fault @ Fault::NotFound(_)) => fault,
        Err(fault) => return Err(fault),
    };
    let Ok(all) = place.clusters().await else {
        return Err(not_there);
    };
    let mut named = all.iter().filter(|found| ring_name(found) == cluster);
    match (named.next(), named.next()) {
        (Some(only), None) => Ok(only.name_any()),
        (Some(_), Some(_)) => Err(Fault::Usage(format!(
            "several NatsClusters have the name {cluster} in rings: give the name of the object"
        ))),
        (None, _) => Err(not_there),
    }
}

/// How far it is. Forwarders of which nothing can be read are named all the same.
async fn look(place: &Place, cluster: &NatsCluster) -> DrainView {
    let members = cluster.status.iter().flat_map(|status| &status.member_of);
    let mut forwarders = Vec::new();
    let mut gaps: Vec<Gap> = Vec::new();
    for (number, reference) in members.enumerate() {
        if is_drained(cluster) || number >= ASKED {
            forwarders.push(Publishes::unread(reference));
            continue;
        }
        let Some((namespace, name)) = reference.split_once('/') else {
            continue;
        };
        match place.within(namespace).snapshot(name, Asked::Status).await {
            Ok(snapshot) => {
                gaps.extend(snapshot.gaps.iter().cloned());
                forwarders.push(Publishes::of(&snapshot, cluster));
            }
            Err(fault) => {
                gaps.push(fault.gap());
                forwarders.push(Publishes::unread(reference));
            }
        }
    }
    DrainView::of(cluster, forwarders, gaps)
}
