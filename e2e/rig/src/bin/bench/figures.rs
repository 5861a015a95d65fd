//! Figures: asked for by name, measured several times, printed as medians.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::json;

/// What was measured so far, in the order in which each name came first.
pub(crate) struct Figures {
    json: bool,
    only: Vec<String>,
    measured: Vec<Figure>,
}

struct Figure {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    /// What it is to be at most; none: nobody has said.
    most: Option<f64>,
}

impl Figures {
    /// `only`: beginnings of names; none: all.
    pub(crate) fn new(json: bool, only: Vec<String>) -> Self {
        Self {
            json,
            only,
            measured: Vec::new(),
        }
    }

    /// Whether one of these is to be printed.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        self.only.is_empty()
            || names
                .iter()
                .any(|name| self.only.iter().any(|only| name.starts_with(only)))
    }

    /// Whether a measurement of this name is to be printed, by itself or as its CPU time.
    pub(crate) fn wants_run(&self, name: &str) -> bool {
        self.wants(&[name, &format!("{name}_cpu")])
    }

    /// Takes one measurement of a figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str) {
        self.add_with(name, value, unit, None);
    }

    /// As [`Self::add`], of a figure that is to be so much at most.
    pub(crate) fn add_bounded(&mut self, name: &str, value: f64, unit: &'static str, most: f64) {
        self.add_with(name, value, unit, Some(most));
    }

    fn add_with(&mut self, name: &str, value: f64, unit: &'static str, most: Option<f64>) {
        match self.measured.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.measured.push(Figure {
                name: name.to_owned(),
                unit,
                values: vec![value],
                most,
            }),
        }
    }

    /// Takes a run of so many records.
    pub(crate) fn add_run(&mut self, name: &str, records: u64, run: &Run) {
        let records = records as f64;
        self.add(name, records / run.seconds, "records/s");
        self.add(&format!("{name}_cpu"), run.cpu / records * 1e6, "CPU s/1M records");
    }

    /// Prints what is asked for and forgets all.
    pub(crate) fn print(&mut self) -> Result<()> {
        let mut out = io::stdout();
        for figure in std::mem::take(&mut self.measured) {
            let Figure {
                name,
                unit,
                mut values,
                most,
            } = figure;
            if !self.wants(&[&name]) {
                continue;
            }
            values.sort_by(f64::total_cmp);
            let value = values[values.len() / 2];
            if self.json {
                let mut line = json!({"name": name, "value": value, "unit": unit});
                if let Some(most) = most {
                    line["most"] = json!(most);
                }
                writeln!(out, "{line}")?;
            } else if let [least, .., most] = values.as_slice() {
                writeln!(out, "{name:32} {value:>14.2} {unit:18} {least:.2} … {most:.2}")?;
            } else if let Some(most) = most {
                let missed = if value > most { ", missed" } else { "" };
                writeln!(out, "{name:32} {value:>14.2} {unit:18} at most {most}{missed}")?;
            } else {
                writeln!(out, "{name:32} {value:>14.2} {unit}")?;
            }
        }
        Ok(())
    }
}

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Seconds of processor time, of the whole process from its start.
    pub(crate) cpu: f64,
    pub(crate) peak_rss: u64,
}

/// A line for the person who waits.
pub(crate) fn say(text: &str) {
    // Nobody is left to report a broken stderr to.
    drop(writeln!(io::stderr(), "{text}"));
}
