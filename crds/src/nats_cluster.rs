//! `NatsCluster`: a NATS cluster that may be a member of hash rings.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::reference::{AllowedNamespaces, Tls};
use crate::schema::{self, rule};

pub mod managed;

pub use self::managed::Managed;

/// A NATS cluster. Every `AssetForwarder` whose selector chooses its labels has it as a member of its ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "fanout.openfactory.io",
    version = "v1alpha1",
    kind = "NatsCluster",
    plural = "natsclusters",
    singular = "natscluster",
    shortname = "natsc",
    category = "fanout",
    namespaced,
    derive = "PartialEq",
    status = "NatsClusterStatus",
    doc = "A NATS cluster that owns a share of the assets of every forwarder whose selector chooses it.",
    printcolumn(name = "Ring-Name", type_ = "string", json_path = ".status.ringName"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(name = "JetStream", type_ = "boolean", json_path = ".status.jetStream"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "Drain", type_ = "boolean", json_path = ".spec.drain", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.ringName) || size(self.metadata.name) <= 63")
        .message("metadata.name is longer than 63 characters, the limit of a ring name: set spec.ringName, or choose a shorter name")
        .field_path(".spec"),
    // The name decides who owns which asset: under another one most of this cluster's assets would go elsewhere.
    validation = Rule::new(
        "(has(self.spec.ringName) ? self.spec.ringName : self.metadata.name) \
         == (has(oldSelf.spec.ringName) ? oldSelf.spec.ringName : oldSelf.metadata.name)"
    )
    .message(Message::Expression(
        "'the ring name cannot change, because assets would change their owner: keep ' \
         + (has(oldSelf.spec.ringName) ? oldSelf.spec.ringName : oldSelf.metadata.name) \
         + ', or declare a new NatsCluster and drain this one'"
            .to_owned()
    ))
    .field_path(".spec"),
    validation = Rule::new("has(self.spec.external) != has(self.spec.managed)")
        .message("give either external (servers that somebody else runs) or managed (servers that the operator runs)")
        .field_path(".spec"),
    // Its streams would stay behind, and the servers of a managed one would go.
    validation = Rule::new("has(self.spec.managed) == has(oldSelf.spec.managed)")
        .message("external and managed cannot replace each other: declare a new NatsCluster and drain this one")
        .field_path(".spec"),
    validation = Rule::new("!has(self.spec.managed) || !has(self.spec.auth)")
        .message("the operator creates the credentials of a managed cluster: remove auth")
        .field_path(".spec.auth"),
    validation = Rule::new("!has(self.spec.managed) || !has(self.spec.tls)")
        .message("a managed cluster has no TLS: remove tls, or declare an external cluster")
        .field_path(".spec.tls"),
    validation = Rule::new("!has(self.spec.managed) || !has(self.spec.jetStreamApi)")
        .message("a managed cluster has JetStream's API at $JS.API: remove jetStreamApi")
        .field_path(".spec.jetStreamApi"),
    validation = Rule::new("!has(self.spec.managed) || self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name becomes part of the names of a managed cluster's pods and Services: at most 40 lower case letters, digits \
                  and dashes, beginning with a letter")
        .field_path(".spec.managed")
)]
pub struct NatsClusterSpec {
    /// The name in rings, which decides the assets that the cluster owns. By default `metadata.name`. It cannot change: declare a
    /// new cluster and drain this one instead. Of several clusters with the same name a ring has only one; the forwarder's status
    /// lists the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ring_name")]
    pub ring_name: Option<String>,
    /// A cluster that the operator does not run: either this or `managed`. Running pods take up a change, and no asset moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// A cluster that the operator runs: either this or `external`. The operator creates the servers and their credentials, and
    /// changes one server at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// Its share of a ring: it has `ring.replicas` × `weight` virtual nodes there. By default 1. A change moves only the
    /// assets that make up the difference; their records stay in order.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// `true`: the cluster leaves every ring. Its assets go to the other members, and their records stay in order. `false` (the
    /// default): it may be a member. Deletion also drains first.
    #[serde(default)]
    pub drain: bool,
    /// How to authenticate. Absent: not at all. New contents of the Secret reach running pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// TLS. Absent: used where a server's URL (`tls://`) or the server itself asks for it, with the system's certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// `false`: only the declared servers are used. `true` (the default): servers that the cluster announces are used too. Write `false`
    /// if the pods cannot reach the announced addresses, such as behind a proxy or a load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover_servers: Option<bool>,
    /// Where JetStream's API is. Absent: at `$JS.API`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream_api: Option<JetStreamApi>,
    /// The prefix of the subjects on which replies arrive, such as `_INBOX_plant`. Set it if the user may not subscribe to the default
    /// prefix, `_INBOX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "inbox_prefix")]
    pub inbox_prefix: Option<String>,
    /// Where subscribers reach the cluster: `nats://`, `tls://`, `ws://` or `wss://` with a host, such as `wss://nats.example.com:443`.
    /// Forwarders with `ring.beacon` tell it to everybody who asks, so it never holds a user, password or token. Absent: the addresses
    /// that forwarders use, which often mean nothing outside Kubernetes. Pods never connect to it, and no asset moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "client_servers")]
    pub client_servers: Vec<String>,
    /// The namespaces whose forwarders may have the cluster as a member. Absent: only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// A cluster that the operator does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The servers of one cluster, at least one: `nats://host:port` or `tls://host:port`; without a port it is 4222. Never with a
    /// user, password or token: those belong in a Secret that `spec.auth` names.
    #[schemars(schema_with = "servers")]
    pub servers: Vec<String>,
}

