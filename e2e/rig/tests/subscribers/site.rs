//! A stage with a beacon, and a subscriber's view of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::Subscriber;
use e2e_rig::forwarder::{self, BEACON, Forwarder};
use e2e_rig::nats::Nats;
use e2e_rig::stage::{SOON, Stage};
use e2e_rig::wait;
use forwarder_beacon::{Announcement, Body, Digest, Phase, Signer, Subjects, Verifier};
use forwarder_core::document::{Config, PublishMode, RingConfig};
use forwarder_core::status::{BeaconStatus, Status};
use futures::StreamExt as _;
use nkeys::KeyPair;
use tempfile::TempDir;

/// What tells the ring of a site from others.
pub(crate) const RING: &str = "the-ring-of-a-test";

/// A stage whose ring has a beacon.
pub(crate) struct Site {
    pub(crate) stage: Stage,
    /// What signs for the forwarders.
    pub(crate) signer: Signer,
    pub(crate) subjects: Subjects,
    verifier: Verifier,
    dir: TempDir,
}

impl Site {
    /// Core clusters, without records in streams.
    pub(crate) async fn new(clusters: usize) -> Self {
        Self::on(Stage::new(PublishMode::Core, clusters).await)
    }

    pub(crate) fn on(stage: Stage) -> Self {
        let seed = KeyPair::new_user().seed().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), &seed).unwrap();
        let signer = Signer::from_seed(&seed).unwrap();
        Self {
            stage,
            verifier: Verifier::of(&signer.public_key()).unwrap(),
            signer,
            subjects: Subjects::new(BEACON),
            dir,
        }
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// A ring of the first so many clusters, with the beacon.
    pub(crate) fn config(&self, epoch: u64, clusters: usize, grace: Duration) -> Config {
        let mut config = self.stage.config();
        config.ring.epoch = epoch;
        config.ring.clusters.truncate(clusters);
        config.ring.beacon = Some(forwarder::beacon(&self.key_file(), RING, grace));
        config
    }

    pub(crate) fn nats(&self, cluster: usize) -> &Nats {
        &self.stage.clusters[cluster].1
    }

    pub(crate) async fn client(&self, cluster: usize) -> async_nats::Client {
        self.nats(cluster).client().await.unwrap()
    }

    /// Asks for the announcement, as a subscriber does; none: nobody answers soon.
    pub(crate) async fn ask(&self, client: &async_nats::Client, nonce: &str) -> Option<Announcement> {
        let request = format!("{{\"nonce\":\"{nonce}\"}}");
        let asked = client.request(self.subjects.get(), request.into());
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()?;
        match self.verifier.open(&answer.payload).unwrap() {
            Body::Announcement(announcement) => Some(announcement),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an announcement that is so.
    pub(crate) async fn wait_announced(
        &self,
        client: &async_nats::Client,
        what: &str,
        is_it: impl Fn(&Announcement) -> bool,
    ) -> Announcement {
        wait::value(SOON, what, || async {
            let Some(announcement) = self.ask(client, "n").await else {
                anyhow::bail!("nobody answers");
            };
            anyhow::ensure!(is_it(&announcement), "it says {announcement:?}");
            Ok(Some(announcement))
        })
        .await
        .unwrap()
    }

    pub(crate) async fn digests(&self, client: &async_nats::Client) -> Subscriber {
        let digests = client.subscribe(self.subjects.digest()).await.unwrap();
        client.flush().await.unwrap();
        digests
    }

    /// The next digest that a forwarder has signed.
    pub(crate) async fn next_digest(&self, digests: &mut Subscriber) -> Digest {
        loop {
            let message = tokio::time::timeout(SOON, digests.next()).await.unwrap().unwrap();
            if let Ok(Body::Digest(digest)) = self.verifier.open(&message.payload) {
                return digest;
            }
        }
    }

    pub(crate) fn open(&self, signed: &[u8]) -> Body {
        self.verifier.open(signed).unwrap()
    }
}

/// Its rings, each with its phase.
pub(crate) fn phases(announcement: &Announcement) -> Vec<(u64, Phase)> {
    announcement.rings.iter().map(|ring| (ring.epoch, ring.phase)).collect()
}

pub(crate) async fn status(forwarder: &Forwarder) -> anyhow::Result<Status> {
    Ok(serde_json::from_value(forwarder.status().await?)?)
}

/// Waits until a forwarder says so of its beacon.
pub(crate) async fn wait_beacon(
    forwarder: &Forwarder,
    what: &str,
    is_it: impl Fn(&BeaconStatus) -> bool,
) -> BeaconStatus {
    wait::value(SOON, what, || async {
        let beacon = status(forwarder).await?.beacon.unwrap_or_default();
        anyhow::ensure!(is_it(&beacon), "it says {beacon:?}");
        Ok(Some(beacon))
    })
    .await
    .unwrap()
}

/// Declares a ring to all of them.
pub(crate) fn declare(forwarders: &[&Forwarder], ring: &RingConfig) {
    for forwarder in forwarders {
        forwarder.declare_ring(ring).unwrap();
    }
}
