use serde_json::{Value, json};

use super::build::build;
use super::decide::{Server, Situation, State, Step, decide};
use super::jetstream::{Jsz, Led, Peer, View};
use super::names::Identity;
use super::validate::{Passwords, validate};
use super::*;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt as _;

fn cluster(managed: Value) -> NatsCluster {
    serde_json::from_value(json!({
        "metadata": {"name": "c1", "namespace": "plant", "uid": "u"},
        "spec": {"managed": managed},
    }))
    .unwrap()
}

fn planned(managed: Value) -> Plan {
    let cluster = cluster(managed);
    let passwords = Passwords {
        client: "pclient1".to_owned(),
        system: "psystem1".to_owned(),
        route: "proute11".to_owned(),
    };
    validate(
        &cluster,
        cluster.spec.managed.as_ref().unwrap(),
        passwords,
        "fanout-system",
    )
    .unwrap()
}

fn three() -> Value {
    json!({"replicas": 3, "version": "2.12.1", "jetStream": {"storage": {"size": "10Gi"}}})
}

/// `number` servers that are well and run as declared, with a stream of three copies on the first three.
fn sound(number: u32) -> Situation {
    let identity = Identity::of(&cluster(three()));
    let servers = (0..number).map(|ordinal| Server {
        name: identity.server(ordinal),
        uid: format!("uid-{ordinal}"),
        state: State::Healthy("2.12.1".to_owned()),
        updated: true,
        shares_passwords: true,
        long_unready: false,
    });
    Situation {
        wanted: number,
        version: Some("2.12.1".to_owned()),
        jet_stream: true,
        replicas: number,
        observed: true,
        servers: servers.collect(),
        view: view(number, &[("orders", 3, "file", &[0, 1, 2])]),
        identity,
    }
}

type Placed<'a> = (&'a str, usize, &'a str, &'a [u32]);

/// As the servers say it: the first one leads the placing, and each stream's first server leads it.
fn view(number: u32, streams: &[Placed<'_>]) -> View {
    let name = |ordinal: u32| format!("c1-nats-{ordinal}");
    let peers = |of: &[u32], me: u32, leader: u32| -> Vec<Value> {
        let others = of.iter().filter(|other| **other != me);
        // Who does not lead does not know how far the others are.
        others
            .map(|other| json!({"name": name(*other), "current": me == leader || *other == leader}))
            .collect()
    };
    let all: Vec<u32> = (0..number).collect();
    let answers: Vec<(String, Jsz)> = all
        .iter()
        .map(|me| {
            let here = streams.iter().filter(|(.., servers)| servers.contains(me));
            let details: Vec<Value> = here
                .map(|(stream, replicas, storage, servers)| {
                    let group = json!({"leader": name(servers[0]), "replicas": peers(servers, *me, servers[0])});
                    json!({
                        "name": stream,
                        "cluster": group,
                        "config": {"num_replicas": replicas, "storage": storage},
                        "consumer_detail": [{"name": "reader", "cluster": group}],
                    })
                })
                .collect();
            let answer = json!({
                "meta_cluster": {"leader": name(0), "replicas": peers(&all, *me, 0)},
                "account_details": [{"name": "CLIENTS", "stream_detail": details}],
            });
            (name(*me), serde_json::from_value(answer).unwrap())
        })
        .collect();
    View::of(&answers)
}

fn outdated(mut situation: Situation) -> Situation {
    for server in &mut situation.servers {
        server.updated = false;
    }
    situation
}

/// The reason of a step that touches nothing.
fn reason(step: &Step) -> &'static str {
    match step {
        Step::Wait(words) | Step::Hold(words) => words.reason.as_str(),
        other => panic!("{other:?}"),
    }
}

