//! What a forwarder's pods may ask of the API server. (The operator's own account: see the tests of the charts.)

use std::collections::BTreeSet;

use e2e_rig::site::{FORWARDER, Site};
use forwarder_core::document::PublishMode;

/// What `kubectl auth can-i --list` says of an account.
async fn listed(site: &Site, account: &str) -> BTreeSet<String> {
    let account = format!("--as={account}");
    let list = ["auth", "can-i", "--list", "--no-headers", &account];
    let said = site.namespace.kubectl(&list).await.unwrap();
    let lines = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect()
}

#[tokio::test]
async fn a_pods_account_may_read_the_one_ring_and_nothing_else() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(0).await;
    let everybody = listed(&site, "system:serviceaccount:nowhere:nobody").await;
    let account = format!("system:serviceaccount:{}:{FORWARDER}", site.namespace.name);
    let may = listed(&site, &account).await;
    let may: Vec<&String> = may.difference(&everybody).collect();
    assert_eq!(may, ["configmaps [] [plant-ring] [get list watch]"]);
    let default = format!("system:serviceaccount:{}:default", site.namespace.name);
    assert_eq!(listed(&site, &default).await, everybody);
}
