//! `forwarder check`.

use std::io::Write;

use forwarder_core::document::Document;

/// Writes `ok` and what the document says in short; its faults are the error. A ring that is missing is no fault: it may come
/// from elsewhere, which is said.
pub(super) fn check(text: &str, mut out: impl Write) -> anyhow::Result<()> {
    let config = Document::from_yaml(text)?.checked()?;
    writeln!(out, "ok")?;
    writeln!(
        out,
        "source: topic {}, group {}",
        config.source.topic, config.source.group
    )?;
    match &config.ring {
        Some(ring) => {
            let names: Vec<_> = ring.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
            writeln!(
                out,
                "ring: epoch {}, {} replicas, clusters {}",
                ring.epoch,
                ring.replicas,
                names.join(", ")
            )?;
        }
        None => writeln!(out, "ring: not in this document; `forwarder run` needs --ring-file")?,
    }
    writeln!(
        out,
        "publish: {:?}, subject {}",
        config.publish.mode, config.publish.subject
    )?;
    Ok(())
}
