//! An operator that is killed right after each write that it makes.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Site;
use crate::kubernetes::{Call, Moment};

/// The kills that are under way; see [`Site::kill_after_each_write`].
pub struct Kills {
    stop: oneshot::Sender<()>,
    done: JoinHandle<Vec<Call>>,
}

impl Kills {
    /// Ends them, and yields the writes after which the operator was killed. The operator that there is then stays.
    pub async fn end(self) -> Vec<Call> {
        drop(self.stop);
        self.done.await.unwrap()
    }
}

impl Site {
    /// From now on each life of the operator ends with its first write, Leases and Events aside, at this moment; then it is started again
    /// under its name, so its Lease is its own still. Two lives that write the same get nowhere: a condition that is waited for then never
    /// holds. The site must be behind a proxy.
    pub fn kill_after_each_write(&self, moment: Moment) -> Kills {
        let (operator, proxy) = (Arc::clone(&self.operator), Arc::clone(self.api.as_ref().unwrap()));
        let (stop, mut stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            let mut kills = Vec::new();
            loop {
                let last = proxy.arm(moment);
                if !kills.is_empty() {
                    operator.lock().await.start_again().unwrap();
                }
                let last = tokio::select! {
                    last = last => last.unwrap(),
                    _ = &mut stopped => {
                        proxy.open();
                        return kills;
                    }
                };
                operator.lock().await.kill9().unwrap();
                kills.push(last);
            }
        });
        Kills { stop, done }
    }
}
