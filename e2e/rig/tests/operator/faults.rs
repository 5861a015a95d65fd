//! An API server that fails, and a network that does: the operator gets on with its work, or comes back to it.

use std::time::{Duration, Instant};

use crds::NatsCluster;
use e2e_rig::kubernetes::Verb::{self, Create, Delete, Get, List, Patch, Update, Watch};
use e2e_rig::kubernetes::{Fault, Rule};
use e2e_rig::nats::Options;
use e2e_rig::site::{Conditions as _, PODS, Site};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use tokio::time::sleep;

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

/// Until a watch is given up that says nothing more, which takes 50 s, on a machine that is busy. By kube's default it takes 295 s.
const SILENCE: Duration = Duration::from_secs(110);

/// More than this in a second, on average, is a loop: an operator that is at work all the time makes some twelve.
const AT_WORK: f64 = 30.0;

/// The same where nothing but errors comes back: some twenty-five watches, each tried again after 0.8 s, then after twice that, and so on,
/// which makes five times in this while, and five objects with pauses of their own.
const IN_VAIN: f64 = 14.0;

const fn every(every: u32, verbs: &'static [Verb], fault: Fault) -> Rule {
    Rule {
        verbs,
        resource: None,
        every,
        fault,
    }
}

/// The operator has not ended, and has not made more requests than somebody makes who waits before trying again.
async fn assert_well_behaved(site: &Site, since: Instant, per_second: f64) {
    let exit = site.operator_exit().await;
    assert!(exit.is_none(), "it has ended: {exit:?}\n{}", site.log_tail().await);
    let requests = site.api().take_requests().len();
    let seconds = since.elapsed().as_secs_f64();
    tell(&format!("{requests} requests in {seconds:.0} s"));
    assert!(requests as f64 <= per_second * seconds, "{requests} in {seconds:.0} s");
}

#[tokio::test]
async fn an_api_server_that_fails_now_and_then_holds_nothing_up() {
    let site = Site::behind_proxy(PublishMode::Core, 3, Options::default()).await;
    let begin = Instant::now();
    site.api().set(&NOW_AND_THEN);
    scenario::without_pods(&site).await;
    scenario::delete_all(&site).await;
    assert_well_behaved(&site, begin, AT_WORK).await;
}

/// Two sites at once: both only wait, most of the time.
#[tokio::test]
async fn an_api_server_that_is_out_of_order_is_not_overrun_and_one_that_is_silent_is_noticed() {
    tokio::join!(errors_and_no_lease(), silence());
}

/// Nothing but errors, then a Lease that cannot be renewed: the operator waits, then ends, and comes back to its work.
async fn errors_and_no_lease() {
    let site = Site::behind_proxy(PublishMode::Core, 3, Options::default()).await;
    site.start(0).await;
    site.api().take_requests();
    let begin = Instant::now();
    site.api().set(&[every(1, ALL, Fault::Refuse(500))]);
    // Every watch is to be begun anew, and every object has a reconcile that fails.
    site.api().end_watches();
    site.apply(&[site.forwarder(1)]).await;
    sleep(Duration::from_secs(15)).await;
    assert_well_behaved(&site, begin, IN_VAIN).await;

    let leases = Rule {
        resource: Some("leases"),
        ..every(1, ALL, Fault::Hang)
    };
    site.api().set(&[leases]);
    let exit = wait::value(SOON, "the operator ends", || async { Ok(site.operator_exit().await) }).await;
    let (exit, log) = (exit.unwrap(), site.log_tail().await);
    assert!(!exit.success() && log.contains("the Lease is lost"), "{exit}: {log}");
    site.api().set(&[]);
    site.start_operator_again().await;
    scenario::delete_all(&site).await;
}

/// Watches that are open and say nothing more.
async fn silence() {
    let site = Site::behind_proxy(PublishMode::Core, 2, Options::default()).await;
    // All watches are there once what they tell of is done.
    site.apply(&[site.cluster(1)]).await;
    wait_seen(&site, "c2").await;
    site.wait_quiet().await;
    site.api().silence_watches();
    let begin = Instant::now();
    // Only a watch tells of an object that is new.
    site.apply(&[site.cluster(0)]).await;
    wait_seen(&site, "c1").await;
    tell(&format!("noticed after {:?}", begin.elapsed()));
    let exit = site.operator_exit().await;
    assert!(exit.is_none(), "it has ended: {exit:?}");
}

async fn wait_seen(site: &Site, cluster: &str) {
    site.namespace
        .wait::<NatsCluster>(cluster, SILENCE, "the operator has seen it", |cluster| {
            !cluster.conditions().is_empty()
        })
        .await
        .unwrap();
}

/// The scenario with pods under one kind of fault. Nothing may be lost.
async fn under(rules: &[Rule]) {
    let site = Site::behind_proxy(PublishMode::Core, 3, scenario::servers()).await;
    let begin = Instant::now();
    site.api().set(rules);
    scenario::with_pods(&site).await;
    scenario::delete_all(&site).await;
    assert_well_behaved(&site, begin, AT_WORK).await;
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
    under(&[every(20, ALL, Fault::Refuse(429))]).await;
}

#[tokio::test]
async fn long_under_errors() {
    under(&[
        every(10, WRITES, Fault::Refuse(500)),
        every(100, READS, Fault::Refuse(500)),
    ])
    .await;
}

#[tokio::test]
async fn long_under_delays() {
    under(&[every(5, ALL, Fault::Delay(Duration::from_secs(1)))]).await;
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
