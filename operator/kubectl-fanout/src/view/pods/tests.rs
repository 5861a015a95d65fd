use serde_json::json;

use super::*;
use crate::view::samples::{pod, silent};

fn kubernetes(change: impl FnOnce(&mut serde_json::Value)) -> Option<PodSeen> {
    let mut value = sample();
    change(&mut value);
    PodSeen::of(&serde_json::from_value(value).unwrap(), "assets")
}

fn sample() -> serde_json::Value {
    json!({
        "metadata": {
            "name": "assets-5-x",
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "assets-5", "uid": "u", "controller": true,
            }],
        },
        "spec": {
            "containers": [{"name": "forwarder"}],
            "volumes": [{"name": "config", "configMap": {"name": "assets-config-a1"}}],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "forwarder", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "state": {"running": {}},
            }],
        },
    })
}

#[test]
fn only_a_pod_that_may_be_the_forwarders_counts() {
    assert!(can_be_asked(&kubernetes(|_| {}).unwrap()));
    assert!(
        kubernetes(|pod| pod["metadata"]["ownerReferences"] = json!([])).is_some(),
        "an orphan goes on"
    );
    for other in [
        kubernetes(|pod| pod["metadata"]["ownerReferences"][0]["kind"] = json!("Job")),
        kubernetes(|pod| pod["metadata"]["ownerReferences"][0]["name"] = json!("other-5")),
        kubernetes(|pod| pod["spec"]["volumes"] = json!([])),
        kubernetes(|pod| pod["spec"]["containers"][0]["name"] = json!("other")),
        kubernetes(|pod| pod["status"]["phase"] = json!("Failed")),
    ] {
        assert_eq!(other, None);
    }
}

#[test]
fn what_has_not_begun_is_not_asked_and_what_crashes_is_not_known() {
    let state = |state: serde_json::Value, restarts: u32| {
        kubernetes(|pod| {
            pod["status"]["containerStatuses"][0]["state"] = state;
            pod["status"]["containerStatuses"][0]["restartCount"] = json!(restarts);
        })
        .unwrap()
        .heard
    };
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    assert_eq!(state(waiting.clone(), 0), Heard::NoProcess);
    assert_eq!(
        state(waiting, 1),
        Heard::Silent("it does not run: CrashLoopBackOff".to_owned())
    );
    let pending = kubernetes(|pod| pod["status"] = json!({"phase": "Pending"})).unwrap();
    assert_eq!(pending.heard, Heard::NoProcess);
    let lost = kubernetes(|pod| pod["status"] = json!({"phase": "Unknown"})).unwrap();
    assert!(matches!(lost.heard, Heard::Silent(_)));
    let ended = |ending: bool| {
        kubernetes(|pod| {
            pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
            if ending {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
        })
        .unwrap()
        .heard
    };
    assert_eq!(ended(true), Heard::NoProcess);
    assert!(matches!(ended(false), Heard::Silent(_)), "it is started again");
    let container = |state: serde_json::Value| {
        let mut pod = sample();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["status"]["containerStatuses"][0]["state"] = state;
        serde_json::from_value::<Pod>(pod).unwrap()
    };
    let ending = container(json!({"running": {}}));
    let ended = container(json!({"terminated": {"exitCode": 0}}));
    assert_eq!(remaining(&[ending, ended], "assets"), 1);
}

#[test]
fn sums_are_known_only_if_all_processes_have_told() {
    let both = [pod("a", 7, 2), pod("b", 7, 3)];
    let totals = Totals::of(Some(&both));
    assert_eq!(totals.waiting_assets, Some(5));
    assert_eq!((totals.parked_records, totals.pending_records), (Some(8), Some(20)));
    assert_eq!((totals.lag, totals.silent_pods), (Some(200), Some(0)));
    assert_eq!(totals.has_converged(7), Some(false), "assets wait");

    let one_is_silent = [pod("a", 7, 0), silent("b")];
    let totals = Totals::of(Some(&one_is_silent));
    assert_eq!(
        (totals.waiting_assets, totals.parked_records, totals.lag),
        (None, None, None)
    );
    assert_eq!((totals.silent_pods, totals.has_converged(7)), (Some(1), None));
    assert_eq!(totals.has_converged(8), Some(false), "one that has told is behind");

    assert_eq!(Totals::of(None).has_converged(7), None);
    assert_eq!(Totals::of(None).silent_pods, None);
    let nobody = Totals::of(Some(&[]));
    assert_eq!((nobody.waiting_assets, nobody.has_converged(7)), (Some(0), Some(true)));
}

#[test]
fn a_pod_is_shown_with_its_problem() {
    let shown = PodView::from(&silent("b"));
    assert_eq!(
        (shown.state.as_str(), shown.epoch, shown.lag),
        ("not known", None, None)
    );
    assert_eq!(shown.problem.as_deref(), Some("no answer within 3 s"));
    let shown = PodView::from(&pod("a", 7, 1));
    assert_eq!(
        (shown.state.as_str(), shown.epoch, shown.lag),
        ("consuming", Some(7), Some(100))
    );
    assert_eq!(shown.problem, None);
}
