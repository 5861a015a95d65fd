//! What resources say about other objects, and about who may refer to them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Keys of Secrets that hold what must stay secret: those that we look for by default, and those of Kubernetes' own types of Secrets.
pub const SECRET_KEYS: [&str; 8] = [
    "password",
    "token",
    "seed",
    "user.creds",
    "tls.key",
    "ssh-privatekey",
    ".dockerconfigjson",
    ".dockercfg",
];

/// A resource of this group, perhaps in another namespace. Its `allowedNamespaces` must then allow your namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// The name.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
    /// The namespace. By default that of the resource that refers. A resource of another namespace must allow yours in its
    /// `allowedNamespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::namespace_name")]
    pub namespace: Option<String>,
}

/// A key of a Secret in the resource's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
    /// The key in the Secret's data. The field that refers names the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::secret_key")]
    pub key: Option<String>,
}

/// A Secret of type `kubernetes.io/tls` in the resource's own namespace, with the keys `tls.crt` and `tls.key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSecretRef {
    /// The Secret's name.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
}

/// TLS towards servers. An empty object means: the system's certificate authorities, no client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A key of a Secret in the same namespace: PEM of the certificate authorities to trust instead of the system's. The key is
    /// `ca.crt` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A Secret of type `kubernetes.io/tls` in the same namespace, with the client certificate: `tls.crt` and `tls.key`.
    /// Absent: no client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<TlsSecretRef>,
}

/// Which namespaces may refer to a resource. The resource's own always may.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.from) || self.from != 'Selector' || has(self.selector)")
    .message("from: Selector needs a selector: add it, or write from: Same or All"))]
#[x_kube(validation = Rule::new("!has(self.selector) || (has(self.from) && self.from == 'Selector')")
    .message("selector is used with from: Selector only: write that, or remove the selector"))]
pub struct AllowedNamespaces {
    /// `Same` (the default): only the resource's own namespace; `All`: every namespace; `Selector`: those that `selector` chooses,
    /// and the resource's own.
    #[serde(default)]
    pub from: NamespacesFrom,
    /// With `from: Selector`: the labels of the allowed namespaces. An empty selector allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum NamespacesFrom {
    /// Only the resource's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Those that `selector` chooses.
    Selector,
}
