use super::*;

fn ledger(records: &[u32]) -> Ledger {
    let ledger = Ledger::new("A", u32::try_from(records.len()).unwrap());
    for (asset, count) in records.iter().enumerate() {
        for _ in 0..*count {
            ledger.take(u32::try_from(asset).unwrap());
            ledger.acknowledge();
        }
    }
    ledger
}

/// `(asset, n, cluster, millisecond)`.
fn tally(tolerance_us: u64, deliveries: &[(u32, u32, u8, u64)]) -> Tally {
    let mut tally = Tally::new(tolerance_us);
    for &(asset, n, cluster, ms) in deliveries {
        tally.observe(Delivery {
            asset,
            n,
            cluster,
            at_us: ms * 1000,
            latency_us: Some(1000),
            at_home: true,
        });
    }
    tally
}

fn judge(records: &[u32], deliveries: &[(u32, u32, u8, u64)]) -> Verdict {
    tally(0, deliveries).verdict(&ledger(records))
}

#[test]
fn everything_once_and_in_order_is_clean() {
    let verdict = judge(&[2, 1], &[(0, 0, 0, 1), (1, 0, 1, 1), (0, 1, 0, 2)]);
    verdict.check_exactly_once().unwrap();
    assert_eq!((verdict.sent, verdict.distinct), (3, 3));
    assert_eq!(verdict.to_string(), "lost 0, out of order 0, repeated 0");
}

#[test]
fn a_record_that_never_arrives_is_lost() {
    let verdict = judge(&[3, 1], &[(0, 0, 0, 1), (0, 2, 0, 2)]);
    assert_eq!(verdict.lost, 2);
    assert!(
        verdict
            .check()
            .unwrap_err()
            .to_string()
            .contains("asset 0: record 1 of 3 never arrived")
    );
}

#[test]
fn a_record_kafka_refused_is_neither_sent_nor_lost() {
    let ledger = ledger(&[2]);
    ledger.take(0);
    ledger.refuse(0, 2);
    let verdict = tally(0, &[(0, 0, 0, 1), (0, 1, 0, 1)]).verdict(&ledger);
    verdict.check().unwrap();
    assert_eq!(verdict.sent, 2);
}

#[test]
fn repeats_are_not_out_of_order() {
    let verdict = judge(
        &[3],
        &[(0, 0, 0, 1), (0, 1, 0, 2), (0, 0, 0, 3), (0, 1, 0, 4), (0, 2, 0, 5)],
    );
    assert_eq!((verdict.repeated, verdict.out_of_order, verdict.lost), (2, 0, 0));
    verdict.check().unwrap();
    assert!(verdict.check_exactly_once().is_err());
}

#[test]
fn a_first_delivery_after_a_later_record_is_out_of_order() {
    // The trap of the dedupe window: 6, 7, then 5.
    let verdict = judge(&[3], &[(0, 1, 0, 1), (0, 2, 0, 2), (0, 0, 0, 3)]);
    assert_eq!((verdict.out_of_order, verdict.repeated, verdict.lost), (1, 0, 0));
    assert!(!verdict.is_clean());
}

#[test]
fn other_assets_do_not_matter_to_the_order_of_one() {
    judge(&[2, 2], &[(1, 0, 0, 1), (1, 1, 0, 2), (0, 0, 0, 3), (0, 1, 0, 4)])
        .check()
        .unwrap();
}

#[test]
fn a_moved_asset_is_judged_across_clusters() {
    assert_eq!(judge(&[2], &[(0, 1, 1, 5), (0, 0, 0, 6)]).out_of_order, 1);
    assert_eq!(judge(&[2], &[(0, 0, 0, 5), (0, 1, 1, 6)]).out_of_order, 0);
}

#[test]
fn two_clusters_within_the_tolerance_are_in_order_but_one_cluster_never() {
    let ledger = ledger(&[2]);
    assert_eq!(
        tally(20_000, &[(0, 1, 1, 5), (0, 0, 0, 24)])
            .verdict(&ledger)
            .out_of_order,
        0
    );
    assert_eq!(
        tally(20_000, &[(0, 1, 1, 5), (0, 0, 0, 26)])
            .verdict(&ledger)
            .out_of_order,
        1
    );
    assert_eq!(
        tally(20_000, &[(0, 1, 0, 5), (0, 0, 0, 5)])
            .verdict(&ledger)
            .out_of_order,
        1
    );
}

#[test]
fn foreign_and_unknown_deliveries_are_faults() {
    let ledger = ledger(&[1]);
    let mut seen = Tally::new(0);
    seen.observe(Delivery {
        asset: 0,
        n: 0,
        cluster: 1,
        at_us: 0,
        latency_us: None,
        at_home: false,
    });
    assert_eq!(seen.verdict(&ledger).foreign, 1);
    assert_eq!(tally(0, &[(0, 0, 0, 1), (0, 1, 0, 2)]).verdict(&ledger).unknown, 1);
    assert_eq!(tally(0, &[(7, 0, 0, 1)]).verdict(&ledger).unknown, 1);
    assert!(
        tally(0, &[(0, 0, 0, 1), (0, 64, 0, 2)])
            .verdict(&ledger)
            .check()
            .is_err()
    );
}

#[test]
fn nothing_sent_proves_nothing() {
    assert!(judge(&[0], &[]).check().is_err());
}

#[test]
fn assets_and_clusters_are_counted() {
    let tally = tally(0, &[(0, 0, 0, 1), (0, 1, 2, 2), (3, 0, 2, 1), (3, 0, 2, 1)]);
    assert_eq!(
        (tally.of_cluster(0), tally.of_cluster(1), tally.of_cluster(2)),
        (1, 0, 2)
    );
    assert_eq!((tally.assets_of(0), tally.assets_of(2)), (1, 2));
    assert_eq!(tally.clusters_of(0), [0, 2]);
    assert_eq!((tally.of_asset(0), tally.of_asset(1), tally.of_asset(3)), (2, 0, 1));
}

#[test]
fn keys_name_assets() {
    let ledger = Ledger::new("WTVB01", 20_000);
    assert_eq!(ledger.key(42), "WTVB01-0042");
    for asset in [0, 42, 9_999, 10_000, 19_999] {
        assert_eq!(ledger.asset(&ledger.key(asset)), Some(asset));
    }
    for other in ["WTVB01-20000", "WTVB02-0001", "WTVB01", "WTVB01-", ""] {
        assert_eq!(ledger.asset(other), None, "{other}");
    }
}

#[test]
fn latencies_are_within_a_sixteenth() {
    for us in [
        0,
        1,
        15,
        16,
        17,
        31,
        32,
        999,
        1_000,
        65_535,
        65_536,
        10_000_000,
        u64::from(u32::MAX),
    ] {
        let mut latency = Latency::default();
        latency.add(us);
        let found = latency.quantile_ms(0.5) * 1000.0;
        assert!(
            found >= us as f64 && found <= us as f64 * (1.0 + 1.0 / 16.0) + 1.0,
            "{us} became {found}"
        );
    }
    let mut latency = Latency::default();
    for us in 1..=1000 {
        latency.add(us * 1000);
    }
    assert!((480.0..540.0).contains(&latency.quantile_ms(0.5)));
    assert!((970.0..1060.0).contains(&latency.quantile_ms(0.99)));
}
