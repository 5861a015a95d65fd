//! Two operators: one works.

use e2e_rig::kubernetes::Operator;
use e2e_rig::site::Site;
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;

const WRITES: &str = "fanout_operator_api_writes_total";
const RECONCILES: &str = "fanout_operator_reconciles_total";

#[tokio::test]
async fn of_two_operators_one_writes_and_the_other_takes_over() {
    let site = Site::new(PublishMode::Core, 2).await;
    let kubernetes = site.namespace.kubernetes.clone();
    let mut second = Operator::of_namespace(&kubernetes, &site.namespace.name, "operator-2").unwrap();
    site.start(1).await;
    let idle = second.metrics().await.unwrap();
    assert_eq!(
        (idle.sum(WRITES, &[]), idle.sum(RECONCILES, &[])),
        (0.0, 0.0),
        "a standby only watches"
    );
    // It answers who owns what all the same.
    wait::eventually(SOON, "the standby answers", || async {
        Ok(second.route("/asset/some-asset").await?.0 == 200)
    })
    .await
    .unwrap();

    let exit = site.stop_operator().await;
    assert!(exit.success(), "{exit}");
    let begin = std::time::Instant::now();
    second.wait_leads().await.unwrap();
    // A Lease that is released is taken at the next look; one that is not is waited for.
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    site.namespace
        .kubectl(&["scale", "assetforwarder", e2e_rig::site::FORWARDER, "--replicas=2"])
        .await
        .unwrap();
    site.wait_ready().await;
    assert!(second.metrics().await.unwrap().sum(WRITES, &[]) > 0.0);
}

#[tokio::test]
async fn an_operator_that_loses_its_lease_ends() {
    let site = Site::new(PublishMode::Core, 1).await;
    let taken = r#"{"spec":{"holderIdentity":"somebody-else","leaseDurationSeconds":3600}}"#;
    site.namespace
        .kubectl(&["patch", "lease", "fanout-operator", "--type=merge", "-p", taken])
        .await
        .unwrap();
    let (exit, log) = site.wait_operator_ends().await;
    assert!(!exit.success(), "{exit}");
    assert!(log.contains("the Lease is lost"), "{log}");
}
