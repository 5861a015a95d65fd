//! An operator that is killed right after every write that it makes comes to where one comes that is left alone.

use anyhow::ensure;
use e2e_rig::kubernetes::{Call, Moment};
use e2e_rig::nats::Options;
use e2e_rig::site::{Site, State, differences};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;

use crate::figures::tell;
use crate::scenario;

/// A scenario, and the servers that it needs.
#[derive(Clone, Copy)]
enum Scenario {
    WithoutPods,
    WithPods,
}

impl Scenario {
    async fn site(self) -> Site {
        let options = match self {
            Self::WithoutPods => Options::default(),
            Self::WithPods => scenario::servers(),
        };
        Site::behind_proxy(PublishMode::Core, 3, options).await
    }

    /// What there is once all is done but the last, and then deletes it.
    async fn run(self, site: &Site) -> State {
        match self {
            Self::WithoutPods => scenario::without_pods(site).await,
            Self::WithPods => scenario::with_pods(site).await,
        }
        site.wait_quiet().await;
        let state = site.state().await;
        scenario::delete_all(site).await;
        state
    }
}

/// An operator that is left alone. The audit log must know every write of its, so none goes past the proxy.
async fn undisturbed(scenario: Scenario) -> State {
    let site = scenario.site().await;
    let (mut log, user) = site.audit().await;
    let state = scenario.run(&site).await;
    let writes: Vec<String> = site.api().take_writes().iter().map(Call::to_string).collect();
    let mut logged = 0;
    wait::eventually(SOON, "the audit log has all writes", || {
        for write in log.read().unwrap() {
            logged += usize::from(write.user == user && !write.is_aside() && write.code < 300);
        }
        let (logged, writes) = (logged, &writes);
        async move {
            ensure!(logged == writes.len(), "{logged} are logged, of {writes:#?}");
            Ok(true)
        }
    })
    .await
    .unwrap();
    tell(&format!("left alone: {} writes", writes.len()));
    state
}

/// One that is killed after each write.
async fn killed(scenario: Scenario, moment: Moment) -> State {
    let site = scenario.site().await;
    let kills = site.kill_after_each_write(moment);
    let state = scenario.run(&site).await;
    let kills = kills.end().await;
    tell(&format!("{moment:?}: {} kills", kills.len()));
    assert!(kills.len() > 20, "each write was to be followed by a kill: {kills:?}");
    state
}

fn assert_same(killed: &State, undisturbed: &State) {
    let differ = differences(killed, undisturbed);
    assert!(differ.is_empty(), "killed | undisturbed:\n{differ}");
}

#[tokio::test]
async fn killed_after_every_write_the_operator_comes_to_the_same_end() {
    let scenario = Scenario::WithoutPods;
    let (undisturbed, unanswered, answered) = tokio::join!(
        undisturbed(scenario),
        killed(scenario, Moment::Unanswered),
        killed(scenario, Moment::Answered)
    );
    assert_same(&unanswered, &undisturbed);
    assert_same(&answered, &undisturbed);
}

#[tokio::test]
async fn long_killed_after_every_write_while_records_flow() {
    let scenario = Scenario::WithPods;
    let undisturbed = undisturbed(scenario).await;
    for moment in [Moment::Unanswered, Moment::Answered] {
        assert_same(&killed(scenario, moment).await, &undisturbed);
    }
}
