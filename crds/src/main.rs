//! Prints the CustomResourceDefinitions as YAML, or writes them into the charts.

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crds::manifest;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => print(),
        ["write", charts] => manifest::write(Path::new(charts)).map_err(Into::into),
        _ => Err(
            "wrong arguments: give none to print the definitions, or `write charts` to write them into that folder"
                .into(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut out = io::stderr().lock();
            drop(write!(out, "{error}"));
            let mut cause = error.source();
            while let Some(error) = cause {
                drop(write!(out, ": {error}"));
                cause = error.source();
            }
            drop(writeln!(out));
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<(), Box<dyn Error>> {
    io::stdout().lock().write_all(manifest::text()?.as_bytes())?;
    Ok(())
}
