//! The commands, a file each.

mod completions;
mod diff;
mod drain;
mod owner;
mod ring;
mod suspend;
mod version;
mod waiting;
mod watch;

use crate::api::{Access, Place};
use crate::cli::{Cli, Command, Options};
use crate::fault::{Code, Fault};

/// Carries out a command line.
///
/// # Errors
/// Why it was not carried out.
pub(crate) async fn run(cli: Cli) -> Result<Code, Fault> {
    let Cli { command, options } = cli;
    let Options {
        namespace,
        context,
        kubeconfig,
        output,
    } = options;
    let place = || {
        Place::find(Access {
            kubeconfig,
            context,
            namespace,
        })
    };
    match command {
        Command::Where { asset, name } => owner::run(&place().await?, output, asset, name).await,
        Command::Ring { name } => ring::run(&place().await?, output, &name).await,
        Command::Diff {
            name,
            add,
            remove,
            sample,
            examples,
        } => {
            let change = diff::Change {
                add,
                remove,
                sample,
                examples: examples.into(),
            };
            diff::run(&place().await?, output, &name, change).await
        }
        Command::Watch { name, interval, count } => {
            let readings = watch::Readings { interval, count };
            watch::run(&place().await?, output, &name, readings).await
        }
        Command::Suspend { name, waiting } => suspend::run(&place().await?, output, &name, true, waiting).await,
        Command::Resume { name, waiting } => suspend::run(&place().await?, output, &name, false, waiting).await,
        Command::Drain { cluster, waiting } => drain::run(&place().await?, output, &cluster, waiting).await,
        Command::Completions { shell } => completions::run(shell),
        Command::Version => version::run(output),
    }
}
