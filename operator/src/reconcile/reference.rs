//! Whether a resource may be referred to from another namespace.

use std::collections::{BTreeMap, BTreeSet};

use crds::AssetForwarder;
use crds::reference::{AllowedNamespaces, NamespacesFrom};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, ResourceExt as _};

use crate::context::{Context, Scope};

/// Whether a resource in `namespace` with that grant allows the namespace `from` with the labels `labels`. A selector that cannot
/// be read allows none.
#[must_use]
pub fn grants(
    allowed: Option<&AllowedNamespaces>,
    namespace: &str,
    from: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    if namespace == from {
        return true;
    }
    let Some(allowed) = allowed else {
        return false;
    };
    match allowed.from {
        NamespacesFrom::Same => false,
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => allowed
            .selector
            .as_ref()
            .is_some_and(|selector| chooses(selector, labels)),
    }
}

/// Whether a label selector chooses an object with these labels. One that cannot be read chooses nothing.
#[must_use]
pub fn chooses(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// The channels that a forwarder names, as namespace and name.
#[must_use]
pub fn channels_of(forwarder: &AssetForwarder) -> BTreeSet<(String, String)> {
    let spec = &forwarder.spec;
    let own = forwarder.namespace().unwrap_or_default();
    let letters = spec.dead_letter.iter().filter_map(|letter| letter.channel_ref.as_ref());
    let references = spec.sources.iter().map(|source| &source.channel_ref).chain(letters);
    let channels = references.map(|reference| {
        let namespace = reference.namespace.clone().unwrap_or_else(|| own.clone());
        (namespace, reference.name.clone())
    });
    channels.collect()
}

/// Whether a namespace is being deleted, or gone. Who watches only one may not be allowed to read it (its Role cannot outlive the
/// namespace); then the answer is no, and what is in it goes by the longer bound.
///
/// # Errors
/// The API server refuses, or is not there.
pub async fn namespace_is_deleted(context: &Context, name: &str) -> kube::Result<bool> {
    match Api::<Namespace>::all(context.client.clone()).get_opt(name).await {
        Ok(namespace) => Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some())),
        Err(kube::Error::Api(refusal)) if refusal.code == 403 && context.scope != Scope::Cluster => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn allowed(from: NamespacesFrom, team: Option<&str>) -> AllowedNamespaces {
        AllowedNamespaces {
            from,
            selector: team.map(|team| LabelSelector {
                match_labels: Some(labels(&[("team", team)])),
                ..LabelSelector::default()
            }),
        }
    }

    #[test]
    fn without_a_grant_only_the_own_namespace_may_refer() {
        let a = labels(&[("team", "a")]);
        assert!(grants(None, "x", "x", &a));
        assert!(!grants(None, "x", "y", &a));
        assert!(!grants(Some(&allowed(NamespacesFrom::Same, Some("a"))), "x", "y", &a));
        assert!(grants(Some(&allowed(NamespacesFrom::All, None)), "x", "y", &a));
        assert!(grants(
            Some(&allowed(NamespacesFrom::Selector, Some("a"))),
            "x",
            "y",
            &a
        ));
        assert!(!grants(
            Some(&allowed(NamespacesFrom::Selector, Some("b"))),
            "x",
            "y",
            &a
        ));
        assert!(!grants(Some(&allowed(NamespacesFrom::Selector, None)), "x", "y", &a));
    }
}
