//! What a client believes, and where it logs in.

use super::*;

#[test]
fn what_others_send_changes_nothing_and_is_told() {
    let mut world = World::new(one());
    let (_queue, _begun) = world.subscribe(&["a"]);
    world.told();
    let (token, nonce) = world.ask("C1");
    let ring = Announcement {
        rings: vec![view(99, Phase::InUse, &["evil"])],
        left: 99,
        ..world.announcement("another nonce")
    };
    let old = Body::Announcement(ring.clone().sealed());
    let elsewhere = Body::Announcement(Announcement {
        ring: "x".to_owned(),
        ..ring
    });
    let other = Signer::from_seed(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    for (signer, body, why) in [
        (&world::signer(), &old, "nonce"),
        (&world::signer(), &elsewhere, "of the ring"),
        (&other, &old, "signature"),
    ] {
        let signed = signer.sign(body).unwrap();
        world.send_alone("C1", &format!("g{token}"), signed);
        let told = world.told();
        let is_told = |event: &Event| matches!(event, Event::Unbelieved { reason, .. } if reason.contains(why));
        assert!(told.iter().any(is_told), "{why}: {told:?}");
    }
    assert_eq!(world.state.roles("a")[0].epoch, 7);
    let sound = Body::Announcement(world.announcement(&nonce));
    let sound = world.signer.sign(&sound).unwrap();
    world.send_alone("C1", &format!("g{token}"), sound);
    assert!(
        world.told().is_empty(),
        "the answer itself is still awaited, and believed"
    );
}

#[test]
fn proofs_of_another_cluster_or_question_prove_nothing() {
    let mut world = World::new(one());
    world.silent = world.pods.clone();
    let (_queue, mut begun) = world.subscribe(&["a"]);
    let (token, nonce) = world.round("C1");
    let proof = |pod: &str, nonce: &str, cluster: &str| {
        Body::Ready(Ready {
            ring: RING.to_owned(),
            nonce: nonce.to_owned(),
            pod: pod.to_owned(),
            cluster: cluster.to_owned(),
        })
    };
    for body in [
        proof("p-0", "old", "C1"),
        proof("p-0", &nonce, "C2"),
        proof("p-1", &nonce, "C1"),
    ] {
        let signed = world.signer.sign(&body).unwrap();
        world.send("C1", &format!("r{token}"), signed);
    }
    assert!(begun.try_recv().is_err());
    let signed = world.signer.sign(&proof("p-0", &nonce, "C1")).unwrap();
    world.send("C1", &format!("r{token}"), signed);
    assert!(begun.try_recv().unwrap().is_ok());
    assert_eq!(world.gaps(), []);
}

#[test]
fn an_announcement_never_makes_a_client_log_in_elsewhere() {
    let login_of = |_: &str| Some(Login::user("u", "p"));
    let mut world = World::with(one(), Limits::default(), Repeats::Drop, Arc::new(login_of));
    let (_queue, mut begun) = world.subscribe(&["a"]);
    let refused = begun.try_recv().unwrap();
    assert!(
        matches!(&refused, Err(SubscribeError::HostRefused { cluster, .. }) if cluster == "C1"),
        "{refused:?}"
    );
    let told = world.told();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Refused { server, .. } if server == "nats://C1"))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Gap(gap) if gap.reason == GapReason::HostRefused))
    );
}
