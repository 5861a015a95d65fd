//! The command line.

mod check;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use forwarder_core::document::{
    Checked, ConfigErrors, Document, Logging, Notice, RingConfig, from_environment, identify, ring_from_environment,
};
use tracing::{info, warn};

use crate::ring_watch::{ConfigMapKey, RingOrigin};
use crate::router;
use forwarder_core::fanout::table::Table;
use forwarder_service::http::Server;
use forwarder_service::logging;

/// Forwards Kafka records to the NATS cluster that owns their asset.
///
/// Without a command it does `run`, with the configuration from the environment variables of the original container.
#[derive(Debug, Parser)]
#[command(name = "forwarder", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Check a configuration document: prints `ok` and a summary, or every fault with its path and exit code 1.
    ///
    /// A document for `run --ring-file` has no ring; all the rest of it is checked.
    Check {
        /// The document; `-` is standard input.
        file: PathBuf,
    },
    /// Ask the hash ring who owns which key.
    #[command(subcommand)]
    Ring(ring::Command),
    /// Answer over HTTP which cluster owns an asset: GET /asset/{id}.
    Router {
        #[command(flatten)]
        document: DocumentArgs,
        /// The address to listen on; `::` is every address, IPv6 and IPv4.
        #[arg(long, default_value = "::")]
        address: String,
        /// The port to listen on.
        #[arg(long, default_value_t = 8002)]
        port: u16,
    },
}

#[derive(Args, Debug, Default)]
struct DocumentArgs {
    /// The configuration document. Without it the environment variables of the original container are read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug, Default)]
struct RunArgs {
    #[command(flatten)]
    document: DocumentArgs,
    /// The file of the ring, with the fields of `ring` at its top level. The document must then have no `ring`.
    ///
    /// The process reads it twice a second and switches to a ring with a higher epoch while records flow. Until there is a ring,
    /// the process waits: /healthz answers, and /readyz says why it is not ready.
    #[arg(long, value_name = "FILE", requires = "config")]
    ring_file: Option<PathBuf>,
    /// The ConfigMap that is mounted as the ring's file. Its key `ring.yaml` is also watched through the Kubernetes API.
    ///
    /// A mounted ConfigMap shows a change after a minute or more, the API at once. The pod's service account needs the verbs get,
    /// list and watch on this ConfigMap. If the API does not answer, the file is still read; the higher epoch wins.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "ring_file")]
    ring_config_map: Option<ConfigMapKey>,
}

impl Cli {
    /// Does what the command line asks for, until `shutdown` at most.
    ///
    /// # Errors
    /// What a person should read.
    pub async fn execute(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        match self.command.unwrap_or_else(|| Command::Run(RunArgs::default())) {
            Command::Check { file } => quiet_at_closed_pipe(check::check(&read(&file)?, io::stdout().lock())),
            Command::Ring(command) => {
                quiet_at_closed_pipe(ring::execute(command, || io::stdin().lock(), io::stdout().lock()))
            }
            Command::Run(arguments) => {
                let (document, ring, notices) = arguments.load()?;
                logging::init(&document.logging)?;
                log_notices(&notices);
                Ok(crate::run::run(document, ring, shutdown).await?)
            }
            Command::Router {
                document,
                address,
                port,
            } => {
                let (ring, logging) = document.load_ring()?;
                logging::init(&logging)?;
                let table = Table::new(&ring)?;
                let server = Server::bind(&address, port).await?;
                info!(address = %server.address(), epoch = ring.epoch, "serving the asset router");
                router::serve(table, server, logging.http_requests, shutdown).await;
                Ok(())
            }
        }
    }
}

impl RunArgs {
    /// All but the ring, and where that is from.
    fn load(self) -> anyhow::Result<(Checked<Document>, RingOrigin, Vec<Notice>)> {
        let Self {
            document,
            ring_file,
            ring_config_map,
        } = self;
        let (Some(config), Some(file)) = (&document.config, ring_file) else {
            let (config, notices) = document.load()?;
            let (rest, ring) = config.split();
            let origin = RingOrigin::Given {
                ring: Box::new(ring),
                // Standard input cannot be read twice.
                watched: document.config.filter(|file| file != Path::new("-")),
            };
            return Ok((rest, origin, notices));
        };
        let rest = read_document(config)?;
        if rest.ring.is_some() {
            bail!(
                "{}: ring: is also given by --ring-file {}; remove one of them",
                config.display(),
                file.display()
            );
        }
        let rest = rest.checked().with_context(|| config.display().to_string())?;
        let origin = RingOrigin::Apart {
            file,
            config_map: ring_config_map,
        };
        Ok((rest, origin, Vec::new()))
    }
}

impl DocumentArgs {
    fn load(&self) -> anyhow::Result<(Checked, Vec<Notice>)> {
        let Some(file) = &self.config else {
            return from_environment(variables()).map_err(environment_fault);
        };
        let mut document = read_document(file)?;
        let Some(ring) = document.ring.take() else {
            let rest = document
                .check()
                .err()
                .map_or_else(String::new, |faults| format!("\n{faults}"));
            bail!(
                "{}: ring: is missing; write it there, or run with --ring-file{rest}",
                file.display()
            );
        };
        let config = document.with_ring(ring);
        Ok((
            config.checked().with_context(|| file.display().to_string())?,
            Vec::new(),
        ))
    }

    /// The router needs the ring alone: nobody has to tell it about Kafka.
    fn load_ring(&self) -> anyhow::Result<(RingConfig, Logging)> {
        if self.config.is_none() {
            return ring_from_environment(variables()).map_err(environment_fault);
        }
        let config = self.load()?.0.into_inner();
        Ok((config.ring, config.logging))
    }
}

/// A document that may be without its ring, with the names that the environment gives to a process.
fn read_document(file: &Path) -> anyhow::Result<Document> {
    let mut document = Document::from_yaml(&read(file)?).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    identify(&mut document.admin, &variables().collect::<BTreeMap<_, _>>());
    Ok(document)
}

/// A line for each fault, below one that says whose they are.
fn environment_fault(errors: ConfigErrors) -> anyhow::Error {
    anyhow!("the environment variables are not a valid configuration:\n{errors}")
}

/// The environment's variables, as far as they are text: the others can be none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()))
}

fn log_notices(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::WithoutEffect(_) => info!("environment variables {notice}"),
            Notice::Unknown(_) | Notice::KubernetesService(_) => warn!("environment variables {notice}"),
            Notice::Lowered { .. } => warn!("{notice}"),
        }
    }
}

/// A document's text. Somewhat more than a document may have is enough to refuse it.
fn read(file: &Path) -> anyhow::Result<String> {
    const LIMIT: u64 = 2 << 20;
    let mut text = String::new();
    let done = if file == Path::new("-") {
        io::stdin().lock().take(LIMIT).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
    };
    done.with_context(|| format!("failed to read {}", file.display()))?;
    Ok(text)
}

/// `forwarder ring … | head` has all it wants once the pipe is closed.
fn quiet_at_closed_pipe(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        done => done,
    }
}
