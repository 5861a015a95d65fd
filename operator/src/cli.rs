//! The command line; each flag has an environment variable, for the chart.

use clap::{Parser, Subcommand, ValueEnum};

/// Runs the controllers of NatsCluster, KafkaChannel and AssetForwarder, and the asset router.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version)]
pub struct Cli {
    /// What this program does instead of running the controllers.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The only namespace to watch; Roles are enough for that. Without it, the operator watches all namespaces.
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// The namespace of the operator itself, where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The name of this process in the Lease: that of its pod.
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "operator")]
    pub identity: String,
    /// The Lease that all replicas compete for.
    #[arg(long, env = "LEASE_NAME", value_name = "NAME", default_value = "fanout-operator")]
    pub lease: String,
    /// The image of forwarders whose resource sets no spec.image.
    #[arg(long, env = "FORWARDER_IMAGE", value_name = "IMAGE", default_value = concat!("fanout-forwarder:", env!("CARGO_PKG_VERSION")))]
    pub forwarder_image: String,
    /// When forwarder pods pull their image.
    #[arg(long, env = "FORWARDER_IMAGE_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub forwarder_image_pull_policy: PullPolicy,
    /// Uses a Secret of credentials only if it has the label `fanout.openfactory.io/allow-use: "true"`.
    #[arg(long, env = "REQUIRE_SECRET_OPT_IN")]
    pub require_secret_opt_in: bool,
    /// Whether pods set their user and groups by number. `false` leaves them to the platform, as on OpenShift, which gives each
    /// namespace its own.
    #[arg(long, env = "POD_SECURITY_IDS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub pod_security_ids: bool,
    /// Address of all listeners; `::` is every address, IPv6 and IPv4.
    #[arg(long, env = "LISTEN_ADDRESS", value_name = "ADDRESS", default_value = "::")]
    pub address: String,
    /// Port of probes and metrics.
    #[arg(long, env = "METRICS_PORT", value_name = "PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// Port of the asset router.
    #[arg(long, env = "ROUTER_PORT", value_name = "PORT", default_value_t = 8002)]
    pub router_port: u16,
    /// The lowest level that is logged. The variable RUST_LOG overrides it.
    #[arg(long, env = "LOG_LEVEL", value_enum, default_value_t = Level::Info)]
    pub log_level: Level,
    /// The format of log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    pub log_format: Format,
    /// How many resources of a kind are reconciled at once.
    #[arg(long, env = "CONCURRENCY", value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
}

/// What this program can do instead of running the controllers.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Checks that each URL answers 2xx within ten seconds. Exits with 1 if one does not.
    CheckHealth {
        /// URLs such as `http://fanout-operator-metrics:8080/readyz`.
        #[arg(value_name = "URL", required = true)]
        urls: Vec<String>,
    },
}

/// When pods pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// The API's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Somebody has to act.
    Error,
    /// Something is wrong, and the operator tries again.
    Warn,
    /// Normal operation.
    Info,
    /// Single steps.
    Debug,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_name_their_ids_unless_somebody_says_otherwise() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["operator"], args].concat());
        assert!(parse(&[]).unwrap().pod_security_ids);
        assert!(parse(&["--pod-security-ids", "true"]).unwrap().pod_security_ids);
        assert!(!parse(&["--pod-security-ids", "false"]).unwrap().pod_security_ids);
        assert!(parse(&["--pod-security-ids", "no"]).is_err());
    }
}
