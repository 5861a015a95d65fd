//! The servers' configuration. What is secret, or changes with the number of servers, is in a Secret that it includes.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::controllers::nats_cluster::managed::hashes::hash;
use crate::controllers::nats_cluster::managed::names::{CLIENT_PORT, MONITOR_PORT, ROUTE_PORT};
use crate::controllers::nats_cluster::managed::validate::{Passwords, Plan, Storage};

/// The file of the configuration.
pub(super) const FILE: &str = "nats.conf";
/// Where a pod has it.
pub(super) const FOLDER: &str = "/etc/nats/config";
/// Where a pod has what it includes: beside it, since includes are looked for from there.
pub(super) const SECRET_FOLDER: &str = "/etc/nats/secret";
/// Where a server's streams are.
pub(super) const DATA_FOLDER: &str = "/data";

/// Clients are told to go for this long before they are sent away; streams get other leaders in the meantime.
const GRACE_SECONDS: u32 = 5;
/// The least that the server takes. It ends as soon as nobody is connected.
pub(super) const LAME_DUCK_SECONDS: u32 = 30;

pub(super) fn config_map(plan: &Plan) -> ConfigMap {
    ConfigMap {
        metadata: plan.identity.child(plan.identity.config_map()),
        data: Some([(FILE.to_owned(), text(plan))].into()),
        ..ConfigMap::default()
    }
}

/// A hash of what a server has read at its start. It is open to read, and people choose short passwords: with the system's 192 bits in it
/// nobody finds the clients' by trying.
pub(super) fn config_hash(plan: &Plan) -> String {
    let Passwords { client, system, .. } = &plan.passwords;
    hash(&format!("{}{client}\n{system}", text(plan)))
}

fn text(plan: &Plan) -> String {
    let mut text = format!(
        "server_name: $POD_NAME\n\
         port: {CLIENT_PORT}\n\
         http_port: {MONITOR_PORT}\n\
         max_payload: {}\n\
         lame_duck_duration: {LAME_DUCK_SECONDS}s\n\
         lame_duck_grace_period: {GRACE_SECONDS}s\n",
        plan.max_payload
    );
    if let Some(Storage {
        max_file, max_memory, ..
    }) = &plan.jet_stream
    {
        text.push_str(&format!(
            "jetstream {{\n  store_dir: {DATA_FOLDER}\n  max_file_store: {max_file}\n  max_memory_store: {max_memory}\n}}\n"
        ));
    }
    // A server that is alone keeps its streams without a group: the routes come with the second one.
    if plan.replicas > 1 {
        // Clients go on by the Service's address, so pods' are not told: they are others after each restart.
        text.push_str(&format!(
            "cluster {{\n  name: \"{}-{}\"\n  port: {ROUTE_PORT}\n  no_advertise: true\n  include \"../secret/cluster.conf\"\n}}\n",
            plan.identity.namespace, plan.identity.name
        ));
    }
    text.push_str("include \"../secret/accounts.conf\"\n");
    text
}
