//! What the outbox costs: thousands of lanes, confirmed by fences or by acks.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forwarder_core::delivery::deliverable::Deliverable;
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::outbox::{Backoff, Confirmation, Outbox, Outcome, Ticket};
use forwarder_core::delivery::partition::{Input, PartitionId};

const PARTITION: PartitionId = PartitionId::new(Input::FIRST, 0).unwrap();
const LANES: u64 = 10_000;
/// Records that a write of 64 KiB carries, and so a fence covers.
const BATCH: usize = 150;
const ROUND: usize = BATCH * 100;

struct Record {
    lane: u64,
    subject: Box<[u8]>,
}

impl Deliverable for Record {
    fn lane(&self) -> u64 {
        self.lane
    }

    fn subject(&self) -> &[u8] {
        &self.subject
    }

    fn tag(&self) -> Tag {
        Tag {
            partition: PARTITION,
            epoch: 1,
            offset: 0,
            sequence: 0,
        }
    }

    fn weight(&self) -> usize {
        self.subject.len()
    }
}

fn outbox(confirmation: Confirmation) -> Outbox<Record> {
    let backoff = Backoff {
        initial: 100_000,
        max: 10_000_000,
        attempts: None,
    };
    Outbox::new(confirmation, backoff)
}

/// Records of all assets in turn; confirmed ones are used again.
fn records() -> Vec<Record> {
    (0..ROUND as u64)
        .map(|number| Record {
            // Spread as a hash would.
            lane: (number % LANES).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            subject: format!("WTVB01-{:08}.Temperature", number % LANES).into_bytes().into(),
        })
        .collect()
}

fn lanes(c: &mut Criterion) {
    let mut group = c.benchmark_group("lanes");
    group.throughput(Throughput::Elements(ROUND as u64));

    let (mut outbox_of_fences, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    let mut waiting = records();
    group.bench_function("fences", |b| {
        b.iter(|| {
            for record in waiting.drain(..) {
                outbox_of_fences.push(record);
            }
            while !outbox_of_fences.is_empty() {
                for _ in 0..BATCH {
                    if outbox_of_fences.next(1).is_none() {
                        break;
                    }
                }
                outbox_of_fences.fence();
                outbox_of_fences.fence_passed(2, &mut outcome);
            }
            waiting.extend(outcome.confirmed.drain(..).map(|(record, _)| record));
            assert_eq!(waiting.len(), ROUND);
        });
    });

    let mut outbox_of_acks = outbox(Confirmation::Ack);
    let (mut waiting, mut tickets) = (records(), Vec::<Ticket>::new());
    group.bench_function("acks", |b| {
        b.iter(|| {
            for record in waiting.drain(..) {
                outbox_of_acks.push(record);
            }
            while !outbox_of_acks.is_empty() {
                for _ in 0..BATCH {
                    let Some((ticket, _)) = outbox_of_acks.next(1) else {
                        break;
                    };
                    tickets.push(ticket);
                }
                for ticket in tickets.drain(..) {
                    outbox_of_acks.acked(ticket, &mut outcome);
                }
                // As a publisher does all the time: what was acked is forgotten here.
                outbox_of_acks.overdue(1, 1_000, &mut tickets);
            }
            waiting.extend(outcome.confirmed.drain(..).map(|(record, _)| record));
            assert_eq!(waiting.len(), ROUND);
        });
    });
    group.finish();
}

criterion_group!(benches, lanes);
criterion_main!(benches);
