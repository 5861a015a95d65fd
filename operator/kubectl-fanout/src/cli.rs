//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::output::Format;
use crate::view::diff::Joins;

/// What the help says of the exit codes: see [`crate::fault::Code`].
const EXIT_CODES: &str = "Exit codes:
  0  all is well
  1  something failed
  2  the command line cannot be carried out
  3  what it names is not there
  4  the API server refuses what the command cannot do without
  5  the ring has not converged, or --timeout was over

What cannot be read is shown as `?` (null in JSON and YAML), and never as 0. A right that you lack is named on standard error.";

/// Forwarders and their rings, from a terminal.
#[derive(Debug, Parser)]
#[command(name = "kubectl-fanout", bin_name = "kubectl fanout", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to find the cluster, and how to show what is there.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// How to find the cluster, and how to show what is there.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The namespace. By default that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig. By default the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig. By default that of KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// How long a command waits.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Wait until it is done.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, such as 90s, 10m or 1h. Then the exit code is 5.
    #[arg(long, requires = "wait", default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say which cluster owns an asset.
    ///
    /// The owner is computed from the forwarder's ring. During a change of the ring, BEFORE is the owner before it, where that can be
    /// told.
    Where {
        /// The asset's ID, which is the key of its records.
        asset: String,
        /// The AssetForwarder. By default all of the namespace.
        name: Option<String>,
    },
    /// Show a forwarder's ring: members, shares, pods, and whether it has converged.
    ///
    /// The exit code is 5 while the ring has not converged, or that is not known.
    Ring {
        /// The AssetForwarder.
        name: String,
    },
    /// Show what a change of the ring would move, before it is made.
    #[command(group(ArgGroup::new("change").args(["add", "remove"]).required(true).multiple(true)))]
    Diff {
        /// The AssetForwarder.
        name: String,
        /// A cluster that would join: its name in the ring, or that of its NatsCluster. The weight is that of the NatsCluster, or 1.
        #[arg(long, value_name = "NAME[=WEIGHT]")]
        add: Vec<Joins>,
        /// A member that would leave: its name in the ring, or that of its NatsCluster.
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
        /// A file with an asset per line; `-` is standard input. By default assets are made up.
        #[arg(long, value_name = "FILE")]
        sample: Option<PathBuf>,
        /// How many assets to show that would move.
        #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=10_000))]
        examples: u16,
    },
    /// Show a forwarder as it works, until Ctrl-C.
    ///
    /// On a terminal the page is drawn anew with each reading. Elsewhere each reading is a line, or a document with -o json or -o yaml.
    Watch {
        /// The AssetForwarder.
        name: String,
        /// The time between two readings, such as 2s.
        #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
        interval: Duration,
        /// End after so many readings.
        #[arg(long, value_name = "NUMBER")]
        count: Option<u64>,
    },
    /// Stop all pods of a forwarder. Offsets stay.
    Suspend {
        /// The AssetForwarder.
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Let a suspended forwarder go on.
    Resume {
        /// The AssetForwarder.
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take a cluster out of all rings.
    ///
    /// Its assets go to the other members. With --wait the command ends when no forwarder has anything for the cluster.
    Drain {
        /// The NatsCluster, or its name in rings.
        cluster: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Write the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Show the version.
    Version,
}

/// Reads a time such as `90s`, `10m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write a number and s, m or h, such as 90s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    // No deadline overflows a clock below this.
    let seconds = seconds
        .filter(|seconds| (1..=31_536_000).contains(seconds))
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parsed(args: &[&str]) -> Result<Cli, ErrorKind> {
        let args = ["kubectl-fanout"].iter().chain(args);
        Cli::try_parse_from(args).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        for (code, words) in [
            (0, "all is well"),
            (4, "the API server refuses"),
            (5, "--timeout was over"),
        ] {
            assert!(
                help.contains(&format!("  {code}  {words}")) || help.contains(&format!("{code}  the ring")),
                "{help}"
            );
        }
    }

    #[test]
    fn options_stand_before_and_behind_the_command() {
        for args in [
            ["-n", "plant", "ring", "assets"],
            ["ring", "assets", "--namespace", "plant"],
        ] {
            assert_eq!(parsed(&args).unwrap().options.namespace.as_deref(), Some("plant"));
        }
        assert_eq!(
            parsed(&["ring", "a", "-o", "yaml"]).unwrap().options.output,
            Format::Yaml
        );
        assert_eq!(parsed(&["ring", "a"]).unwrap().options.output, Format::Table);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (args, kind) in [
            (&["diff", "a"][..], ErrorKind::MissingRequiredArgument),
            (&["diff", "a", "--add", "C4=0"], ErrorKind::ValueValidation),
            (&["drain", "c1", "--timeout", "5m"], ErrorKind::MissingRequiredArgument),
            (&["drain", "c1", "--wait", "--timeout", "5"], ErrorKind::ValueValidation),
            (&["watch", "a", "--interval", "0s"], ErrorKind::ValueValidation),
            (
                &["watch", "a", "--interval", "99999999999h"],
                ErrorKind::ValueValidation,
            ),
            (&["ring", "a", "-o", "xml"], ErrorKind::InvalidValue),
        ] {
            assert_eq!(parsed(args).unwrap_err(), kind, "{args:?}");
        }
        let waiting = match parsed(&["drain", "c1", "--wait", "--timeout", "2h"]).unwrap().command {
            Command::Drain { waiting, .. } => waiting,
            other => panic!("{other:?}"),
        };
        assert_eq!((waiting.wait, waiting.timeout), (true, Duration::from_secs(7200)));
    }
}
