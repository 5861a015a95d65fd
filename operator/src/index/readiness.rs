//! What a replica must have read before it is ready.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;
use kube::runtime::reflector::{Lookup, Store};

/// What must have been read from the API server once. What was read stays, also while the API server is away.
#[derive(Default)]
pub struct Readiness(Mutex<Vec<Part>>);

struct Part {
    what: &'static str,
    is_read: Box<dyn Fn() -> bool + Send>,
}

impl Readiness {
    /// From now on `what` must have been read.
    pub fn wants(&self, what: &'static str, is_read: impl Fn() -> bool + Send + 'static) {
        let is_read = Box::new(is_read);
        self.parts(|parts| parts.push(Part { what, is_read }));
    }

    /// From now on a controller's store must have been filled once.
    pub fn wants_store<K>(&self, what: &'static str, store: Store<K>)
    where
        K: Lookup<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        self.wants(what, move || {
            matches!(store.wait_until_ready().now_or_never(), Some(Ok(())))
        });
    }

    /// Why the replica is not ready, in a sentence; none: it is.
    pub fn fault(&self) -> Option<String> {
        let missing = self.parts(|parts| {
            let missing = parts.iter().filter(|part| !(part.is_read)());
            missing.map(|part| part.what).collect::<Vec<_>>()
        });
        (!missing.is_empty()).then(|| {
            format!(
                "the operator has not read from the API server yet: {}; its log says why",
                missing.join(", ")
            )
        })
    }

    fn parts<T>(&self, with: impl FnOnce(&mut Vec<Part>) -> T) -> T {
        // The list is whole after every statement, so a panic elsewhere has left nothing half done.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crds::NatsCluster;
    use kube::runtime::{reflector, watcher};

    use super::*;

    #[test]
    fn a_replica_is_ready_when_all_that_it_wants_was_read() {
        let readiness = Readiness::default();
        assert_eq!(readiness.fault(), None);
        let rings = Arc::new(AtomicBool::new(false));
        let is_read = Arc::clone(&rings);
        readiness.wants("rings", move || is_read.load(Ordering::Relaxed));
        let (store, mut writer) = reflector::store::<NatsCluster>();
        readiness.wants_store("NatsClusters", store);
        let fault = readiness.fault().unwrap();
        assert!(fault.contains("rings, NatsClusters"), "{fault}");

        rings.store(true, Ordering::Relaxed);
        let fault = readiness.fault().unwrap();
        assert!(!fault.contains("rings") && fault.contains("NatsClusters"), "{fault}");

        writer.apply_watcher_event(&watcher::Event::Init);
        assert!(readiness.fault().is_some(), "the list is still being read");
        writer.apply_watcher_event(&watcher::Event::InitDone);
        assert_eq!(readiness.fault(), None, "an empty list was read as well");
    }
}
