//! The process: arguments in, signals to a shutdown, errors to an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use forwarder::shutdown;
use operator::cli::Cli;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let (trigger, stop) = shutdown::channel();
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        drop(writeln!(
            io::stderr().lock(),
            "failed to install the handlers of SIGTERM and SIGINT"
        ));
        return ExitCode::FAILURE;
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        trigger.stop();
        // Whoever asks twice does not want to wait. Nothing is lost by it: the next leader converges from wherever we stood.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    match operator::run::run(cli, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone, there is nobody left to tell.
            drop(writeln!(io::stderr().lock(), "{error:#}"));
            ExitCode::FAILURE
        }
    }
}
