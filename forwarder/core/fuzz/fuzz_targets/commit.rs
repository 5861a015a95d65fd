//! The metadata of commits: whatever Kafka gives back is read or not, and what is read survives being written.

#![no_main]

use forwarder_core::delivery::commit::Metadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(metadata) = Metadata::parse(text) {
        let written = metadata.to_string();
        assert_eq!(Metadata::parse(&written), Some(metadata), "written as {written:?}");
    }
});
