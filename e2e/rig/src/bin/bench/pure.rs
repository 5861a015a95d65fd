//! What the forwarder does to each record without any server: nanoseconds, the median of several rounds.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use e2e_rig::traffic::write_value;
use forwarder_core::fanout::payload::{self, Stamps};
use forwarder_core::fanout::ring::Ring;

const ROUNDS: usize = 9;
const RECORDS: u32 = 100_000;
const ASSETS: u32 = 10_000;

/// One payload edit of a record of about 300 bytes.
pub(crate) fn edit() -> Result<f64> {
    let stamps = Stamps {
        forwarder: "2026-01-02T03:04:05.678Z",
        kafka: Some(("2026-01-02T03:04:05.670Z", "producer")),
    };
    let values: Vec<String> = (0..ASSETS)
        .map(|asset| {
            let mut value = String::new();
            write_value(&mut value, &key(asset), asset, 300);
            value
        })
        .collect();
    let (mut body, mut id) = (Vec::new(), Vec::new());
    median(|| {
        for value in values.iter().cycle().take(RECORDS as usize) {
            payload::edit(black_box(value.as_bytes()), &stamps, &mut body, &mut id)
                .map_err(|invalid| anyhow!("the traffic's own record is refused: {invalid}"))?;
            black_box((&body, &id));
        }
        Ok(())
    })
}

/// One look-up in a ring of three clusters, without the cache of owners.
pub(crate) fn ring() -> Result<f64> {
    let ring = Ring::new(["C1", "C2", "C3"].map(|name| (name.to_owned(), 1)), 128)?;
    let keys: Vec<String> = (0..ASSETS).map(key).collect();
    median(|| {
        for key in keys.iter().cycle().take(RECORDS as usize) {
            black_box(ring.owner(black_box(key.as_bytes())));
        }
        Ok(())
    })
}

/// One look-up in a ring of 1,000 clusters, of a million keys in turn: neither fits into the processor's caches.
pub(crate) fn large_ring() -> Result<f64> {
    let ring = Ring::new((0..1_000).map(|number| (format!("C{number}"), 1)), 128)?;
    let keys: Vec<String> = (0..1_000_000).map(key).collect();
    let mut next = keys.iter().cycle();
    median(|| {
        for key in next.by_ref().take(RECORDS as usize) {
            black_box(ring.owner(black_box(key.as_bytes())));
        }
        Ok(())
    })
}

fn key(asset: u32) -> String {
    format!("WTVB01-{asset:04}")
}

fn median(mut round: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(RECORDS));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
