//! Traces.

use std::net::Ipv6Addr;

use crate::document::fault::Faults;
use crate::document::{Telemetry, Traces};

const MILLION: u32 = 1_000_000;

/// A host with or without a port; an IPv6 address in brackets.
fn is_place(place: &str) -> bool {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let is_address =
        host.starts_with('[') && host.ends_with(']') && host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok();
    let is_name = !host.is_empty() && !host.contains(['[', ']', ':']);
    (is_address || is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

pub(super) fn check_telemetry(faults: &mut Faults<'_>, telemetry: &Telemetry) {
    let Telemetry { traces } = telemetry;
    let Some(Traces {
        endpoint,
        samples_per_million,
        tls,
    }) = traces
    else {
        return;
    };
    let mut faults = faults.at("traces");
    faults
        .at("samplesPerMillion")
        .range(u64::from(*samples_per_million), 0, u64::from(MILLION));
    let advice = "write http://host:4318, without user, query or fragment; a document must not contain passwords";
    let rest = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"));
    match rest {
        None => faults.at("endpoint").add("is not an http or https URL", advice),
        Some(rest) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let plain = rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#'));
            if !plain || !is_place(host) {
                faults.at("endpoint").add("is not a plain server URL", advice);
            }
        }
    }
    if tls.is_some() && !endpoint.starts_with("https://") {
        faults
            .at("tls")
            .add("needs an https endpoint", "remove tls, or write https://");
    }
}
