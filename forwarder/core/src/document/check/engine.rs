//! Caps, intervals, and the HTTP server.

use std::net::IpAddr;

use crate::document::fault::Faults;
use crate::document::{Admin, Engine, GroupProtocol, Source, fence};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

pub(super) fn check_engine(faults: &mut Faults<'_>, engine: &Engine, source: &Source) {
    let Engine {
        batch_size,
        poll_timeout_ms,
        queue_size,
        commit_interval_ms,
        max_pending_records_per_cluster,
        max_pending_bytes_per_cluster,
        max_pending_records,
        max_pending_bytes,
        max_record_bytes,
        drain_timeout_ms,
        fence_timeout_ms,
        watchdog_interval_ms,
        watchdog_timeout_ms,
    } = engine;
    faults.at("batchSize").range(*batch_size, 1, 1_000_000);
    faults.at("pollTimeoutMs").range(*poll_timeout_ms, 1, MINUTE_MS);
    faults.at("queueSize").range(*queue_size, 1, 10_000_000);
    faults
        .at("commitIntervalMs")
        .range(*commit_interval_ms, 1, 10 * MINUTE_MS);
    let caps = [
        (
            "maxPendingRecordsPerCluster",
            *max_pending_records_per_cluster,
            "maxPendingRecords",
            *max_pending_records,
        ),
        (
            "maxPendingBytesPerCluster",
            *max_pending_bytes_per_cluster,
            "maxPendingBytes",
            *max_pending_bytes,
        ),
    ];
    for (field, cap, total_field, total) in caps {
        for (field, cap) in [(field, cap), (total_field, total)] {
            if cap == 0 {
                faults.at(field).add("0 would block every record", "write 1 or more");
            }
        }
        if cap > total {
            faults.at(field).add(
                format!("{cap} is more than {total_field}, {total}: one cluster could use up all of it"),
                "write at most the total",
            );
        }
    }
    if let Some(max_record_bytes) = *max_record_bytes {
        // Kafka has no larger one.
        faults
            .at("maxRecordBytes")
            .range(max_record_bytes, 1, i32::MAX.unsigned_abs() as usize);
    }
    faults.at("drainTimeoutMs").range(*drain_timeout_ms, 1, 60 * MINUTE_MS);
    faults.at("watchdogIntervalMs").range(*watchdog_interval_ms, 1, DAY_MS);
    faults.at("watchdogTimeoutMs").range(*watchdog_timeout_ms, 1, DAY_MS);
    if drain_timeout_ms >= watchdog_timeout_ms {
        faults.at("drainTimeoutMs").add(
            format!("{drain_timeout_ms} is not shorter than watchdogTimeoutMs, {watchdog_timeout_ms}: the watchdog would end the process during a drain"),
            "lower it, or raise watchdogTimeoutMs",
        );
    }
    if watchdog_interval_ms > watchdog_timeout_ms {
        faults.at("watchdogIntervalMs").add(
            format!("{watchdog_interval_ms} is longer than watchdogTimeoutMs, {watchdog_timeout_ms}"),
            "write at most the timeout",
        );
    }
    if let Some(fence_timeout_ms) = *fence_timeout_ms {
        check_fence(&mut faults.at("fenceTimeoutMs"), fence_timeout_ms, source);
    }
}

/// A deadline that comes after the partitions have moved fences nothing.
fn check_fence(faults: &mut Faults<'_>, fence_timeout_ms: u64, source: &Source) {
    faults.range(fence_timeout_ms, 1, DAY_MS);
    let (name, bound) = match source.protocol {
        GroupProtocol::Classic => ("session.timeout.ms", fence::session_ms(source)),
        // The session is the broker's and not known here.
        GroupProtocol::Consumer => ("max.poll.interval.ms", fence::poll_ms(source)),
    };
    if fence_timeout_ms >= bound {
        faults.add(
            format!("{fence_timeout_ms} is not shorter than {name}, {bound}: another member could own the partitions by then"),
            "lower it; the default is two thirds of the session",
        );
    }
}

pub(super) fn check_admin(faults: &mut Faults<'_>, admin: &Admin) {
    let Admin {
        address,
        port: _,
        forwarder,
        version,
        node,
        credentials_version_file,
    } = admin;
    if address.parse::<IpAddr>().is_err() {
        faults.at("address").add(
            format!("{address:?} is not an IP address"),
            "write one, such as 0.0.0.0 or ::",
        );
    }
    for (field, label) in [("forwarder", forwarder), ("version", version), ("node", node)] {
        if let Some(label) = label {
            faults.at(field).text(label);
        }
    }
    if let Some(file) = credentials_version_file {
        faults.at("credentialsVersionFile").file(file);
    }
}
