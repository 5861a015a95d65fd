use std::time::Duration;

use super::*;
use crate::tasks::tests::PANICS;

/// How an engine ends that nobody asks to stop. Neither its Kafka nor its NATS is there.
async fn end_of(text: &str) -> EngineError {
    let (document, ring) = Checked::from_yaml(text).unwrap().split();
    let origin = RingOrigin::Given {
        ring: Box::new(ring),
        watched: None,
    };
    let (_trigger, stop) = shutdown::channel();
    let run = tokio::time::timeout(Duration::from_secs(60), run(document, origin, stop));
    run.await.expect("it goes on as if nothing had happened").unwrap_err()
}

fn document(cluster: &str, more: &str) -> String {
    format!(
        "
source: {{connection: {{bootstrapServers: ['127.0.0.1:1']}}, topic: t, group: g}}
ring: {{clusters: [{{name: C1, servers: ['nats://127.0.0.1:1']}}, {{name: {cluster}, servers: ['nats://127.0.0.1:1']}}]}}
admin: {{address: 127.0.0.1, port: 0}}
{more}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_panics_ends_the_process_and_is_named() {
    let error = end_of(&document(PANICS, "")).await;
    let expected = format!("the task `publisher {PANICS}` has panicked: asked to by a test. The process ends");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_panic_end_the_process() {
    let error = end_of(&document(
        "C2",
        &format!("deadLetter: {{type: Topic, topic: {PANICS}}}"),
    ))
    .await;
    assert!(
        error.to_string().starts_with("the task `dead_letter` has panicked: "),
        "{error}"
    );
}
