//! An API server that fails, and a network that does: the operator gets on with its work, or comes back to it.

use std::time::{Duration, Instant};

use crds::NatsCluster;
use e2e_rig::kubernetes::Verb::{self, Create, Delete, Get, List, Patch, Update, Watch};
use e2e_rig::kubernetes::{Fault, Rule};
use e2e_rig::nats::Options;
use e2e_rig::site::{Conditions as _, PODS, Site};
use forwarder_core::config::PublishMode;

use crate::figures::tell;
use crate::scenario;

const READS: &[Verb] = &[Get, List];
const WRITES: &[Verb] = &[Create, Update, Patch, Delete];
const WATCHES: &[Verb] = &[Watch];
const ALL: &[Verb] = &[Get, List, Watch, Create, Update, Patch, Delete];

/// A server of little patience: each of these has befallen some operator. No two at the same pace, so that all meet all.
const NOW_AND_THEN: [Rule; 9] = [
    every(11, WRITES, Fault::Refuse(409)),
    every(13, WRITES, Fault::CutAfter),
    every(17, WRITES, Fault::Refuse(500)),
    every(29, READS, Fault::Refuse(429)),
    every(97, READS, Fault::Cut),
    every(101, READS, Fault::Refuse(500)),
    every(7, READS, Fault::Delay(Duration::from_millis(300))),
    every(3, WATCHES, Fault::Expire),
    every(4, WATCHES, Fault::Refuse(410)),
];

/// Until a watch is given up that says nothing more: it lasts 45 s, and a connection of which nothing is heard 15 s more.
const SILENCE: Duration = Duration::from_secs(75);

/// More than this in a second, on average, is a loop: an operator that is left alone makes some ten in this scenario.
const REQUESTS_PER_SECOND: f64 = 60.0;

const fn every(every: u32, verbs: &'static [Verb], fault: Fault) -> Rule {
    Rule {
        verbs,
        resource: None,
        every,
        fault,
    }
}

/// The operator has not ended, and has not made more requests than somebody makes who waits before trying again.
async fn assert_well_behaved(site: &Site, since: Instant) {
    let exit = site.operator_exit().await;
    assert!(exit.is_none(), "it has ended: {exit:?}\n{}", site.log_tail().await);
    let requests = site.api().take_requests().len();
    let seconds = since.elapsed().as_secs_f64();
    tell(&format!("{requests} requests in {seconds:.0} s"));
    assert!(
        requests as f64 <= REQUESTS_PER_SECOND * seconds,
        "{requests} in {seconds:.0} s"
    );
}

#[tokio::test]
async fn an_api_server_that_fails_now_and_then_holds_nothing_up() {
    let site = Site::behind_proxy(PublishMode::Core, 3, Options::default()).await;
    let begin = Instant::now();
    site.api().set(&NOW_AND_THEN);
    scenario::without_pods(&site).await;
    scenario::delete_all(&site).await;
    assert_well_behaved(&site, begin).await;
}

#[tokio::test]
async fn an_api_server_that_answers_nothing_but_errors_is_not_overrun() {
    let site = Site::behind_proxy(PublishMode::Core, 3, Options::default()).await;
    site.start(0).await;
    site.api().take_requests();
    let begin = Instant::now();
    site.api().set(&[every(1, ALL, Fault::Refuse(500))]);
    // With a watch that ends for every kind there is, and a reconcile that fails.
    site.api().end_watches();
    site.apply(&[site.forwarder(0)]).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_well_behaved(&site, begin).await;
    site.api().set(&[]);
    scenario::delete_all(&site).await;
}

#[tokio::test]
async fn a_watch_that_says_nothing_more_is_noticed() {
    let site = Site::behind_proxy(PublishMode::Core, 1, Options::default()).await;
    site.api().silence_watches();
    let begin = Instant::now();
    // Only a watch tells of an object that is new.
    site.apply(&[site.cluster(0)]).await;
    site.namespace
        .wait::<NatsCluster>("c1", SILENCE, "the operator has seen it", |cluster| {
            !cluster.conditions().is_empty()
        })
        .await
        .unwrap();
    tell(&format!("noticed after {:?}", begin.elapsed()));
    let exit = site.operator_exit().await;
    assert!(exit.is_none(), "it has ended: {exit:?}");
}

#[tokio::test]
async fn an_operator_that_cannot_renew_its_lease_ends_and_comes_back() {
    let site = Site::behind_proxy(PublishMode::Core, 3, Options::default()).await;
    site.start(0).await;
    let leases = Rule {
        resource: Some("leases"),
        ..every(1, ALL, Fault::Hang)
    };
    site.api().set(&[leases]);
    let (exit, log) = site.wait_operator_ends().await;
    assert!(!exit.success() && log.contains("the Lease is lost"), "{exit}: {log}");
    site.api().set(&[]);
    site.start_operator_again().await;
    scenario::delete_all(&site).await;
}

/// The scenario with pods under one kind of fault. Nothing may be lost.
async fn under(rules: &[Rule]) {
    let site = Site::behind_proxy(PublishMode::Core, 3, scenario::servers()).await;
    let begin = Instant::now();
    site.api().set(rules);
    scenario::with_pods(&site).await;
    scenario::delete_all(&site).await;
    assert_well_behaved(&site, begin).await;
}

#[tokio::test]
async fn long_under_conflicts() {
    under(&[every(3, WRITES, Fault::Refuse(409))]).await;
}

#[tokio::test]
async fn long_under_watches_that_expire() {
    under(&[
        every(2, WATCHES, Fault::Expire),
        every(3, WATCHES, Fault::Refuse(410)),
        every(10, &[List], Fault::Refuse(410)),
    ])
    .await;
}

#[tokio::test]
async fn long_under_throttling() {
    under(&[every(6, ALL, Fault::Refuse(429))]).await;
}

#[tokio::test]
async fn long_under_errors() {
    under(&[
        every(4, WRITES, Fault::Refuse(500)),
        every(40, READS, Fault::Refuse(500)),
    ])
    .await;
}

#[tokio::test]
async fn long_under_delays() {
    under(&[every(3, ALL, Fault::Delay(Duration::from_secs(1)))]).await;
}

#[tokio::test]
async fn long_under_connections_that_are_cut() {
    under(&[
        every(4, WRITES, Fault::Cut),
        every(40, READS, Fault::Cut),
        every(3, WATCHES, Fault::Cut),
    ])
    .await;
}

#[tokio::test]
async fn long_under_answers_that_are_lost() {
    under(&[every(3, WRITES, Fault::CutAfter)]).await;
}

#[tokio::test]
async fn long_under_watches_that_hang() {
    assert!(PODS > SILENCE, "each change may wait for it once");
    under(&[every(4, WATCHES, Fault::Hang)]).await;
}
