use std::time::Duration;

use super::*;

/// What begins so panics where [`panic_if_asked`] stands.
pub(crate) const PANICS: &str = "panics";

/// A door that exists in tests alone: whose name asks for it panics.
pub(crate) fn panic_if_asked(name: &str) {
    assert!(!name.starts_with(PANICS), "asked to by a test");
}

#[tokio::test]
async fn a_task_that_panics_is_told_and_fails_the_probe() {
    let health = Health::default();
    let tasks = Tasks::new(Handle::current(), health.clone());
    tasks.spawn("sound", async {});
    tasks.spawn("publisher C1", async { panic_if_asked("panics") });
    let panicked = tokio::time::timeout(Duration::from_secs(10), tasks.panicked())
        .await
        .unwrap();
    assert_eq!(
        (panicked.task.as_str(), panicked.reason.as_str()),
        ("publisher C1", "asked to by a test")
    );
    let ill = health.check().unwrap_err().to_string();
    assert!(
        ill.starts_with("the task `publisher C1` has panicked: asked to by a test."),
        "{ill}"
    );
    // The first one is the cause of those behind it.
    tasks.guarded("another", async { panic_if_asked("panics") }).await;
    assert_eq!(tasks.first_panic(), Some(panicked));
    for task in tasks.take() {
        task.await.unwrap();
    }
}
