//! A settled system makes no writes.

use std::time::Duration;

use e2e_rig::site::Site;
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use tokio::time::sleep;

use crate::scenario;

/// Nobody but the holder of the Lease writes about a settled site for so long, by the API server's own word, while records flow.
async fn nothing_is_written_for(duration: Duration) {
    let site = Site::new(PublishMode::Core, 2).await;
    site.apply(&[scenario::managed(&site)]).await;
    site.start(2).await;
    let flow = site.stage.flow(500);
    site.wait_quiet().await;
    let (mut log, user) = site.audit().await;
    // So that everything is looked at anew.
    site.restart_operator().await;
    site.wait_reconciled().await;
    sleep(duration).await;
    let mut renewed = 0;
    wait::eventually(SOON, "the log is written up to now", || {
        for write in log.read().unwrap() {
            let ours = write.user == user || write.namespace == site.namespace.name;
            renewed += u32::from(ours && write.resource == "leases");
            // What others have to say (a probe that was slow) is theirs.
            let is_told = write.resource == "events" && write.user != user;
            assert!(
                !ours || is_told || write.resource == "leases",
                "{write} by {}",
                write.user
            );
        }
        std::future::ready(Ok(u64::from(renewed) * 3 >= duration.as_secs()))
    })
    .await
    .unwrap();
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn a_settled_system_writes_nothing() {
    nothing_is_written_for(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn long_a_settled_system_writes_nothing_for_minutes() {
    nothing_is_written_for(Duration::from_secs(480)).await;
}