fn restarted(step: &Step) -> &str {
    match step {
        Step::Restart { name, .. } => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_as_declared_is_left_alone() {
    assert_eq!(decide(&sound(3)), Step::Settled);
    let mut single = sound(1);
    single.view = view(1, &[]);
    assert_eq!(decide(&single), Step::Settled);
}

#[test]
fn servers_restart_from_the_highest_number_and_who_places_streams_last() {
    let mut situation = outdated(sound(3));
    let mut order = Vec::new();
    while let Step::Restart { name, .. } = decide(&situation) {
        situation
            .servers
            .iter_mut()
            .find(|server| server.name == name)
            .unwrap()
            .updated = true;
        order.push(name);
    }
    assert_eq!(order, ["c1-nats-2", "c1-nats-1", "c1-nats-0"]);
    let mut led_by_two = outdated(sound(3));
    led_by_two.view.meta.as_mut().unwrap().leader = "c1-nats-2".to_owned();
    assert_eq!(restarted(&decide(&led_by_two)), "c1-nats-1");
}

#[test]
fn no_server_is_touched_while_another_is_not_well() {
    for (state, wanted) in [
        (State::Stopping, "ServerStopping"),
        (State::Down("CrashLoopBackOff".to_owned()), "ServerStarting"),
        (State::Unhealthy("recovering".to_owned()), "ServerUnhealthy"),
    ] {
        let mut situation = outdated(sound(3));
        situation.servers[1].state = state;
        // As it is once it has been restarted.
        situation.servers[1].updated = true;
        assert_eq!(reason(&decide(&situation)), wanted);
    }
    let mut missing = outdated(sound(3));
    missing.servers.remove(1);
    assert_eq!(reason(&decide(&missing)), "ServerStarting");
    let mut unseen = outdated(sound(3));
    unseen.observed = false;
    assert_eq!(reason(&decide(&unseen)), "ServersStarting");
}

#[test]
fn no_server_is_touched_while_a_group_lacks_a_leader_or_a_copy() {
    let try_with = |change: &dyn Fn(&mut View)| {
        let mut situation = outdated(sound(3));
        change(&mut situation.view);
        reason(&decide(&situation))
    };
    assert_eq!(try_with(&|view| view.meta = None), "NoMetaLeader");
    let behind = |led: &mut Led| led.peers[0].current = false;
    let offline = |led: &mut Led| led.peers[1].offline = true;
    assert_eq!(
        try_with(&|view| behind(view.meta.as_mut().unwrap())),
        "ServerCatchingUp"
    );
    assert_eq!(
        try_with(&|view| offline(view.meta.as_mut().unwrap())),
        "ServerCatchingUp"
    );
    assert_eq!(
        try_with(&|view| drop(view.meta.as_mut().unwrap().peers.pop())),
        "ServerJoining"
    );
    // The stream, and its consumer.
    for group in 0..2 {
        assert_eq!(try_with(&|view| view.groups[group].led = None), "NoStreamLeader");
        assert_eq!(
            try_with(&|view| behind(view.groups[group].led.as_mut().unwrap())),
            "StreamCatchingUp"
        );
    }
    assert_eq!(
        try_with(&|view| view.groups[0].led.as_mut().unwrap().peers.clear()),
        "StreamCatchingUp"
    );
}

#[test]
fn only_what_a_groups_leader_says_counts() {
    let view = view(3, &[("orders", 3, "file", &[1, 0, 2])]);
    let led = view.groups[0].led.as_ref().unwrap();
    assert_eq!((led.leader.as_str(), led.behind()), ("c1-nats-1", None));
    assert_eq!(view.groups.len(), 2, "the stream and its consumer, from three servers");
    let follower: Jsz = serde_json::from_value(json!({"account_details": [{"name": "A", "stream_detail": [{
        "name": "s", "cluster": {"leader": "b", "replicas": []}, "config": {"num_replicas": 3},
    }]}]}))
    .unwrap();
    let alone = View::of(&[("a".to_owned(), follower)]);
    assert_eq!((alone.meta, alone.groups[0].led.clone()), (None, None));
}

#[test]
fn a_server_that_does_not_run_is_made_anew_as_declared_whatever_the_others_do() {
    let mut situation = outdated(sound(3));
    situation.servers[0].state = State::Down("ErrImagePull".to_owned());
    assert_eq!(restarted(&decide(&situation)), "c1-nats-0");
    situation.servers[1].state = State::Down("ErrImagePull".to_owned());
    assert_eq!(restarted(&decide(&situation)), "c1-nats-0");
}

#[test]
fn a_running_server_is_made_anew_only_when_the_kubelet_finds_it_unready_for_long_and_others_have_all_it_has() {
    let unhealthy = |number: u32| {
        let mut situation = outdated(sound(number));
        situation.servers[0].state = State::Unhealthy("no answer within 3s".to_owned());
        situation
    };
    assert_eq!(reason(&decide(&unhealthy(3))), "ServerUnhealthy", "we alone say so");
    let long = |mut situation: Situation| {
        situation.servers[0].long_unready = true;
        situation
    };
    assert_eq!(restarted(&decide(&long(unhealthy(3)))), "c1-nats-0");
    assert_eq!(reason(&decide(&long(unhealthy(1)))), "ServerUnhealthy", "it is alone");
    let mut two = long(unhealthy(3));
    two.servers[1].state = State::Unhealthy("no".to_owned());
    assert_eq!(reason(&decide(&two)), "ServerUnhealthy", "a majority may depend on it");
    let mut memory = long(unhealthy(3));
    memory.view = view(3, &[("scratch", 1, "memory", &[0])]);
    assert_eq!(reason(&decide(&memory)), "ServerUnhealthy", "it would lose a stream");
    let mut mute = long(unhealthy(3));
    mute.view.answered.remove("c1-nats-0");
    assert_eq!(reason(&decide(&mute)), "ServerUnhealthy", "nobody knows what it has");
}

#[test]
fn only_minutes_of_the_kubelets_own_word_are_long() {
    let told = |status: &str, since: i64| -> Vec<PodCondition> {
        let since = jiff::Timestamp::from_second(since).unwrap();
        serde_json::from_value(json!([{"type": "Ready", "status": status, "lastTransitionTime": since}])).unwrap()
    };
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    assert!(dereference::long_unready(told("False", 100).iter(), at(280)));
    assert!(!dereference::long_unready(told("False", 100).iter(), at(279)));
    assert!(!dereference::long_unready(told("True", 100).iter(), at(900)));
    assert!(
        !dereference::long_unready(told("Unknown", 100).iter(), at(900)),
        "the node is away"
    );
    assert!(!dereference::long_unready([].iter(), at(900)));
}

#[test]
fn a_healthy_server_that_has_not_said_what_it_has_holds_every_step() {
    let mut situation = sound(5);
    situation.wanted = 3;
    situation.view.answered.remove("c1-nats-4");
    assert_eq!(reason(&decide(&situation)), "StreamsUnknown");
}

#[test]
fn a_declared_server_that_another_hand_took_away_comes_back_and_is_not_forgotten() {
    let mut situation = sound(3);
    situation.replicas = 2;
    situation.servers.pop();
    let meta = situation.view.meta.as_mut().unwrap();
    meta.peers[1].offline = true;
    assert!(matches!(decide(&situation), Step::Scale { to: 3, .. }));
}

#[test]
fn servers_that_lost_their_majority_to_another_hand_come_back_at_once() {
    for left in [0, 1] {
        let mut situation = sound(5);
        situation.replicas = left;
        situation.servers.truncate(left as usize);
        for server in &mut situation.servers {
            server.state = State::Unhealthy("JetStream has no leader".to_owned());
        }
        situation.view = View::default();
        assert!(matches!(decide(&situation), Step::Scale { to: 5, .. }), "{left}");
    }
    // With a majority, and with a stream whose copies are on both that are gone: its last one alone is not well.
    let mut situation = sound(5);
    situation.replicas = 3;
    situation.servers.truncate(3);
    situation.servers[2].state = State::Unhealthy("the stream has no leader".to_owned());
    assert!(matches!(decide(&situation), Step::Scale { to: 5, .. }));
    let mut growing = sound(3);
    growing.wanted = 5;
    assert!(
        matches!(decide(&growing), Step::Scale { to: 4, .. }),
        "one at a time, where nobody else was at work"
    );
    growing.view.meta = None;
    assert_eq!(reason(&decide(&growing)), "NoMetaLeader");

    let mut starting = sound(5);
    starting.servers[0].state = State::Unhealthy("starting".to_owned());
    starting.view = View::default();
    assert_eq!(reason(&decide(&starting)), "ServerUnhealthy", "all are there");
}

#[test]
fn servers_that_another_hand_adds_to_a_single_one_go_at_once() {
    let mut situation = sound(3);
    situation.wanted = 1;
    situation.view.meta = None;
    situation.servers[2].state = State::Unhealthy("starting".to_owned());
    assert!(matches!(decide(&situation), Step::Scale { to: 1, .. }));
}

#[test]
fn a_server_that_has_gone_with_a_stream_comes_back() {
    let mut situation = sound(3);
    let confirmed = |situation: &Situation, streams: &[&str]| {
        let streams = streams.iter().map(|name| (*name).to_owned()).collect();
        confirm(
            situation,
            "c1-nats-3",
            Words::new(Reason::ScalingDown, "gone".to_owned()),
            &streams,
        )
    };
    assert!(matches!(confirmed(&situation, &["orders"]), Step::Forget { .. }));
    assert!(matches!(
        confirmed(&situation, &["orders", "new"]),
        Step::Scale { to: 4, .. }
    ));
    // One copy of three is left, and cannot lead.
    situation.view.groups[0].led = None;
    situation.view.groups[0].servers = ["c1-nats-0".to_owned()].into();
    assert!(matches!(confirmed(&situation, &["orders"]), Step::Scale { to: 4, .. }));
}

#[test]
fn a_set_that_is_missing_begins_with_as_many_servers_as_there_were() {
    let plan = planned(three());
    let mut declared = cluster(three());
    let pods = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(dereference::most_servers(&declared, &plan, &[]), 3);
    assert_eq!(dereference::most_servers(&declared, &plan, &pods(&["c1-nats-4"])), 5);
    assert_eq!(
        dereference::most_servers(&declared, &plan, &pods(&["c1-nats-9000", "other-7"])),
        5
    );
    declared.status = Some(serde_json::from_value(json!({"managed": {"replicas": 4}})).unwrap());
    assert_eq!(dereference::most_servers(&declared, &plan, &[]), 4);
    let alone = Plan { replicas: 1, ..plan };
    assert_eq!(dereference::most_servers(&declared, &alone, &pods(&["c1-nats-2"])), 1);
}

#[test]
fn servers_with_an_old_client_password_restart_before_one_goes() {
    let mut situation = outdated(sound(5));
    situation.wanted = 3;
    assert_eq!(restarted(&decide(&situation)), "c1-nats-4");
}

#[test]
fn a_lost_secret_of_the_clients_is_made_again_with_the_same_password() {
    let resources = build(&planned(three()), 3, None);
    let mut live = dereference::Live {
        servers: None,
        client_secret: None,
        server_secret: Some(resources.server_secret),
    };
    assert_eq!(dereference::passwords(&live).unwrap(), planned(three()).passwords);
    let mut changed = resources.client_secret;
    let data = changed.data.as_mut().unwrap();
    data.insert("password".to_owned(), k8s_openapi::ByteString(b"changed1".to_vec()));
    live.client_secret = Some(changed.clone());
    assert_eq!(
        dereference::passwords(&live).unwrap().client,
        "changed1",
        "a person's word"
    );
    changed.data = None;
    live.client_secret = Some(changed);
    assert_eq!(dereference::passwords(&live).unwrap().client, "pclient1");
}

#[test]
fn what_is_open_to_read_does_not_tell_a_password_by_trying() {
    let hashes = |system: &str| {
        let mut plan = planned(three());
        plan.passwords.system = system.to_owned();
        let servers = build(&plan, 3, None).servers;
        let pods = servers
            .spec
            .clone()
            .unwrap()
            .template
            .metadata
            .unwrap()
            .annotations
            .unwrap();
        let on_set = servers.annotations()["fanout.openfactory.io/read-at-start"].clone();
        (on_set, pods[names::CONFIGURATION].clone())
    };
    let (one, other) = (hashes("psystem1"), hashes("psystem2"));
    assert!(one.0 != other.0 && one.1 != other.1);
}

#[test]
fn the_operators_requests_outlive_the_clients_password() {
    let secret = build(&planned(three()), 3, None).server_secret.data.unwrap();
    let accounts = String::from_utf8(secret["accounts.conf"].0.clone()).unwrap();
    assert!(
        accounts.contains(r#"{user: "client", password: "pclient1"}, {user: "operator", password: "psystem1"}"#),
        "{accounts}"
    );
}

#[test]
fn a_pod_of_another_owner_is_no_server() {
    let mut set = build(&planned(three()), 3, None).servers;
    set.metadata.uid = Some("set".to_owned());
    let pod = |owner: Value| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "c1-nats-0", "ownerReferences": owner}})).unwrap()
    };
    let by = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": uid, "controller": true}]);
    assert!(dereference::belongs(&pod(by("set")), &set));
    assert!(!dereference::belongs(&pod(by("former")), &set));
    assert!(!dereference::belongs(&pod(json!([])), &set));
}

