//! Two watches tell of forwarders and of their ConfigMaps, in any order: what is answered in the end is the same.

use super::*;
use crate::index::rings::Watched;
use crate::index::rings::watch::forwarder_changed;

type Of = Event<Watched>;

fn forwarder(uid: &str) -> Watched {
    serde_json::from_value(json!({"metadata": {"namespace": "plant", "name": "a", "uid": uid}})).unwrap()
}

fn ring_of(uid: &str, epoch: u64) -> ConfigMap {
    let mut map = map("a", &RING.replace("epoch: 7", &format!("epoch: {epoch}")));
    own(&mut map, "AssetForwarder", "a", uid);
    map
}

/// A forwarder is made anew while its ring comes and goes: deleted by a person, written by a stranger, and made anew.
fn stories() -> (Vec<Of>, Vec<Event<ConfigMap>>) {
    let forwarders = vec![
        Event::Init,
        Event::InitApply(forwarder("first")),
        Event::InitDone,
        Event::Delete(forwarder("first")),
        Event::Apply(forwarder("second")),
    ];
    let maps = vec![
        Event::Init,
        Event::InitApply(ring_of("first", 1)),
        Event::InitDone,
        Event::Delete(ring_of("first", 1)),
        Event::Apply(ring_of("stranger", 50)),
        Event::Delete(ring_of("stranger", 50)),
        Event::Apply(ring_of("second", 2)),
    ];
    (forwarders, maps)
}

/// Every way to put `other` events between `own`: for each step, whether it is one of the first.
fn orders(own: usize, other: usize) -> Vec<Vec<bool>> {
    match (own, other) {
        (0, _) => vec![vec![false; other]],
        (_, 0) => vec![vec![true; own]],
        _ => {
            let begin = |first: bool, rest: Vec<Vec<bool>>| {
                rest.into_iter()
                    .map(move |rest| std::iter::once(first).chain(rest).collect())
            };
            begin(true, orders(own - 1, other))
                .chain(begin(false, orders(own, other - 1)))
                .collect()
        }
    }
}

#[tokio::test]
async fn all_orders_of_the_two_watches_end_alike() {
    let (of_forwarders, of_maps) = stories();
    let orders = orders(of_forwarders.len(), of_maps.len());
    assert_eq!(orders.len(), 792, "12 over 5");
    for order in orders {
        let rings = Arc::new(Rings::default());
        let (mut forwarders, mut maps) = (of_forwarders.iter(), of_maps.iter());
        let (mut listed, mut mapped) = (BTreeSet::new(), BTreeSet::new());
        for is_of_forwarders in &order {
            if *is_of_forwarders {
                forwarder_changed(&rings, &mut listed, forwarders.next().unwrap().clone());
            } else {
                document_changed(&rings, &mut mapped, Heard::of(maps.next().unwrap().clone()));
            }
            let epoch = rings.only().and_then(|only| rings.view(&only));
            let epoch = epoch.map_or(0, |view| view.written.epoch());
            assert!(epoch <= 2, "a stranger's ring is answered from: {order:?}");
        }
        let listed = json!({"forwarders": [{"namespace": "plant", "name": "a", "ring_epoch": 2}]});
        assert_eq!(get_json(&rings, "/forwarders").await, (200, listed), "{order:?}");
        assert_eq!(get_json(&rings, "/asset/x").await.1["ring_epoch"], 2, "{order:?}");
    }
}

#[tokio::test]
async fn a_list_cut_short_takes_nothing_away() {
    let rings = rings(&["a", "b"]);
    let (mut listed, mut mapped) = (BTreeSet::new(), BTreeSet::new());
    // Both lists begin and are cut after one page; then both come as a whole, without b.
    let first = || Event::InitApply(map("a", RING));
    for event in [Event::Init, first()] {
        document_changed(&rings, &mut mapped, Heard::of(event));
    }
    assert_eq!(get_json(&rings, "/forwarders/plant/b/asset/x").await.0, 200);
    for event in [Event::Init, first(), Event::InitDone] {
        document_changed(&rings, &mut mapped, Heard::of(event));
    }
    assert_eq!(
        get_json(&rings, "/forwarders/plant/b/asset/x").await.0,
        200,
        "a ring that a person has deleted is answered from memory"
    );
    let mut a = forwarder(&uid("a"));
    a.meta_mut().name = Some("a".to_owned());
    for event in [Event::Init, Event::InitApply(a), Event::InitDone] {
        forwarder_changed(&rings, &mut listed, event);
    }
    assert_eq!(get_json(&rings, "/forwarders/plant/b/asset/x").await.0, 404);
    assert_eq!(get_json(&rings, "/asset/x").await.0, 200);
}