/// Where JetStream's API is: one of the two. (What the servers store is `managed.jetStream`.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.domain) != has(self.prefix)")
    .message("give either domain (a JetStream domain, such as a leaf node's) or prefix (the subject prefix of the API)"))]
pub struct JetStreamApi {
    /// The JetStream domain, such as that of a leaf node: the API is at `$JS.<domain>.API`. Either this or `prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "domain")]
    pub domain: Option<String>,
    /// The subject prefix of the API, such as `JS.plant.API` if another account exports it. Either this or `domain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "api_prefix")]
    pub prefix: Option<String>,
}

/// How to authenticate to NATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.secretRef.usernameKey) || self.type == 'UserPassword'")
    .message("usernameKey is used with type: UserPassword only: remove it, or write that type")
    .field_path(".secretRef.usernameKey"))]
pub struct NatsAuth {
    /// What the Secret holds. `Creds`: a credentials file (user JWT and seed); `NKey`: an NKEY seed (`SU…`); `Token`: a token;
    /// `UserPassword`: user and password.
    #[serde(rename = "type")]
    pub type_: NatsAuthType,
    /// The Secret, in the cluster's namespace.
    pub secret_ref: NatsAuthSecretRef,
}

/// The kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum NatsAuthType {
    /// A credentials file: user JWT and seed.
    Creds,
    /// An NKEY seed (`SU…`).
    NKey,
    /// A token.
    Token,
    /// User and password.
    UserPassword,
}

/// A Secret in the cluster's namespace and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::username_key_rule())]
pub struct NatsAuthSecretRef {
    /// The Secret's name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// The key of the credentials. By default `user.creds` (type `Creds`), `seed` (`NKey`), `token` (`Token`) or `password`
    /// (`UserPassword`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub key: Option<String>,
    /// With `UserPassword`: the key of the user's name. By default `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub username_key: Option<String>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsClusterStatus {
    /// The generation that this status is about; -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` always; `Reconciling` or `Stalled` while it is true.
    #[serde(default)]
    #[schemars(schema_with = "crate::status::conditions")]
    pub conditions: Vec<Condition>,
    /// The name in rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_name: Option<String>,
    /// The version of the NATS server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The cluster's own name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Whether JetStream is enabled for these credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jet_stream: Option<bool>,
    /// The servers that the cluster announces and the declared ones, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// The servers that the operator runs. Absent for an external cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<managed::ManagedStatus>,
    /// The forwarders whose ring it is a member of, as `namespace/name`, sorted: the first 32 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<String>,
    /// The number of those forwarders, if there are more than `memberOf` lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_of_count: Option<i32>,
}

const fn one() -> u32 {
    1
}

fn ring_name(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        63,
        &[rule(
            "self.matches(r'^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')",
            "is not a valid ring name: write letters, digits, dots, dashes and underscores, with a letter or a digit at both ends",
        )],
    )
}

/// A character that a literal token of a subject may have.
const LITERAL: &str = r"[^.*>\s\p{Cc}]";

fn domain(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[rule(
            format!("self.matches(r'^{LITERAL}+$')"),
            "is not a valid JetStream domain name: write one token without dots, *, > or blanks, such as plant-a",
        )],
    )
}

fn api_prefix(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[rule(
            format!("self.matches(r'^{LITERAL}+([.]{LITERAL}+)*$')"),
            "is not a valid API prefix: write tokens without *, > or blanks, separated by single dots, such as JS.plant.API",
        )],
    )
}

fn inbox_prefix(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        255,
        &[
            rule(
                format!("self.matches(r'^{LITERAL}+([.]{LITERAL}+)*$')"),
                "is not a valid inbox prefix: write tokens without *, > or blanks, separated by single dots, such as _INBOX_plant",
            ),
            rule(
                "!self.startsWith('$')",
                "begins with a character that the server reserves: begin with another one, such as _INBOX_plant",
            ),
        ],
    )
}

/// That a text is the URL of a server by one of these schemes, separated by `|`.
///
/// What stands before an @ passes here: the API server repeats an item that breaks a rule, and that might be a password.
fn is_url(schemes: &str) -> String {
    format!(
        r"self.matches(r'^({schemes})://([^/?#]*@)?([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:{})?/?$')",
        schema::PORT
    )
}

fn client_servers(_: &mut SchemaGenerator) -> Schema {
    let server = schema::text(
        300,
        &[rule(
            is_url("nats|tls|ws|wss"),
            "is not an address for subscribers: write nats://host:port, tls://host:port, ws://host:port or wss://host:port, one server per \
             entry",
        )],
    );
    schema::set(
        0,
        16,
        &server,
        &[rule(
            "self.all(server, !server.contains('@'))",
            "holds a user, a password or a token, and every subscriber reads these addresses: remove what stands before the @",
        )],
    )
}

fn servers(_: &mut SchemaGenerator) -> Schema {
    let server = schema::text(
        300,
        &[rule(
            is_url("nats|tls"),
            "is not a NATS server URL: write nats://host:port or tls://host:port, one server per entry",
        )],
    );
    schema::set(
        1,
        64,
        &server,
        &[rule(
            "self.all(server, !server.contains('@'))",
            "holds a user, a password or a token: put them into a Secret and name that in spec.auth",
        )],
    )
}
