//! `forwarder check`.

use std::io::Write;

use forwarder_core::config::Checked;

/// Writes `ok` and what the document says in short; its faults are the error.
pub(super) fn check(text: &str, mut out: impl Write) -> anyhow::Result<()> {
    let config = Checked::from_yaml(text)?;
    let names: Vec<_> = config
        .ring
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    writeln!(out, "ok")?;
    writeln!(
        out,
        "source: topic {}, group {}",
        config.source.topic, config.source.group
    )?;
    writeln!(
        out,
        "ring: epoch {}, {} replicas, clusters {}",
        config.ring.epoch,
        config.ring.replicas,
        names.join(", ")
    )?;
    writeln!(
        out,
        "publish: {:?}, subject {}",
        config.publish.mode, config.publish.subject
    )?;
    Ok(())
}
