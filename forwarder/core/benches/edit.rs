//! What the payload edit costs.
#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forwarder_core::fanout::payload::{Stamps, edit};

/// 300 bytes, as a machine connector writes them.
const RECORD: &str = r#"{"ID":"Xabs-dataitem-0042","VALUE":24.318207,"TAG":"Temperature.Spindle","TYPE":"Samples","attributes":{"timestamp":"2026-01-27T15:37:03.871Z","ingestion_timestamp":"2026-01-27T15:37:03.882Z","unit":"CELSIUS","quality":"GOOD","sequence":18446744,"device":"WTVB01-00000042","line":"plant-7/line-3"}}"#;

fn edits(c: &mut Criterion) {
    let stamps = Stamps {
        forwarder: "2026-01-27T15:37:03.886Z",
        kafka: Some(("2026-01-27T15:37:03.882Z", "producer")),
    };
    let spaced = RECORD.replace(',', ", ").replace(':', ": ");
    let stamped = RECORD.replace(
        r#""unit":"#,
        r#""asset_forwarder_timestamp":"x","kafka_timestamp":"y","kafka_timestamp_type":"z","unit":"#,
    );
    let large = RECORD.replace(
        r#""TAG":"#,
        &format!(r#""log":[{}"ä"],"TAG":"#, r#"{"at":1.5e3,"text":"ok\n"},"#.repeat(300)),
    );
    let (mut body, mut id) = (Vec::new(), Vec::new());
    let mut group = c.benchmark_group("edit_ns");
    for (name, value) in [
        ("300 bytes", RECORD),
        ("with spaces", &spaced),
        ("stamps replaced", &stamped),
        ("9 kB", &large),
    ] {
        let edited = edit(value.as_bytes(), &stamps, &mut body, &mut id);
        assert!(edited.is_ok() && id == b"Xabs-dataitem-0042");
        group.throughput(Throughput::Bytes(value.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| edit(black_box(value.as_bytes()), &stamps, &mut body, &mut id))
        });
    }
    // As they come: no two alike, and more of them than the processor's caches for data and branches remember.
    let different: Vec<String> = (0..10_000)
        .map(|n: u32| {
            let number = n.wrapping_mul(2_654_435_761);
            RECORD
                .replace("0042", &format!("{:04}", number % 10_000))
                .replace(
                    "24.318207",
                    &format!("{}.{:0w$}", number % 60, number % 997, w = n as usize % 5),
                )
                .replace("18446744", &(number >> (n % 30)).to_string())
                .replace("CELSIUS", &"CELSIUS/HOUR"[..number as usize % 13])
        })
        .collect();
    let mut at = 0;
    group.throughput(Throughput::Bytes(RECORD.len() as u64));
    group.bench_function("10,000 different", |b| {
        b.iter(|| {
            at = (at + 1) % different.len();
            edit(black_box(different[at].as_bytes()), &stamps, &mut body, &mut id)
        })
    });
    group.finish();
}

criterion_group!(benches, edits);
criterion_main!(benches);
