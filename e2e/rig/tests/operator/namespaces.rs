//! A namespace that is deleted with all that is in it goes, whatever is away.

mod alone;

use std::time::{Duration, Instant};

use anyhow::ensure;
use crds::KafkaChannel;
use e2e_rig::site::{Site, condition};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::json;

use crate::figures::tell;
use crate::scenario;

/// What the namespace has for it. Of that, pods drain for ten seconds.
const MINUTE: Duration = Duration::from_secs(60);

/// What is so while the namespace is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum While {
    /// Neither NATS nor Kafka answers the operator, and records wait.
    NothingAnswers,
    /// The operator comes back after the deletion; the minute counts from then.
    TheOperatorIsAway,
}

/// Deletes the namespace of a site whose operator is elsewhere.
pub(crate) async fn deleted_within_a_minute(mut site: Site, what: While) {
    let mut channel = scenario::managed(&site);
    site.apply(&[channel.clone()]).await;
    site.start(1).await;
    let flow = site.stage.flow(200);
    site.namespace
        .wait::<KafkaChannel>("managed", SOON, "the topic is there", |channel| {
            condition(channel, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
        .unwrap();
    match what {
        While::NothingAnswers => {
            for (_, nats) in &mut site.stage.clusters {
                nats.shut_down().unwrap();
            }
            // A port of this machine that nobody listens on.
            let nobody = e2e_rig::port::Port::reserve().unwrap();
            channel["spec"]["connection"]["bootstrapServers"] = json!([nobody.address()]);
            site.apply(&[channel]).await;
            // The ring waits for a hand-over that nobody can make.
            site.delete_cluster(0).await;
        }
        While::TheOperatorIsAway => site.kill_operator().await,
    }
    site.namespace
        .kubernetes
        .kubectl(&["delete", "namespace", &site.namespace.name, "--wait=false"], "")
        .await
        .unwrap();
    if what == While::TheOperatorIsAway {
        wait::eventually(SOON, "all but what waits for the operator is gone", || async {
            let left = site
                .namespace
                .kubectl(&["get", "pods,assetforwarders", "-o", "name"])
                .await?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(true)
        })
        .await
        .unwrap();
        site.start_operator_again().await;
    }
    let begin = Instant::now();
    let namespaces = Api::<Namespace>::all(site.namespace.kubernetes.client.clone());
    let gone = wait::eventually(MINUTE, "the namespace is gone", || async {
        let left = namespaces.get_opt(&site.namespace.name).await?;
        ensure!(left.is_none(), "{:#?}", left.and_then(|namespace| namespace.status));
        Ok(true)
    })
    .await;
    if let Err(error) = gone {
        panic!("{error:#}\n{}", site.log_tail().await);
    }
    tell(&format!("{what:?}: gone after {:?}", begin.elapsed()));
    drop(flow);
}

#[tokio::test]
async fn a_deleted_namespace_goes_whoever_is_away() {
    let (one, other) = tokio::join!(
        Site::from_elsewhere(PublishMode::Core, 2),
        Site::from_elsewhere(PublishMode::Core, 2)
    );
    tokio::join!(
        deleted_within_a_minute(one, While::NothingAnswers),
        deleted_within_a_minute(other, While::TheOperatorIsAway)
    );
}
