//! Traces.

use crate::config::fault::Faults;
use crate::config::{Telemetry, Traces};

const MILLION: u32 = 1_000_000;

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
    let advice = "write http://host:4318, without user, query or fragment; passwords never stand in a document";
    let rest = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"));
    match rest {
        None => faults.at("endpoint").add("it is no http or https URL", advice),
        Some(rest) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let plain = rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#'));
            if host.is_empty() || host.starts_with(':') || !plain {
                faults.at("endpoint").add("it is not the plain URL of a server", advice);
            }
        }
    }
    if tls.is_some() && !endpoint.starts_with("https://") {
        faults
            .at("tls")
            .add("the endpoint is not https", "take tls out, or write https://");
    }
}
