//! What keeping track of a partition's offsets costs.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forwarder_core::offsets::Offsets;

/// Records out at a time.
const WINDOW: u64 = 16_384;

/// Receives a window of records, settles them in the given order, and asks what may be committed.
fn round(order: &[u64]) -> Option<i64> {
    let mut offsets = Offsets::new(0, true);
    let names: Vec<_> = (0..WINDOW)
        .filter_map(|offset| offsets.receive(black_box(offset as i64)))
        .collect();
    for place in order {
        offsets.settle(names[*place as usize]);
    }
    offsets.to_commit()
}

fn offsets(c: &mut Criterion) {
    let in_order: Vec<u64> = (0..WINDOW).collect();
    let backwards: Vec<u64> = (0..WINDOW).rev().collect();
    // An odd step visits every place of a power of two once.
    let scattered: Vec<u64> = (0..WINDOW).map(|number| number * 9_973 % WINDOW).collect();
    let mut group = c.benchmark_group("offsets");
    group.throughput(Throughput::Elements(WINDOW));
    for (name, order) in [
        ("in order", &in_order),
        ("scattered", &scattered),
        ("backwards", &backwards),
    ] {
        assert_eq!(round(order), Some(WINDOW as i64));
        group.bench_function(name, |b| b.iter(|| round(black_box(order))));
    }
    group.finish();
}

criterion_group!(benches, offsets);
criterion_main!(benches);
