//! What operators of tests may do: what the chart grants an installed one, and no more. An administrator would never be refused anything.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::stage::SOON;
use crate::wait;

/// The group of all operators of tests.
pub(super) const OPERATORS: &str = "fanout-e2e:operators";

/// The name of their role and its binding.
const NAME: &str = "fanout-e2e-operators";

/// The chart as it is rendered by default.
const CHART: &str = include_str!("../../../../charts/kustomize/operator/operator.yaml");

/// Lets [`OPERATORS`] do what the chart grants.
pub(super) async fn grant(client: &Client) -> Result<()> {
    let params = PatchParams::apply("e2e").force();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": rules()?,
    });
    let roles = Api::<ClusterRole>::all(client.clone());
    roles
        .patch(NAME, &params, &Patch::Apply(&role))
        .await
        .context("failed to make the operators' role")?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": OPERATORS}],
    });
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    bindings
        .patch(NAME, &params, &Patch::Apply(&binding))
        .await
        .context("failed to bind the operators' role")?;
    // The API server reads both from a cache of its own.
    wait::eventually(SOON, "the operators' rights are known", || may_list(client)).await
}

/// The rules of the operator's ClusterRole, and those of its Role for the Lease without that one's name: each test has another.
fn rules() -> Result<Vec<PolicyRule>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(CHART).context("failed to understand the chart")?;
    let of = |kind: &str, name: &str| -> Result<Vec<PolicyRule>> {
        let is_it = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name;
        let role = documents.iter().find(is_it);
        let role = role.with_context(|| format!("the chart has no {kind} {name}"))?;
        serde_json::from_value(role["rules"].clone()).with_context(|| format!("the {kind} {name} has no rules"))
    };
    let mut rules = of("ClusterRole", "fanout-operator")?;
    let lease = of("Role", "fanout-operator-lease")?;
    rules.extend(lease.into_iter().map(|rule| PolicyRule {
        resource_names: None,
        ..rule
    }));
    Ok(rules)
}

async fn may_list(client: &Client) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some("operator".to_owned()),
            groups: Some(vec![OPERATORS.to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                group: Some("fanout.openfactory.io".to_owned()),
                resource: Some("natsclusters".to_owned()),
                verb: Some("list".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let reviewed = reviews.create(&PostParams::default(), &review).await?;
    Ok(reviewed.status.is_some_and(|status| status.allowed))
}
