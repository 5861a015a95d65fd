//! `kubectl fanout`: forwarders and their rings from a terminal. Arguments in, an exit code out.

mod api;
mod cli;
mod commands;
mod fault;
mod output;
mod screen;
mod table;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use self::cli::Cli;
use self::fault::Code;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            let code = if told.use_stderr() { Code::Usage } else { Code::Fine };
            // If the output is gone, nobody is left to tell.
            drop(told.print());
            return exit(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("failed to start the runtime: {error}"));
            return exit(Code::Fault);
        }
    };
    let code = runtime.block_on(async {
        commands::run(cli).await.unwrap_or_else(|fault| {
            let code = fault.code();
            if code != Code::Fine {
                output::note(&format!("error: {fault}"));
            }
            code
        })
    });
    exit(code)
}

fn exit(code: Code) -> ExitCode {
    ExitCode::from(code as u8)
}
