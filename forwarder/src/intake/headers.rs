//! Reads a message's headers.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use rdkafka::Message;
use rdkafka::message::Headers;

use forwarder_core::record::Header;

/// A header's name is not UTF-8. Kafka does not forbid that; rdkafka panics on it.
#[derive(Debug)]
pub(super) struct Unreadable;

thread_local! {
    /// Set while headers are read, so that the panic hook keeps quiet about what is handled.
    static READING: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// All headers in order, names and values as they came.
pub(super) fn read<M: Message>(message: &M) -> Result<Vec<Header<'_>>, Unreadable> {
    let Some(headers) = message.headers() else {
        return Ok(Vec::new());
    };
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !READING.get() {
                report(info);
            }
        }));
    });
    READING.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(|| collect(headers)));
    READING.set(false);
    read.map_err(|_| Unreadable)
}

fn collect(headers: &impl Headers) -> Vec<Header<'_>> {
    (0..headers.count())
        .filter_map(|index| headers.try_get(index))
        .map(|header| (header.key, header.value))
        .collect()
}
