use super::*;

pub(super) fn declared(manage: bool) -> Stream {
    Stream {
        name: "ASSETS".to_owned(),
        manage,
        subjects: vec![],
        replicas: 1,
        storage: Storage::File,
        max_age_seconds: None,
        max_bytes: None,
        duplicate_window_seconds: 120,
    }
}

pub(super) fn cluster() -> Cluster {
    Cluster {
        name: "C1".to_owned(),
        servers: vec![],
        weight: 1,
        auth: None,
        tls: None,
        discover_servers: None,
        jet_stream: None,
        inbox_prefix: None,
        client_servers: Vec::new(),
    }
}

/// A configuration as a server reports it: with fields of its own, without zeros in some.
fn found() -> Value {
    let mut config = new_config(&declared(true), "assets");
    config["max_msgs"] = json!(-1);
    config["allow_something_new"] = json!(true);
    config
}

fn judged(config: &Value) -> Result<StreamState, StreamError> {
    judge(&cluster(), &declared(false), "assets", Change::None, config)
}

#[test]
fn a_stream_as_declared_is_left_alone() {
    assert_eq!(updated(&found(), &declared(true), "assets"), None);
    let mut without_zero = found();
    without_zero.as_object_mut().unwrap().remove("max_age");
    assert_eq!(updated(&without_zero, &declared(true), "assets"), None);
}

#[test]
fn an_update_changes_what_is_declared_and_nothing_else() {
    let changed = Stream {
        max_age_seconds: Some(60),
        subjects: vec!["assets.>".into(), "x".into()],
        ..declared(true)
    };
    let config = updated(&found(), &changed, "assets").unwrap();
    let mut wanted = found();
    wanted["max_age"] = json!(60_000_000_000_u64);
    wanted["subjects"] = json!(["assets.>", "x"]);
    assert_eq!(config, wanted);
}

#[test]
fn a_stream_that_confirms_nothing_is_unfit() {
    assert_eq!(judged(&found()).unwrap().duplicate_window, Duration::from_secs(120));
    for (field, value) in [
        ("no_ack", json!(true)),
        ("sealed", json!(true)),
        ("mirror", json!({"name": "X"})),
    ] {
        let mut config = found();
        config[field] = value;
        assert_eq!(judged(&config).unwrap_err().kind(), "unfit", "{field}");
    }
}

#[test]
fn subjects_that_do_not_cover_ours_are_named() {
    let mut config = found();
    config["subjects"] = json!(["assets.*", "b.>"]);
    let message = judged(&config).unwrap_err().to_string();
    assert!(message.contains("assets.>") && message.contains("b.>"), "{message}");
    config["subjects"] = Value::Null;
    assert_eq!(judged(&config).unwrap_err().kind(), "not_covered");
}

#[test]
fn each_fault_of_a_stream_has_a_place_and_a_label_of_its_own() {
    let labels: std::collections::BTreeSet<_> = StreamFault::ALL.iter().map(|fault| fault.label()).collect();
    assert_eq!(labels.len(), StreamFault::ALL.len());
    for (place, fault) in StreamFault::ALL.into_iter().enumerate() {
        assert_eq!(fault as usize, place, "{fault:?}");
    }
}
