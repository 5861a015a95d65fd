//! The process: arguments in, signals to a shutdown, errors to an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use forwarder_service::shutdown;
use operator::cli::{Cli, Command};
use tokio::signal::unix::{SignalKind, signal};

/// The stack of each thread. In a build without optimization, a reconcile that writes a Deployment needs nearly all of the usual 2
/// MiB. Unused stack takes no memory.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "failed to start the runtime: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::CheckHealth { urls }) = &cli.command {
        return check_health(urls).await;
    }
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

/// Asks all of them, so that one run says all that is wrong.
async fn check_health(urls: &[String]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for url in urls {
        let line = match operator::check_health::check(url).await {
            Ok(()) => format!("{url} is healthy"),
            Err(error) => {
                code = ExitCode::FAILURE;
                operator::error::describe(&error)
            }
        };
        // If standard output is gone, the exit code still tells.
        drop(writeln!(io::stdout().lock(), "{line}"));
    }
    code
}