#[test]
fn servers_with_lost_passwords_are_left_to_a_person() {
    let mut situation = outdated(sound(3));
    situation.servers[2].shares_passwords = false;
    assert_eq!(reason(&decide(&situation)), "ServerPasswordsLost");
}

#[test]
fn a_stream_in_the_memory_of_one_server_holds_its_restart() {
    let mut situation = outdated(sound(3));
    situation.view = view(3, &[("scratch", 1, "memory", &[2])]);
    assert_eq!(reason(&decide(&situation)), "StreamWouldBeLost");
    situation.view = view(3, &[("scratch", 1, "file", &[2])]);
    assert_eq!(restarted(&decide(&situation)), "c1-nats-2");
}

#[test]
fn more_servers_join_one_at_a_time() {
    let mut situation = sound(3);
    situation.wanted = 5;
    assert!(matches!(decide(&situation), Step::Scale { to: 4, .. }));
    situation.replicas = 4;
    assert_eq!(reason(&decide(&situation)), "ServerStarting");
    situation.servers = sound(4).servers;
    situation.view.answered = sound(4).view.answered;
    assert_eq!(
        reason(&decide(&situation)),
        "ServerJoining",
        "the others do not know it yet"
    );
    situation.view = sound(4).view;
    assert!(matches!(decide(&situation), Step::Scale { to: 5, .. }));
}

