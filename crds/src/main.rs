//! Prints the CustomResourceDefinitions as YAML.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    for definition in crds::definition::all() {
        let written = serde_saphyr::to_string(&definition)
            .map_err(io::Error::other)
            .and_then(|yaml| write!(out, "---\n{yaml}"));
        if let Err(error) = written {
            drop(writeln!(io::stderr(), "failed to print the definitions: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
