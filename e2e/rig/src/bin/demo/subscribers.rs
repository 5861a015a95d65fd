//! People who read records: each subscriber follows one asset by the client in Rust, wherever the ring puts it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e_rig::followers::{Followed, Followers};
use e2e_rig::verdict::Ledger;
use fanout_client::{Options, Pin};

/// After the observer has everything: how long the subscribers may still take.
const REST: Duration = Duration::from_secs(20);

/// The subscribers of a demo; none: nobody wants any.
pub(crate) struct Subscribers(Option<Followers>);

impl Subscribers {
    /// Subscribes to the first `number` assets. `servers`: any of the ring's. `clusters`: their names, by their places.
    pub(crate) async fn begin(
        pin: Pin,
        servers: &[String],
        ledger: Arc<Ledger>,
        number: u32,
        clusters: &[&str],
    ) -> Result<Self> {
        if number == 0 {
            return Ok(Self(None));
        }
        let client = Options::new(pin).connect(servers).await;
        let client = client.context("the subscribers failed to connect")?;
        let followers = Followers::begin(client, ledger, number, clusters).await?;
        Ok(Self(Some(followers)))
    }

    /// How many records they have read; none: there are no subscribers.
    pub(crate) fn read(&self) -> Option<u64> {
        self.0.as_ref().map(Followers::distinct)
    }

    /// Their judgement, once what is on the way has come.
    pub(crate) async fn settle(&self) -> Option<Followed> {
        let followers = self.0.as_ref()?;
        followers.wait_all(REST).await;
        Some(followers.judge())
    }
}

/// Whether a record was missed, or came out of order.
pub(crate) fn check(followed: Option<&Followed>) -> Result<()> {
    let Some(followed) = followed else { return Ok(()) };
    followed.verdict.check()?;
    anyhow::ensure!(followed.late == 0, "{followed}");
    Ok(())
}
