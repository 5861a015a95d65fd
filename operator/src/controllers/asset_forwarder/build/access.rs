//! What the pods may do with the API: watch their own ring, and nothing else.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use crate::controllers::asset_forwarder::names::Identity;

pub(super) fn service_account(identity: &Identity) -> ServiceAccount {
    ServiceAccount {
        metadata: identity.child(identity.name.clone()),
        // The pods that need a token mount one themselves.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn role(identity: &Identity) -> Role {
    Role {
        metadata: identity.child(identity.name.clone()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["configmaps".to_owned()]),
            resource_names: Some(vec![identity.ring_map()]),
            verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
            non_resource_urls: None,
        }]),
    }
}

pub(super) fn role_binding(identity: &Identity) -> RoleBinding {
    RoleBinding {
        metadata: identity.child(identity.name.clone()),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: identity.name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: identity.name.clone(),
            namespace: Some(identity.namespace.clone()),
            api_group: None,
        }]),
    }
}
