//! What keeping track of a partition's offsets costs.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forwarder_core::delivery::offsets::{Offsets, Whereabouts};

/// Records out at a time.
const WINDOW: u64 = 16_384;

/// Receives a window of records, settles them in the given order, and asks what may be committed.
fn round(order: &[u64]) -> i64 {
    let mut offsets = Offsets::new(0);
    let places = (0..WINDOW).map(|lane| Whereabouts { lane, output: Some(1) });
    let names: Vec<_> = (0..)
        .zip(places)
        .filter_map(|(offset, place)| offsets.receive(black_box(offset), place))
        .collect();
    for place in order {
        offsets.settle(names[*place as usize], *place as i64);
    }
    offsets.position()
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
        assert_eq!(round(order), WINDOW as i64);
        group.bench_function(name, |b| b.iter(|| round(black_box(order))));
    }
    group.finish();
}

criterion_group!(benches, offsets);
criterion_main!(benches);
