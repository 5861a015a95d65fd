//! A namespace that is deleted under an operator of all namespaces.

use e2e_rig::site::Site;
use forwarder_core::document::PublishMode;

use super::{While, deleted_within_a_minute};

#[tokio::test]
async fn long_a_deleted_namespace_goes_while_nothing_else_answers() {
    let site = Site::of_cluster_from_elsewhere(PublishMode::Core, 2).await;
    deleted_within_a_minute(site, While::NothingAnswers).await;
}

#[tokio::test]
async fn long_a_deleted_namespace_goes_once_the_operator_is_back() {
    let site = Site::of_cluster_from_elsewhere(PublishMode::Core, 2).await;
    deleted_within_a_minute(site, While::TheOperatorIsAway).await;
}
