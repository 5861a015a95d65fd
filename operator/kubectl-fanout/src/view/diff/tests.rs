use std::io::Cursor;

use super::*;
use crate::view::samples::{cluster, declared};

fn joins(text: &str) -> Joins {
    text.parse().unwrap()
}

fn plan(add: &[&str], remove: &[&str], known: &[NatsCluster]) -> Result<Plan, Fault> {
    let add: Vec<Joins> = add.iter().map(|text| joins(text)).collect();
    let remove: Vec<String> = remove.iter().map(|name| (*name).to_owned()).collect();
    Plan::new(&declared(7, &["C1", "C2", "C3"]), &add, &remove, Some(known))
}

fn view(add: &[&str], remove: &[&str], known: &[NatsCluster]) -> DiffView {
    let plan = plan(add, remove, known).unwrap();
    let sample = plan.make_up(3);
    plan.view("plant/assets".to_owned(), 7, sample)
}

#[test]
fn who_joins_gets_its_share_from_all_others_and_nothing_else_moves() {
    let view = view(&["C4"], &[], &[]);
    assert!((0.15..0.35).contains(&view.moved_share), "{}", view.moved_share);
    assert_eq!(view.moves.len(), 3);
    assert!(view.moves.iter().all(|shift| shift.to == "C4"), "{:?}", view.moves);
    assert_eq!(view.sample.examples.len(), 3);
    assert!(view.sample.examples.iter().all(|example| example.to == "C4"));
    assert!(view.notes[0].contains("there is no NatsCluster"), "{:?}", view.notes);
    let text = view.lines().join("\n");
    for part in [
        "now:   C1, C2, C3",
        "then:  C1, C2, C3, C4",
        "FROM  TO  SHARE",
        "ASSET (MADE UP)",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn who_leaves_gives_its_share_to_the_others() {
    for name in ["C2", "c2", "plant/c2"] {
        let view = view(&[], &[name], &[]);
        assert!(view.moves.iter().all(|shift| shift.from == "C2"), "{:?}", view.moves);
        let declared = declared(7, &["C1", "C2", "C3"]);
        let share = declared.shares().unwrap()["C2"];
        assert!((view.moved_share - share).abs() < 1e-12, "it moves what it has");
    }
}

#[test]
fn a_cluster_that_is_declared_has_its_own_weight_unless_another_one_is_given() {
    let known = [cluster("c4", Some("C4"), 3)];
    let weight = |add: &str| {
        let after = view(&[add], &[], &known).after;
        after.iter().find(|member| member.name == "C4").unwrap().weight
    };
    assert_eq!(
        [weight("C4"), weight("c4"), weight("C4=2"), weight("c4=5")],
        [3, 3, 2, 5]
    );
    assert!(view(&["C4"], &[], &known).notes.is_empty());
    assert!(
        view(&["C4=2"], &[], &known)
            .lines()
            .iter()
            .any(|line| line.ends_with("C3, C4=2"))
    );
    let mut drained = cluster("c4", Some("C4"), 1);
    drained.spec.drain = true;
    assert!(view(&["C4"], &[], &[drained]).notes[0].contains("spec.drain"));
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for (add, remove, code, part) in [
        (&[][..], &["C9"][..], 3, "Its members are C1, C2, C3"),
        (&["C1"], &[], 2, "a member of the ring already"),
        (&["C4", "C4=2"], &[], 2, "--add names C4 twice"),
        (&[], &["C1", "c1"], 2, "--remove names c1 twice"),
        (&[], &["C1", "C2", "C3"], 2, "no members"),
    ] {
        let fault = plan(add, remove, &[]).unwrap_err();
        assert_eq!(fault.code() as u8, code, "{fault}");
        assert!(fault.to_string().contains(part), "{fault}");
    }
    let mut idle = declared(7, &["C1"]);
    idle.idle = true;
    let fault = Plan::new(&idle, &[joins("C4")], &[], None).unwrap_err();
    assert!(fault.to_string().contains("no members now"), "{fault}");
    for text in ["", "=2", "C4=0", "C4=1001", "C4=x"] {
        assert!(text.parse::<Joins>().is_err(), "{text}");
    }
    assert_eq!(
        joins("a=b=2"),
        Joins {
            name: "a=b".to_owned(),
            weight: Some(2)
        }
    );
}

#[test]
fn given_assets_are_counted_and_the_first_ones_shown() {
    let plan = plan(&["C4"], &[], &[]).unwrap();
    let text: String = (0..1000).map(|number| format!("a-{number}\r\n\n")).collect();
    let sample = plan.read(Cursor::new(text + "last"), 2).unwrap();
    assert_eq!((sample.assets, sample.examples.len(), sample.made_up), (1001, 2, false));
    assert!((150..350).contains(&sample.moving), "{}", sample.moving);
    let moving = sample.moving;
    let view = plan.view("plant/assets".to_owned(), 7, sample);
    let told = format!("{moving} of 1001 assets move");
    assert!(view.lines().contains(&told), "{:?}", view.lines());
}

#[test]
fn an_asset_of_any_bytes_gives_a_terminal_no_orders() {
    let plan = plan(&[], &["C1", "C2"], &[]).unwrap();
    let all: Vec<u8> = (0..50)
        .flat_map(|number| [&b"\x1b[2J\xff"[..], &[b'0' + number], b"\n"].concat())
        .collect();
    let sample = plan.read(Cursor::new(all), 50).unwrap();
    assert!(!sample.examples.is_empty());
    let lines = plan.view("plant/assets".to_owned(), 7, sample).lines().join("\n");
    assert!(
        !lines.chars().any(|letter| letter != '\n' && letter.is_control()),
        "{lines:?}"
    );
}
