//! `forwarder ring`: the ring without a process.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use forwarder_core::fanout::ring::{Ring, moved};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write who owns each key of standard input: `key<TAB>cluster` per line.
    ///
    /// A key is a line's bytes without the line end, LF or CRLF. Empty lines are skipped: no key is empty.
    Assign {
        /// The clusters: `a,b,c`; `a=2` has weight 2.
        #[arg(long, value_delimiter = ',', required = true)]
        clusters: Vec<Member>,
        #[command(flatten)]
        replicas: Replicas,
    },
    /// Write what a change of the ring moves.
    ///
    /// Without --keys it writes shares of the hash space: `from<TAB>to<TAB>percent` for each pair, and `total<TAB>percent`.
    /// Standard input is not read then. With --keys it writes the keys that move: `key<TAB>from<TAB>to`.
    Diff {
        /// The clusters before: `a,b`; `a=2` has weight 2.
        #[arg(long, value_delimiter = ',', required = true)]
        from: Vec<Member>,
        /// The clusters after.
        #[arg(long, value_delimiter = ',', required = true)]
        to: Vec<Member>,
        #[command(flatten)]
        replicas: Replicas,
        /// A file with a key per line; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Replicas {
    /// Virtual nodes of a cluster of weight 1.
    #[arg(long, default_value_t = 128)]
    replicas: u32,
}

/// A cluster's name and weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member(String, u32);

impl std::str::FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = match text.rsplit_once('=') {
            None => (text, 1),
            Some((name, weight)) => (
                name,
                weight
                    .parse()
                    .map_err(|_| format!("{weight:?} is not a valid weight"))?,
            ),
        };
        if name.is_empty() {
            Err("a name is empty".to_owned())
        } else {
            Ok(Self(name.to_owned(), weight))
        }
    }
}

/// Does it. Standard input is asked for only where keys are read from it.
pub(super) fn execute<I: BufRead>(command: Command, stdin: impl FnOnce() -> I, out: impl Write) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    match command {
        Command::Assign { clusters, replicas } => {
            let ring = ring(clusters, replicas)?;
            each_key(stdin(), |key| {
                out.write_all(key)?;
                out.write_all(b"\t")?;
                out.write_all(ring.name(ring.owner(key)).as_bytes())?;
                out.write_all(b"\n")
            })?;
        }
        Command::Diff {
            from,
            to,
            replicas,
            keys,
        } => {
            let (from, to) = (ring(from, replicas)?, ring(to, replicas)?);
            let mut moves = |key: &[u8]| {
                let (before, after) = (from.name(from.owner(key)), to.name(to.owner(key)));
                if before == after {
                    return Ok(());
                }
                out.write_all(key)?;
                writeln!(out, "\t{before}\t{after}")
            };
            match keys {
                None => {
                    let shifts = moved(&from, &to);
                    for shift in &shifts {
                        writeln!(out, "{}\t{}\t{:.2}%", shift.from, shift.to, shift.share * 100.0)?;
                    }
                    // Not `sum`: of no floats that is -0.
                    let total = shifts.iter().fold(0.0, |total, shift| total + shift.share);
                    writeln!(out, "total\t{:.2}%", total * 100.0)?;
                }
                Some(file) if file == Path::new("-") => each_key(stdin(), &mut moves)?,
                Some(file) => {
                    let keys = File::open(&file).with_context(|| format!("failed to read {}", file.display()))?;
                    each_key(BufReader::new(keys), &mut moves)?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

fn ring(members: Vec<Member>, replicas: Replicas) -> anyhow::Result<Ring> {
    let members = members.into_iter().map(|Member(name, weight)| (name, weight));
    Ok(Ring::new(members, replicas.replicas)?)
}

fn each_key(mut keys: impl BufRead, mut then: impl FnMut(&[u8]) -> std::io::Result<()>) -> anyhow::Result<()> {
    let mut line = Vec::new();
    while keys.read_until(b'\n', &mut line)? > 0 {
        let key = line.strip_suffix(b"\n").unwrap_or(&line);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        if !key.is_empty() {
            then(key)?;
        }
        line.clear();
    }
    Ok(())
}
