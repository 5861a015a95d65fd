//! The router's document is what it answers, whatever it is asked.

use std::time::Duration;

use e2e_rig::site::Site;
use e2e_rig::stage::SOON;
use e2e_rig::{python, wait};
use forwarder_core::document::PublishMode;

/// Each operation is tried with so many requests.
const EXAMPLES: &str = "40";

#[tokio::test]
async fn every_answer_of_the_router_is_in_its_document() {
    let site = Site::new(PublishMode::Core, 2).await;
    site.start(0).await;
    wait::eventually(SOON, "the router knows the ring", || async {
        Ok(site.route("/asset/a").await.0 == 200)
    })
    .await
    .unwrap();
    let document = format!("http://{}/openapi.json", site.router_address().await);
    let scratch = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "--checks=all",
        "--seed=1",
        "--phases=examples,coverage,fuzzing",
        // A stream of events has no end to wait for.
        "--exclude-path=/v1/watch",
        "--no-color",
        "--max-examples",
        EXAMPLES,
        document.as_str(),
    ];
    let said = python::run_module(
        scratch.path(),
        "schemathesis.cli",
        args,
        &[],
        &[],
        Duration::from_secs(120),
    )
    .await
    .unwrap();
    assert!(said.contains("No issues found"), "{said}");
}