#[test]
fn a_server_goes_only_when_others_have_all_that_it_has() {
    let mut situation = sound(5);
    situation.wanted = 3;
    assert!(matches!(decide(&situation), Step::Scale { to: 4, .. }));
    situation.view = view(5, &[("a", 3, "file", &[0, 1, 2]), ("b", 3, "file", &[1, 2, 4])]);
    match decide(&situation) {
        Step::Move { stream, from, .. } => assert_eq!((stream.as_str(), from.as_str()), ("b", "c1-nats-4")),
        other => panic!("{other:?}"),
    }
    situation.view = view(5, &[("one", 1, "file", &[4])]);
    assert_eq!(reason(&decide(&situation)), "StreamNotReplicated");
    situation.view = view(5, &[("five", 5, "file", &[0, 1, 2, 3, 4])]);
    assert_eq!(reason(&decide(&situation)), "StreamReplicas");
}

#[test]
fn a_server_that_has_gone_is_taken_out_of_the_others_list() {
    let mut situation = sound(4);
    situation.wanted = 3;
    situation.replicas = 3;
    situation.servers[3].state = State::Stopping;
    assert_eq!(reason(&decide(&situation)), "ServerStopping");
    situation.servers.pop();
    let meta = situation.view.meta.as_mut().unwrap();
    meta.peers[2] = Peer {
        name: "c1-nats-3".to_owned(),
        current: false,
        offline: true,
    };
    match decide(&situation) {
        Step::Forget { server, .. } => assert_eq!(server, "c1-nats-3"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_of_another_version_than_its_tag_is_not_called_ready() {
    let mut situation = sound(3);
    situation.version = Some("2.12.2".to_owned());
    assert_eq!(reason(&decide(&situation)), "VersionDiffers");
    situation.version = Some("2.12.10".to_owned());
    assert_eq!(reason(&decide(&situation)), "VersionDiffers");
    for of_it in [None, Some("2.12.1-alpine".to_owned())] {
        situation.version = of_it;
        assert_eq!(decide(&situation), Step::Settled);
    }
}

#[test]
fn scaling_changes_no_pod_and_a_version_or_a_limit_does() {
    let template = |managed: Value| {
        let plan = planned(managed);
        build(&plan, plan.replicas, None).servers.spec.unwrap().template
    };
    let mut five = three();
    five["replicas"] = json!(5);
    assert_eq!(template(three()), template(five));
    for (field, value) in [("version", json!("2.12.2")), ("maxPayloadBytes", json!(2048))] {
        let mut other = three();
        other[field] = value;
        assert_ne!(template(three()), template(other), "{field}");
    }
}

#[test]
fn a_template_stays_until_somebody_declares_another() {
    let plan = planned(three());
    let mut live = build(&plan, 3, None).servers;
    let ours = json!([{"manager": "fanout-operator", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:annotations": {"f:fanout.openfactory.io/template": {}}}}}]);
    live.metadata.managed_fields = serde_json::from_value(ours).unwrap();
    // As an older operator would have made it.
    let template = live.spec.as_mut().map(|spec| &mut spec.template).unwrap();
    template.spec.as_mut().unwrap().termination_grace_period_seconds = Some(7);
    let text = json!(template).to_string();
    live.annotations_mut()
        .insert("fanout.openfactory.io/template".to_owned(), text);
    let grace = |plan: &Plan, live: &StatefulSet| {
        let servers = build(plan, 3, Some(live)).servers;
        servers
            .spec
            .unwrap()
            .template
            .spec
            .unwrap()
            .termination_grace_period_seconds
    };
    assert_eq!(grace(&plan, &live), Some(7));
    let mut five = three();
    five["replicas"] = json!(5);
    assert_eq!(grace(&planned(five), &live), Some(7), "scaling restarts nobody");
    let mut other = planned(three());
    (other.generation, other.declared) = (2, "other".to_owned());
    assert_eq!(grace(&other, &live), Some(60));
    let mut rotated = planned(three());
    rotated.passwords.client = "pother11".to_owned();
    assert_eq!(grace(&rotated, &live), Some(60));
    live.metadata.managed_fields = None;
    assert_eq!(grace(&plan, &live), Some(60), "another hand's word");
}

#[test]
fn a_server_that_cannot_run_may_always_be_evicted_and_one_that_can_if_no_other_is_away() {
    for replicas in [1, 3] {
        let mut managed = three();
        managed["replicas"] = json!(replicas);
        let budget = build(&planned(managed), replicas, None).disruption_budget.spec.unwrap();
        assert_eq!(budget.unhealthy_pod_eviction_policy.as_deref(), Some("AlwaysAllow"));
        assert_eq!((json!(budget.max_unavailable), budget.min_available), (json!(1), None));
    }
}

#[test]
fn passwords_are_in_secrets_alone() {
    let resources = build(&planned(three()), 3, None);
    let open = json!([
        resources.config,
        resources.servers,
        resources.service,
        resources.headless
    ])
    .to_string();
    for password in ["pclient1", "psystem1", "proute11"] {
        assert!(!open.contains(password), "{password}");
    }
    let client = resources.client_secret.data.unwrap();
    assert_eq!(client.keys().collect::<Vec<_>>(), ["password", "username"]);
    let server = resources.server_secret.data.unwrap();
    let routes = String::from_utf8(server["cluster.conf"].0.clone()).unwrap();
    assert!(
        routes.contains("nats://route:proute11@c1-nats-2.c1-nats-headless.plant.svc:6222"),
        "{routes}"
    );
    assert!(!format!("{:?}", planned(three())).contains("proute11"));
}

#[test]
fn a_platform_that_gives_users_and_groups_itself_gets_servers_without_any() {
    let security = |plan: &Plan| {
        let pod = build(plan, 3, None).servers.spec.unwrap().template.spec.unwrap();
        json!(pod.security_context)
    };
    let mut with = security(&planned(three()));
    let without = security(&Plan {
        security_ids: false,
        ..planned(three())
    });
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(with.as_object_mut().unwrap().remove(id), Some(json!(65532)), "{id}");
    }
    assert_eq!(without, with, "all else stays");
    assert_eq!(without["runAsNonRoot"], true);
    assert_eq!(without["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn a_store_leaves_a_tenth_of_its_volume_free() {
    let storage = planned(three()).jet_stream.unwrap();
    assert_eq!(storage.max_file, (10_u64 << 30) / 10 * 9);
    let config = build(&planned(three()), 3, None).config.data.unwrap();
    assert!(
        config["nats.conf"].contains("max_file_store: 9663676416\n"),
        "{config:?}"
    );
    let core = build(&planned(json!({"replicas": 1, "image": "nats:x"})), 1, None);
    let text = &core.config.data.unwrap()["nats.conf"];
    assert!(!text.contains("jetstream") && !text.contains("cluster"), "{text}");
    assert_eq!(core.servers.spec.unwrap().volume_claim_templates, None);
}

#[test]
fn what_admission_refuses_is_replaced_by_what_the_operator_makes_now() {
    let mut live = build(&planned(three()), 3, None).servers;
    live.metadata.generation = Some(1);
    live.metadata.managed_fields = Some(
        serde_json::from_value(json!([{
            "manager": crate::reconcile::apply::MANAGER, "operation": "Apply", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {"f:fanout.openfactory.io/template": {}}}},
        }]))
        .unwrap(),
    );
    let without = Plan {
        security_ids: false,
        ..planned(three())
    };
    let user = |live: &StatefulSet| {
        let pod = build(&without, 3, Some(live))
            .servers
            .spec
            .unwrap()
            .template
            .spec
            .unwrap();
        pod.security_context.unwrap().run_as_user
    };
    let counted = |replicas: i32, generation: i64| {
        serde_json::from_value(json!({"replicas": replicas, "observedGeneration": generation})).unwrap()
    };
    for (replicas, generation) in [(1, 1), (0, 0)] {
        live.status = counted(replicas, generation);
        assert_eq!(
            user(&live),
            Some(65532),
            "servers that run keep what they have, and what is not counted yet"
        );
    }
    live.status = counted(0, 1);
    assert_eq!(user(&live), None);
}
