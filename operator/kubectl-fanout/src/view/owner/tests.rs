use serde_json::json;

use super::*;
use crate::view::pods::PodSeen;
use crate::view::samples::{declared, forwarder, pod, silent};

/// Members C1 and C2; the ring before had the members `before`, and `moved` is what the operator has measured.
fn snapshot(pods: Vec<PodSeen>, moved: Option<&str>, leaving: &[&str]) -> Snapshot {
    let mut declared = declared(7, &["C1", "C2"]);
    declared.moved_percent = moved.map(str::to_owned);
    declared.leaving = leaving
        .iter()
        .map(|name| (format!("plant/{}", name.to_lowercase()), (*name).to_owned()))
        .collect();
    Snapshot {
        forwarder: forwarder(),
        declared: Ok(declared),
        pods: Some(pods),
        gaps: Vec::new(),
    }
}

fn measured(before: &[&str]) -> String {
    let ring = |names: &[&str]| {
        let declared = declared(6, names);
        declared.ring_of(&declared.weights()).unwrap()
    };
    let shifts = moved(&ring(before), &ring(&["C1", "C2"]));
    format!("{:.1}", shifts.iter().fold(0.0, |sum, shift| sum + shift.share) * 100.0)
}

/// An asset that C3 owns as long as it is a member.
fn asset_of_c3() -> String {
    let declared = declared(6, &["C1", "C2", "C3"]);
    let ring = declared.ring_of(&declared.weights()).unwrap();
    let mut assets = (0..).map(|number| format!("asset-{number}"));
    assets
        .find(|asset| ring.name(ring.owner(asset.as_bytes())) == "C3")
        .unwrap()
}

fn change(snapshot: &Snapshot, asset: &str) -> Change {
    let weights = BTreeMap::from([("C3".to_owned(), 1)]);
    OwnerView::of(snapshot, asset, &weights).unwrap().change
}

#[test]
fn the_owner_is_the_one_of_the_ring() {
    let snapshot = snapshot(vec![pod("a", 7, 0)], None, &[]);
    let owner = OwnerView::of(&snapshot, "WTVB01-0001", &BTreeMap::new()).unwrap();
    let table = Owners::new(&declared(7, &["C1", "C2"]).config).unwrap();
    let cluster = table.answer("WTVB01-0001".to_owned()).unwrap().cluster_name;
    assert_eq!(owner.cluster.as_deref(), Some(cluster.as_str()));
    assert_eq!(owner.nats_cluster, Some(format!("plant/{}", cluster.to_lowercase())));
    assert_eq!((owner.ring_epoch, &owner.change), (Some(7), &Change::Done));
    let view = WhereView {
        asset: "WTVB01-0001".to_owned(),
        owners: vec![owner],
        not_read: Vec::new(),
    };
    let line = &view.lines()[1];
    assert!(line.contains(&format!("nats://{cluster}:4222")), "{line}");
    assert_eq!(
        serde_json::to_value(&view).unwrap()["owners"][0]["change"],
        json!({"state": "done"})
    );
}

#[test]
fn a_cluster_that_is_leaving_was_the_owner_if_the_share_agrees() {
    let asset = asset_of_c3();
    let leaves = measured(&["C1", "C2", "C3"]);
    let known = change(&snapshot(vec![pod("a", 7, 1)], Some(&leaves), &["C3"]), &asset);
    assert_eq!(
        known,
        Change::UnderWay {
            owner_before: Some("C3".to_owned())
        }
    );
    // Another change came at the same time: nobody can tell.
    for moved in [Some("99.9"), None] {
        let unknown = change(&snapshot(vec![pod("a", 7, 1)], moved, &["C3"]), &asset);
        assert_eq!(unknown, Change::UnderWay { owner_before: None });
    }
}

#[test]
fn a_pod_with_the_former_ring_tells_its_members() {
    let joined = measured(&["C1"]);
    let mut old = pod("a", 6, 0);
    if let crate::view::pods::Heard::Status(status) = &mut old.heard {
        status.clusters.remove("C2");
    }
    let known = change(&snapshot(vec![old], Some(&joined), &[]), "any");
    assert_eq!(
        known,
        Change::UnderWay {
            owner_before: Some("C1".to_owned())
        }
    );
}

#[test]
fn without_the_pods_word_a_change_is_not_known() {
    let mut snapshot = snapshot(vec![silent("a")], Some("12.5"), &[]);
    snapshot.forwarder.status = None;
    assert_eq!(change(&snapshot, "any"), Change::NotKnown);
    let owner = OwnerView::of(&snapshot, "any", &BTreeMap::new()).unwrap();
    let view = WhereView {
        asset: "any".to_owned(),
        owners: vec![owner],
        not_read: Vec::new(),
    };
    assert!(view.lines()[1].contains("  ?  "), "{:?}", view.lines());
}

#[test]
fn without_members_no_cluster_owns_it() {
    let mut snapshot = snapshot(Vec::new(), None, &[]);
    if let Ok(declared) = &mut snapshot.declared {
        declared.idle = true;
    }
    let fault = OwnerView::of(&snapshot, "any", &BTreeMap::new()).unwrap_err();
    assert!(matches!(fault, Fault::NotFound(_)), "{fault}");
    assert_eq!(OwnerView::without(&snapshot, &fault).cluster, None);
}
