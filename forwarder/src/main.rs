//! The process: arguments in, signals to a shutdown, errors to an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use forwarder::cli::Cli;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().execute(shutdown()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone, there is nobody left to tell.
            drop(writeln!(io::stderr().lock(), "{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Completes at SIGTERM or SIGINT; a second one ends the process at once.
async fn shutdown() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Whoever asks twice does not want to wait for what is out. Nothing is lost by it: what is uncommitted comes again.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drop(writeln!(io::stderr().lock(), "second stop signal: exiting at once"));
        std::process::exit(1);
    });
}
