//! Who may log in: clients by one Secret, the servers themselves and the operator by another, which no client is given.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::controllers::nats_cluster::managed::names::{
    CLIENT_USER, OPERATOR_USER, ROUTE_PORT, ROUTE_USER, SYSTEM_USER,
};
use crate::controllers::nats_cluster::managed::validate::{Passwords, Plan};

/// The keys of the passwords, by which they are read again.
pub(in crate::controllers::nats_cluster::managed) const CLIENT_KEY: &str = "password";
/// In the servers' Secret: what the clients' Secret is made from again when it is lost. A new password would lock all clients out until the
/// last server has restarted.
pub(in crate::controllers::nats_cluster::managed) const KEPT_CLIENT_KEY: &str = "client-password";
pub(in crate::controllers::nats_cluster::managed) const SYSTEM_KEY: &str = "system-password";
pub(in crate::controllers::nats_cluster::managed) const ROUTE_KEY: &str = "route-password";

pub(super) fn client(plan: &Plan) -> Secret {
    secret(
        plan,
        plan.identity.client_secret(),
        vec![
            ("username", CLIENT_USER.to_owned()),
            (CLIENT_KEY, plan.passwords.client.clone()),
        ],
    )
}

pub(super) fn server(plan: &Plan, replicas: u32) -> Secret {
    let Passwords { client, system, route } = &plan.passwords;
    secret(
        plan,
        plan.identity.server_secret(),
        vec![
            (KEPT_CLIENT_KEY, client.clone()),
            (SYSTEM_KEY, system.clone()),
            (ROUTE_KEY, route.clone()),
            ("accounts.conf", accounts(plan)),
            ("cluster.conf", cluster(plan, replicas)),
        ],
    )
}

fn accounts(plan: &Plan) -> String {
    let Passwords { client, system, .. } = &plan.passwords;
    let jet_stream = if plan.jet_stream.is_some() {
        "jetstream: enabled, "
    } else {
        ""
    };
    format!(
        "system_account: SYS\n\
         accounts {{\n  \
           SYS {{ users: [{{user: \"{SYSTEM_USER}\", password: \"{system}\"}}] }}\n  \
           CLIENTS {{ {jet_stream}users: [{{user: \"{CLIENT_USER}\", password: \"{client}\"}}, \
           {{user: \"{OPERATOR_USER}\", password: \"{system}\"}}] }}\n\
         }}\n"
    )
}

fn cluster(plan: &Plan, replicas: u32) -> String {
    let (headless, namespace, route) = (
        plan.identity.headless(),
        &plan.identity.namespace,
        &plan.passwords.route,
    );
    let routes = (0..replicas).map(|ordinal| {
        let server = plan.identity.server(ordinal);
        format!("  \"nats://{ROUTE_USER}:{route}@{server}.{headless}.{namespace}.svc:{ROUTE_PORT}\"\n")
    });
    let routes: String = routes.collect();
    format!("authorization {{ user: \"{ROUTE_USER}\", password: \"{route}\", timeout: 5 }}\nroutes: [\n{routes}]\n")
}

fn secret(plan: &Plan, name: String, data: Vec<(&str, String)>) -> Secret {
    let data = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Secret {
        metadata: plan.identity.child(name),
        data: Some(data.collect()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
