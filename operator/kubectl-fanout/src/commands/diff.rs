//! `diff`: what a change of the ring would move.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use kube::ResourceExt as _;

use crate::api::Place;
use crate::fault::{Code, Fault};
use crate::output::{Format, warn};
use crate::view::diff::{Joins, Plan, Sample};

/// What is asked.
pub(super) struct Change {
    /// Who would join.
    pub(super) add: Vec<Joins>,
    /// Who would leave.
    pub(super) remove: Vec<String>,
    /// A file with assets; none: they are made up.
    pub(super) sample: Option<PathBuf>,
    /// How many assets to show.
    pub(super) examples: usize,
}

pub(super) async fn run(place: &Place, format: Format, name: &str, change: Change) -> Result<Code, Fault> {
    let Change {
        add,
        remove,
        sample,
        examples,
    } = change;
    let forwarder = place.forwarder(name).await?;
    let declared = place.declared(&forwarder).await?;
    let mut gaps = Vec::new();
    let known = if add.is_empty() {
        None
    } else {
        place.clusters().await.map_err(|fault| gaps.push(fault.gap())).ok()
    };
    let plan = Plan::new(&declared, &add, &remove, known.as_deref())?;
    let sample = match &sample {
        None => plan.make_up(examples),
        Some(file) => read(&plan, file, examples)?,
    };
    let reference = format!("{}/{}", place.namespace, forwarder.name_any());
    let view = plan.view(reference, declared.config.epoch, sample);
    format.show(&view, || view.lines())?;
    warn(&gaps);
    Ok(Code::Fine)
}

fn read(plan: &Plan, file: &Path, examples: usize) -> Result<Sample, Fault> {
    let read = if file == Path::new("-") {
        plan.read(io::stdin().lock(), examples)
    } else {
        File::open(file).and_then(|assets| plan.read(BufReader::new(assets), examples))
    };
    read.map_err(|source| Fault::File {
        file: file.display().to_string(),
        source,
    })
}
