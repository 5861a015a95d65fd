//! What finding an asset's owner costs.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use forwarder_core::fanout::ring::{OwnerCache, Ring};

fn ring(c: &mut Criterion) {
    let Ok(ring) = Ring::new((1..=8).map(|number| (format!("C{number}"), 1)), 128) else {
        return;
    };
    let ring = Arc::new(ring);
    let keys: Vec<String> = (0..1 << 17)
        .map(|number| format!("WTVB01-{number:08}-plant-7"))
        .collect();

    let mut group = c.benchmark_group("ring_ns");
    let mut next = cycle(&keys);
    group.bench_function("hash", |b| b.iter(|| ring.place(black_box(next()))));

    let mut cache = OwnerCache::new(Arc::clone(&ring), 1 << 15);
    let mut next = cycle(&keys[..1_000]);
    group.bench_function("cache, 1,000 assets", |b| b.iter(|| cache.place(black_box(next()))));
    let mut next = cycle(&keys[..20_000]);
    group.bench_function("cache, 20,000 assets", |b| b.iter(|| cache.place(black_box(next()))));
    let mut next = cycle(&keys);
    group.bench_function("cache, 131,072 assets in turn", |b| {
        b.iter(|| cache.place(black_box(next())))
    });
    group.finish();
}

fn cycle<'k>(keys: &'k [String]) -> impl FnMut() -> &'k [u8] {
    let mut at = 0;
    move || {
        at = (at + 1) % keys.len();
        keys[at].as_bytes()
    }
}

criterion_group!(benches, ring);
criterion_main!(benches);
