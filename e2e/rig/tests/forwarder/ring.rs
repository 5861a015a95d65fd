//! Who owns what: the golden vectors through the built binary, and through real servers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::thread;

use e2e_rig::forwarder;
use forwarder_core::document::PublishMode;
use serde::Deserialize;

use crate::stage::Stage;

/// Owners as the original implementation names them.
#[derive(Debug, Deserialize)]
struct Vector {
    clusters: Vec<String>,
    replicas: u32,
    expect: BTreeMap<String, String>,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../../forwarder/core/tests/data/ring-vectors.json")).unwrap()
}

/// What the binary says to these arguments, and this on standard input.
fn run(arguments: &[&str], input: impl Into<Vec<u8>>) -> Output {
    let mut command = Command::new(forwarder::binary().unwrap());
    command.args(arguments).env_clear();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.into());
    // On a thread of its own: who writes all before reading anything waits for ever once both pipes are full. What reads no
    // input may have ended before it came.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn good(arguments: &[&str], input: impl Into<Vec<u8>>) -> String {
    let output = run(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and standard error of what is refused.
fn refused(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let output = run(arguments, input);
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn keys(count: u32) -> String {
    (0..count).map(|number| format!("WTVB01-{number:05}\n")).collect()
}

#[test]
fn the_command_line_assigns_as_the_original_does() {
    for Vector {
        clusters,
        replicas,
        expect,
    } in vectors()
    {
        let input: String = expect.keys().map(|key| format!("{key}\n")).collect();
        let replicas = replicas.to_string();
        let said = good(
            &[
                "ring",
                "assign",
                "--clusters",
                &clusters.join(","),
                "--replicas",
                &replicas,
            ],
            input,
        );
        let expected: String = expect.iter().map(|(key, owner)| format!("{key}\t{owner}\n")).collect();
        assert_eq!(said, expected, "{clusters:?}, {replicas} replicas");
    }
}

#[test]
fn a_fourth_cluster_takes_from_each_of_three_and_nothing_else_moves() {
    let change = ["ring", "diff", "--from", "C1,C2,C3", "--to", "C1,C2,C3,C4"];
    let shares = good(&change, "");
    let shares: Vec<Vec<&str>> = shares.lines().map(|line| line.split('\t').collect()).collect();
    let pairs: Vec<_> = shares.iter().map(|share| &share[..share.len() - 1]).collect();
    assert_eq!(pairs, [&["C1", "C4"][..], &["C2", "C4"], &["C3", "C4"], &["total"]]);
    let percent: Vec<f64> = shares
        .iter()
        .map(|share| share.last().unwrap().strip_suffix('%').unwrap().parse().unwrap())
        .collect();
    let of_three: f64 = percent[..3].iter().sum();
    assert!((of_three - percent[3]).abs() <= 0.02, "{percent:?}");
    assert!((percent[3] - 29.5).abs() < 0.5, "{percent:?}");

    // The keys agree with the shares, with each other whichever way they are given, and with two assignments.
    let keys = keys(100_000);
    let moves = good(&[&change[..], &["--keys", "-"]].concat(), keys.as_str());
    let moved = moves.lines().count() as f64 / 1_000.0;
    assert!((moved - percent[3]).abs() < 0.5, "{moved} % of the keys, {percent:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &keys).unwrap();
    assert!(moves == good(&[&change[..], &["--keys", file.path().to_str().unwrap()]].concat(), ""));
    let owners = |clusters| good(&["ring", "assign", "--clusters", clusters], keys.as_str());
    let (before, after) = (owners("C3,C1,C2"), owners("C1,C2,C3,C4"));
    let expected: String = before
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after)
        .map(|(before, after)| format!("{before}\t{}\n", after.split('\t').next_back().unwrap()))
        .collect();
    assert!(moves == expected);
    assert!(moves.lines().all(|line| line.ends_with("\tC4")));
}

#[tokio::test]
async fn each_record_arrives_at_the_cluster_that_the_vectors_name_and_nowhere_else() {
    let vector = vectors()
        .into_iter()
        .find(|vector| vector.clusters == ["C1", "C2", "C3"] && vector.replicas == 128)
        .unwrap();
    let stage = Stage::new(PublishMode::Core, 3).await;
    let mut config = stage.config();
    // The order in which they are declared says nothing.
    config.ring.clusters.rotate_left(1);
    let _forwarder = stage.start("forwarder", &config).await;
    for key in vector.expect.keys() {
        stage
            .traffic
            .send_raw(key.as_bytes(), Some(br#"{"id": "x"}"#))
            .await
            .unwrap();
    }
    stage.wait_committed().await;
    for (place, (name, _)) in stage.clusters.iter().enumerate() {
        let owned = vector.expect.iter().filter(|(_, owner)| *owner == name);
        let expected: Vec<_> = owned.map(|(key, _)| format!("{key}.x")).collect();
        let mut found: Vec<_> = stage
            .stored(place)
            .await
            .into_iter()
            .map(|message| message.subject)
            .collect();
        found.sort();
        assert_eq!(found, expected, "{name}");
        assert!(found.len() >= 5, "the vectors prove little about {name}");
    }
}

#[test]
fn a_document_is_checked_without_a_server() {
    let text = r#"
source: {connection: {bootstrapServers: ["kafka:9092"]}, topic: t}
ring:
  epoch: 3
  clusters:
    - {name: C1, servers: ["nats://c1:4222"]}
    - {name: C2, servers: ["nats://c2:4222"]}
"#;
    let said = good(&["check", "-"], text);
    assert!(said.starts_with("ok\n"), "{said}");
    for part in ["topic t", "epoch 3", "128 replicas", "C1, C2", "{key}.{id}"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    assert_eq!(good(&["check", file.path().to_str().unwrap()], ""), said);

    // Faults of a well-formed document come all at once, each by its path.
    let wrong = text
        .replace("kafka:9092", "")
        .replace("name: C2", "name: C1")
        .replace("nats://c1:4222", "http://c1");
    let (code, errors) = refused(&["check", "-"], &wrong);
    assert_eq!(code, Some(1));
    for path in [
        "source.connection.bootstrapServers",
        "ring.clusters[0].servers",
        "ring.clusters[1].name",
    ] {
        assert!(errors.lines().any(|line| line.starts_with(path)), "{path}: {errors}");
    }
    for (wrong, part) in [
        (text.replace("epoch: 3", "epoch: many"), "ring.epoch"),
        (text.replace("epoch: 3", "epok: 3"), "epok"),
        (text.replace("topic: t}", "topic: t"), "line "),
        (String::new(), "end of input"),
    ] {
        let (code, errors) = refused(&["check", "-"], &wrong);
        assert_eq!(code, Some(1), "{wrong}");
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let (code, errors) = refused(&["check", "/there/is/none.yaml"], "");
    assert_eq!(code, Some(1));
    assert!(errors.contains("/there/is/none.yaml"), "{errors}");
}

#[test]
fn the_help_names_every_command() {
    let help = good(&["--help"], "");
    for command in ["run", "check", "ring", "router"] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}: {help}"
        );
    }
    assert!(good(&["router", "--help"], "").contains("[default: 8002]"));
    assert!(good(&["ring", "assign", "--help"], "").contains("[default: 128]"));
    assert!(good(&["--version"], "").starts_with("forwarder "));
    // Not a fault of the document: another exit code, and the usage.
    let (code, errors) = refused(&["fly"], "");
    assert_eq!(code, Some(2));
    assert!(errors.contains("Usage: "), "{errors}");
}
