//! Time for questions to Kafka: several partitions at once, and a share for each topic.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;

use super::context::KafkaConsumer;

/// How many partitions are asked about at once.
const AT_ONCE: usize = 16;

/// How long one question may take. The loop stands still meanwhile: publishers go on, the group is served by
/// librdkafka's own thread.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the questions about all partitions may take together, so that many partitions without a leader do not keep the
/// loop for minutes.
pub(super) const ALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The least that a question may take, however many there are.
pub(super) const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// The least that the questions about a topic may take, however many there are: a slow Kafka answers too. When the time is over, the
/// others have their turn later.
pub(super) const LEAST_SHARE: Duration = Duration::from_millis(500);

/// Asks for the watermarks of these partitions: the oldest offset, and one past the newest. The answers come in the same order.
///
/// Several are asked about at once, since the loop stands still meanwhile. An idle connection of librdkafka may take a second to send a
/// question (seen in 2.12), and then one after the other would take a second for each partition.
pub(super) fn watermarks(
    consumer: &KafkaConsumer,
    partitions: &[(&str, PartitionId)],
    patience: Duration,
) -> Vec<Result<(i64, i64), KafkaError>> {
    let until = Instant::now() + patience;
    let ask = |some: &[(&str, PartitionId)]| {
        let answers = some.iter().enumerate().map(|(asked, (topic, partition))| {
            // Each has its share of the time that is left, so that those that are not answered leave some for the others.
            let left = u32::try_from(some.len() - asked).unwrap_or(u32::MAX);
            let time = until.saturating_duration_since(Instant::now()) / left;
            consumer.fetch_watermarks(topic, partition.number(), time.clamp(LEAST_TIMEOUT, ASK_TIMEOUT))
        });
        answers.collect::<Vec<_>>()
    };
    if partitions.len() <= 1 {
        return ask(partitions);
    }
    let for_each_thread = partitions.len().div_ceil(AT_ONCE);
    thread::scope(|scope| {
        let asking: Vec<_> = partitions
            .chunks(for_each_thread)
            .map(|some| scope.spawn(move || ask(some)))
            .collect();
        let answers = asking.into_iter().flat_map(|asking| match asking.join() {
            Ok(answers) => answers,
            Err(panic) => resume_unwind(panic),
        });
        answers.collect()
    })
}

/// Time for questions about topics, one topic after the other.
pub(super) struct Shares {
    until: Instant,
    left: u32,
}

impl Shares {
    /// For so many topics together.
    pub(super) fn within(patience: Duration, topics: usize) -> Self {
        Self {
            until: Instant::now() + patience,
            left: u32::try_from(topics).unwrap_or(u32::MAX),
        }
    }

    /// The share of the next topic; `None`: nothing is left.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let share = share(self.until.saturating_duration_since(Instant::now()), self.left);
        self.left = self.left.saturating_sub(1);
        share
    }
}

/// The share of one of so many topics in the time that is left; `None`: nothing is left.
pub(super) fn share(left: Duration, topics: u32) -> Option<Duration> {
    (left > Duration::ZERO).then(|| (left / topics.max(1)).max(LEAST_SHARE))
}
