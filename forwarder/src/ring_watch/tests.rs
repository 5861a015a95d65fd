use std::path::Path;

use forwarder_core::document::Config;

use super::*;

const DOCUMENT: &str = "
source: {connection: {bootstrapServers: ['k:9092']}, topic: t, group: g}
ring: {epoch: 3, clusters: [{name: C1, servers: ['nats://c1:4222']}]}
";

/// Far longer than two looks and a wait for the API take.
const SOON: Duration = Duration::from_secs(30);

fn document() -> Checked<Document> {
    Checked::from_yaml(DOCUMENT).unwrap().split().0
}

/// Writes a ring with a member whose password is in `password`.
fn declare(file: &Path, epoch: u64, password: &Path) {
    let mut ring = Config::from_yaml(DOCUMENT).unwrap().ring;
    ring.epoch = epoch;
    ring.clusters[0].auth = Some(forwarder_core::document::NatsAuth::Token {
        file: password.to_owned(),
    });
    std::fs::write(file, ring.to_yaml().unwrap()).unwrap();
}

async fn until<T: Clone>(channel: &mut watch::Receiver<T>, is_it: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(SOON, channel.wait_for(is_it)).await;
    found.unwrap().unwrap().clone()
}

#[tokio::test]
async fn the_first_ring_is_used_at_once_and_each_later_one_with_its_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ring.yaml");
    let origin = RingOrigin::Apart {
        file: file.clone(),
        config_map: None,
    };
    let (watch, mut rings, mut outlook) = RingWatch::new(&document(), origin);
    let _watching = tokio::spawn(watch.run());
    let is_epoch = |epoch: u64| {
        move |ring: &Option<Arc<Checked<RingConfig>>>| ring.as_ref().is_some_and(|ring| ring.epoch == epoch)
    };

    let shown = until(&mut outlook, |outlook| outlook.file_fault.is_some()).await;
    assert!(shown.why_none().contains("ring.yaml"), "{shown:?}");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    declare(&file, 1, &first);
    until(&mut rings, is_epoch(1)).await;

    declare(&file, 2, &first);
    let shown = until(&mut outlook, |outlook| !outlook.waits_for.is_empty()).await;
    assert_eq!((shown.declared, shown.waits_for), (Some(2), vec![first]));
    // The newest counts, whatever became of what the one before it waits for.
    declare(&file, 3, &second);
    let shown = until(&mut outlook, |outlook| outlook.waits_for == [second.clone()]).await;
    assert_eq!(shown.declared, Some(3));
    assert!(is_epoch(1)(&rings.borrow()), "the ring in use goes on");
    std::fs::write(&second, "hush").unwrap();
    until(&mut rings, is_epoch(3)).await;
    until(&mut outlook, |outlook| outlook.waits_for.is_empty()).await;
}

#[tokio::test]
async fn a_ring_that_came_with_the_rest_is_there_from_the_start() {
    let (_, ring) = Checked::from_yaml(DOCUMENT).unwrap().split();
    let origin = RingOrigin::Given {
        ring: Box::new(ring),
        watched: None,
    };
    let (watch, rings, outlook) = RingWatch::new(&document(), origin);
    assert_eq!(rings.borrow().as_ref().map(|ring| ring.epoch), Some(3));
    assert_eq!(outlook.borrow().refused, None);
    drop(watch);
}
