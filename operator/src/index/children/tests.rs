use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::*;

fn map(version: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("m".to_owned()),
            namespace: Some("n".to_owned()),
            labels: Some(WATCHED.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn tell(children: &Children, event: Event<ConfigMap>) {
    children.hear(&Ok(event));
}

fn standing(children: &Children) -> Standing {
    children.standing("ConfigMap", "n", "m", "hash")
}

fn ready() -> Children {
    let children = Children::default();
    tell(&children, Event::Init);
    tell(&children, Event::InitDone);
    children
}

#[test]
fn before_the_first_list_nothing_is_known() {
    let children = Children::default();
    assert_eq!(standing(&children), Standing::Unknown);
    tell(&children, Event::Init);
    assert_eq!(standing(&children), Standing::Unknown);
    tell(&children, Event::InitDone);
    assert_eq!(standing(&children), Standing::Absent);
    assert_eq!(children.standing("Secret", "n", "m", "hash"), Standing::Unknown);
}

#[test]
fn a_child_is_as_declared_from_our_write_until_anybody_elses() {
    let children = ready();
    children.verify(&map("9"), "hash");
    assert_eq!(standing(&children), Standing::Unknown);
    // The watch is behind, and then tells of our own write.
    for seen in ["8", "9"] {
        tell(&children, Event::Apply(map(seen)));
        assert_eq!(standing(&children), Standing::AsDeclared);
        assert!(children.knows(&map(seen)));
    }
    assert_eq!(children.standing("ConfigMap", "n", "m", "another"), Standing::Other);
    tell(&children, Event::Apply(map("10")));
    assert_eq!(standing(&children), Standing::Other);
    assert!(!children.knows(&map("10")));
    children.verify(&map("10"), "hash");
    assert_eq!(standing(&children), Standing::AsDeclared);
}

#[test]
fn a_child_that_is_gone_may_have_lost_its_labels_until_it_is_read() {
    let children = ready();
    children.verify(&map("9"), "hash");
    tell(&children, Event::Apply(map("9")));
    tell(&children, Event::Delete(map("11")));
    assert_eq!(standing(&children), Standing::Unknown);
    children.not_found("ConfigMap", "n", "m");
    assert_eq!(standing(&children), Standing::Absent);
    // The watch tells of the deletion after we have made it anew.
    tell(&children, Event::Apply(map("12")));
    children.verify(&map("14"), "hash");
    tell(&children, Event::Delete(map("13")));
    assert_eq!(standing(&children), Standing::Unknown);
    tell(&children, Event::Apply(map("14")));
    assert_eq!(standing(&children), Standing::AsDeclared);
}

#[test]
fn what_a_new_list_does_not_have_is_gone_or_not_known() {
    let children = ready();
    tell(&children, Event::Apply(map("9")));
    assert_eq!(standing(&children), Standing::Other);
    // One that was written and never shown is of as little use.
    for is_written in [false, true] {
        if is_written {
            children.verify(&map("12"), "hash");
        }
        tell(&children, Event::Init);
        tell(&children, Event::InitDone);
        assert_eq!(standing(&children), Standing::Unknown);
        assert!(children.lock()["ConfigMap"].verified.is_empty());
    }
    children.not_found("ConfigMap", "n", "m");
    assert_eq!(standing(&children), Standing::Absent);
}

#[test]
fn what_a_restored_cluster_has_was_not_compared() {
    let children = ready();
    children.verify(&map("9"), "hash");
    for (listed, standing_then) in [("9", Standing::AsDeclared), ("8", Standing::Other)] {
        tell(&children, Event::Init);
        tell(&children, Event::InitApply(map(listed)));
        assert_eq!(children.knows(&map(listed)), standing_then == Standing::AsDeclared);
        tell(&children, Event::InitDone);
        assert_eq!(standing(&children), standing_then);
    }
    children.verify(&map("8"), "hash");
    assert_eq!(standing(&children), Standing::AsDeclared);
}

#[test]
fn a_child_that_is_there_without_our_labels_is_read_until_it_is_seen_or_gone() {
    let children = ready();
    let current = || children.current("ConfigMap", "n", "m");
    children.found("ConfigMap", "n", "m");
    assert_eq!((standing(&children), current()), (Standing::Unknown, None));
    children.not_found("ConfigMap", "n", "m");
    assert_eq!(standing(&children), Standing::Absent);
    children.found("ConfigMap", "n", "m");
    tell(&children, Event::Apply(map("9")));
    children.found("ConfigMap", "n", "m");
    assert_eq!((standing(&children), current()), (Standing::Other, Some(9)));
    assert_eq!(children.lock()["ConfigMap"].hidden.count, 0);
}

#[test]
fn while_its_watch_fails_nothing_is_known_of_a_kind() {
    let children = ready();
    children.verify(&map("9"), "hash");
    tell(&children, Event::Apply(map("9")));
    children.hear::<ConfigMap>(&Err(watcher::Error::NoResourceVersion));
    assert_eq!(standing(&children), Standing::Unknown);
    assert!(!children.is_absent("ConfigMap", "n", "another"));
    assert_eq!(children.current("ConfigMap", "n", "m"), None);
    tell(&children, Event::Apply(map("9")));
    assert_eq!(standing(&children), Standing::AsDeclared);
    assert!(children.is_absent("ConfigMap", "n", "another"));
}

#[test]
fn of_what_no_watch_tells_nothing_is_kept() {
    let children = ready();
    let mut foreign = map("9");
    foreign.metadata.labels = None;
    children.verify(&foreign, "hash");
    assert_eq!(standing(&children), Standing::Absent);
}

#[test]
fn who_loses_many_children_pushes_out_its_own_alone() {
    let mut hidden = Hidden::default();
    let name = |namespace: &str, number: usize| (namespace.to_owned(), number.to_string());
    hidden.insert(name("quiet", 0));
    for number in 0..=MOST_HIDDEN {
        hidden.insert(name("loud", number));
    }
    assert!(hidden.contains(&name("quiet", 0)) && hidden.contains(&name("loud", MOST_HIDDEN)));
    assert!(!hidden.contains(&name("loud", 0)) && !hidden.contains(&name("loud", 1)));
    let counted = hidden.namespaces.values().map(Latest::len).sum::<usize>();
    assert_eq!((counted, hidden.count), (MOST_HIDDEN, MOST_HIDDEN));
    hidden.remove(&name("quiet", 0));
    hidden.remove(&name("quiet", 0));
    assert_eq!((hidden.namespaces.len(), hidden.count), (1, MOST_HIDDEN - 1));
}
