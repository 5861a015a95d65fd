//! Keeps a topic as declared: creates it, changes what differs, and looks again.

use crds::KafkaChannel;
use crds::kafka_channel::{CreationState, DifferingSetting, Topic, TopicCreation};
use forwarder_core::document::KafkaConnection;
use jiff::Timestamp;
use kube::{Api, Resource as _};

use super::creation::{self, begun, done, has_begun, record, recorded};
use super::decide::{self, Block, Plan, Step, decide};
use super::inspect;
use super::seen::{Failure, Kind, Seen, SeenTopic, TopicId};
use super::status::Facts;
use super::{ReconcileError, apply, with_kafka};
use crate::context::Context;
use crate::reconcile::credentials::Secrets;

/// What is needed to keep a topic.
pub(super) struct Keeper<'a> {
    pub(super) context: &'a Context,
    pub(super) api: &'a Api<KafkaChannel>,
    pub(super) channel: &'a KafkaChannel,
    pub(super) secrets: &'a Secrets,
    pub(super) now: Timestamp,
}

impl Keeper<'_> {
    /// Looks at the topic, changes what is not as declared, and looks again. The record of its creation besides, as it is now.
    pub(super) async fn keep(&self) -> Result<(Facts, Option<TopicCreation>), ReconcileError> {
        let mut creation = recorded(self.channel).cloned();
        let asks_for_id = self.asks_for_id(creation.as_ref());
        let looked = self.with_kafka(move |topic, connection| inspect::inspect(&connection, &topic, asks_for_id));
        let mut seen = match looked.await? {
            Ok(seen) => seen,
            Err(facts) => return Ok((facts, creation)),
        };
        let held = self.held();
        let mut plan = decide(&self.channel.spec.topic, &seen, &held);
        if let [create @ Step::Create { .. }] = plan.steps.as_slice() {
            let (made, record) = self.create(create.clone(), &seen, creation).await?;
            creation = record;
            match made {
                Ok(()) => {}
                Err(facts) => return Ok((facts, creation)),
            }
            plan.steps.clear();
            let held_now = held.clone();
            let asks_for_id = self.asks_for_id(creation.as_ref());
            let looked = self.with_kafka(move |topic, connection| {
                inspect::inspect_until(&connection, &topic, asks_for_id, |seen| {
                    let is_told = seen.topic.as_ref().is_none_or(|found| found.id != TopicId::NotYet);
                    decide::decide(&topic, seen, &held_now).steps.is_empty() && (is_told || !asks_for_id)
                })
            });
            seen = match looked.await? {
                Ok(seen) => seen,
                Err(facts) => return Ok((facts, creation)),
            };
            plan = decide::decide(&self.channel.spec.topic, &seen, &held);
            if seen.topic.is_none() {
                return Ok((Facts::Seen { seen, plan }, creation));
            }
        }
        creation = match self.settled(creation, &seen).await? {
            Ok(creation) => creation,
            Err((facts, creation)) => return Ok((facts, creation)),
        };
        let asks_for_id = self.asks_for_id(creation.as_ref());
        Ok((self.change(seen, plan, held, asks_for_id).await?, creation))
    }

    /// Creates the topic between two records. The record besides, as it is then.
    async fn create(
        &self,
        create: Step,
        seen: &Seen,
        old: Option<TopicCreation>,
    ) -> Result<(Result<(), Facts>, Option<TopicCreation>), ReconcileError> {
        let ask = |step: Step, intent| {
            self.with_kafka(move |topic, connection| apply::create(&connection, &topic.name, &step, intent))
        };
        // What is refused anyway leaves no trace.
        match ask(create.clone(), apply::Intent::Check).await? {
            Ok(true) => {}
            // Somebody was faster, or a broker is behind: the next look tells.
            Ok(false) => return Ok((Ok(()), old)),
            Err(facts) => return Ok((Err(facts), old)),
        }
        let creation = match old {
            Some(old) if has_begun(Some(&old), seen, self.now) => old,
            _ => {
                let creation = begun(seen, self.now);
                record(self.context, self.api, self.channel, Some(&creation)).await?;
                creation
            }
        };
        match ask(create.clone(), apply::Intent::Do).await? {
            Ok(true) => {
                let creation = done(&creation, seen, None);
                record(self.context, self.api, self.channel, Some(&creation)).await?;
                self.tell(&[create]).await;
                Ok((Ok(()), Some(creation)))
            }
            // Nobody knows whether they have heard it.
            Err(
                facts @ Facts::Failed(Failure {
                    kind: Kind::Unreachable,
                    ..
                }),
            ) => Ok((Err(facts), Some(creation))),
            refused => {
                record(self.context, self.api, self.channel, None).await?;
                Ok((refused.map(drop), None))
            }
        }
    }

    /// The record for the topic that is there.
    async fn settled(
        &self,
        creation: Option<TopicCreation>,
        seen: &Seen,
    ) -> Result<Result<Option<TopicCreation>, (Facts, Option<TopicCreation>)>, ReconcileError> {
        let (Some(old), Some(found)) = (&creation, &seen.topic) else {
            return Ok(Ok(creation));
        };
        // Later than the look: what counts as soon is soon indeed.
        let now = Timestamp::now();
        if old.state == CreationState::Done && !creation::gives_id(old, seen, found, now) {
            return Ok(Ok(creation));
        }
        // A cache may be behind a record that was completed since.
        let Some(current) = creation::current(self.api, self.channel).await? else {
            return Ok(Ok(None));
        };
        let new = match current.state {
            CreationState::Done if creation::gives_id(&current, seen, found, now) => {
                Some(done(&current, seen, Some(found)))
            }
            CreationState::Done => return Ok(Ok(Some(current))),
            CreationState::Begun => {
                let (begun, seen_now, found_now) = (current.clone(), seen.clone(), found.clone());
                let is_outcome = self.with_kafka(move |topic, connection| {
                    is_outcome(&connection, &topic, &begun, &seen_now, &found_now, now)
                });
                match is_outcome.await? {
                    Ok(true) => Some(done(&current, seen, Some(found))),
                    Ok(false) => None,
                    Err(facts) => return Ok(Err((facts, creation))),
                }
            }
        };
        record(self.context, self.api, self.channel, new.as_ref()).await?;
        Ok(Ok(new))
    }

    /// Carries out the plan, and looks until the brokers show it.
    async fn change(
        &self,
        seen: Seen,
        plan: Plan,
        held: Vec<DifferingSetting>,
        asks_for_id: bool,
    ) -> Result<Facts, ReconcileError> {
        let asks = matches!(plan.block, Some(Block::UnknownSettings(_))) && !plan.unasked.is_empty();
        if plan.steps.is_empty() && !asks {
            return Ok(Facts::Seen { seen, plan });
        }
        let changed = self.with_kafka(move |topic, connection| {
            let mut plan = plan;
            let (mut seen, mut held) = (seen, held);
            let steps = std::mem::take(&mut plan.steps);
            for step in &steps {
                apply::change(&connection, &topic.name, step, &topic.config)?;
            }
            if !steps.is_empty() {
                seen = inspect::inspect_until(&connection, &topic, asks_for_id, |seen| {
                    plan = decide::decide(&topic, seen, &held);
                    plan.steps.is_empty()
                })?;
                // What they took and do not show is not written again.
                if let (Some(found), true) = (&seen.topic, steps.iter().any(Step::configures)) {
                    held = decide::differing(&topic.config, found);
                    plan = decide::decide(&topic, &seen, &held);
                }
            }
            if matches!(plan.block, Some(Block::UnknownSettings(_))) && !plan.unasked.is_empty() {
                plan.refused = apply::refused_settings(&connection, &topic.name, &plan.unasked, &topic.config)?;
            }
            Ok((seen, plan, steps))
        });
        Ok(match changed.await? {
            Ok((seen, plan, steps)) => {
                self.tell(&steps).await;
                Facts::Seen { seen, plan }
            }
            Err(facts) => facts,
        })
    }

    fn asks_for_id(&self, creation: Option<&TopicCreation>) -> bool {
        creation::asks_for_id(self.channel, creation, self.now)
    }

    /// What Kafka took before and holds differently.
    fn held(&self) -> Vec<DifferingSetting> {
        let status = self.channel.status.as_ref();
        status
            .map(|status| status.differing_settings.clone())
            .unwrap_or_default()
    }

    async fn tell(&self, steps: &[Step]) {
        for step in steps {
            let (reason, note) = step.told(&self.channel.spec.topic.name);
            self.context
                .events
                .normal(&self.channel.object_ref(&()), reason, note)
                .await;
        }
    }

    async fn with_kafka<T: Send + 'static>(
        &self,
        work: impl FnOnce(Topic, KafkaConnection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Result<T, Facts>, ReconcileError> {
        with_kafka(self.context, self.channel, self.secrets, work).await
    }
}

/// Whether the topic is what came of a creation that was begun. Blocks.
pub(super) fn is_outcome(
    connection: &KafkaConnection,
    topic: &Topic,
    begun: &TopicCreation,
    seen: &Seen,
    found: &SeenTopic,
    now: Timestamp,
) -> Result<bool, Failure> {
    let config = apply::describe(connection, &topic.name)?;
    Ok(creation::can_be_outcome(begun, topic, seen, found, &config, now)
        && inspect::is_untouched(connection, &topic.name, found.partitions)?)
}
