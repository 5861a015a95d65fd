//! What the chart's roles allow, as the API server sees it: what the operator needs, and nothing beside.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use e2e_rig::cluster::{Cluster, Namespace};
use e2e_rig::wait::eventually;
use serde_json::json;
use tempfile::NamedTempFile;

use super::installed::definitions;
use super::{Helm, stdout, text};

/// Group, resource with subresource, verbs.
type Rule = (&'static str, &'static str, &'static [&'static str]);

const OURS: &str = "fanout.openfactory.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// What is done with a forwarder's children: they go with their owner.
const CHILD: &[&str] = &["get", "list", "watch", "create", "patch"];

/// What is done with those that a forwarder may do without.
const PASSING: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// All that the operator needs where it watches.
const NEEDED: [Rule; 22] = [
    (OURS, "natsclusters", &["get", "list", "watch", "patch"]),
    (OURS, "kafkachannels", &["get", "list", "watch", "patch"]),
    (OURS, "assetforwarders", &["get", "list", "watch", "patch"]),
    (OURS, "natsclusters/status", &["patch"]),
    (OURS, "kafkachannels/status", &["patch"]),
    (OURS, "assetforwarders/status", &["patch"]),
    (OURS, "assetforwarders/finalizers", &["update"]),
    (OURS, "natsclusters/finalizers", &["update"]),
    ("", "configmaps", PASSING),
    ("", "secrets", CHILD),
    ("", "services", CHILD),
    ("", "serviceaccounts", CHILD),
    ("apps", "deployments", CHILD),
    ("apps", "statefulsets", CHILD),
    ("apps", "replicasets", &["list"]),
    (RBAC, "roles", CHILD),
    (RBAC, "rolebindings", CHILD),
    ("policy", "poddisruptionbudgets", PASSING),
    ("networking.k8s.io", "networkpolicies", CHILD),
    ("", "pods", &["get", "list", "watch", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// What whoever takes the operator over would like to have.
const REFUSED: [Rule; 14] = [
    (
        OURS,
        "natsclusters",
        &["create", "update", "delete", "deletecollection"],
    ),
    (
        OURS,
        "assetforwarders",
        &["create", "update", "delete", "deletecollection"],
    ),
    (OURS, "assetforwarders/scale", &["patch"]),
    ("", "pods", &["create", "update", "delete", "deletecollection"]),
    ("", "persistentvolumeclaims", &["get", "create", "patch", "delete"]),
    ("apps", "statefulsets", &["delete", "deletecollection"]),
    ("", "pods/exec", &["create", "get"]),
    ("", "pods/ephemeralcontainers", &["patch"]),
    ("", "pods/log", &["get"]),
    ("", "secrets", &["update", "delete", "deletecollection"]),
    ("", "serviceaccounts/token", &["create"]),
    ("", "serviceaccounts", &["impersonate"]),
    (RBAC, "roles", &["escalate", "bind"]),
    (RBAC, "clusterroles", &["get", "create", "bind"]),
];

#[test]
fn one_namespace_is_all_that_a_namespaced_operator_may_touch() {
    let helm = Helm::new();
    let [own, watched, other] = ["own", "watched", "other"].map(|name| helm.cluster.namespace(name).unwrap());
    let roles = Roles::apply(&helm, &own, &[&format!("--set=watchNamespace={}", watched.name())]);
    roles.check(watched.name());
    roles.is_listed(watched.name(), include_str!("rights/watched.txt"));
    roles.is_listed(own.name(), include_str!("rights/own.txt"));
    roles.is_listed(other.name(), include_str!("rights/none.txt"));
    roles.none(own.name(), &NEEDED);
    roles.none(other.name(), &NEEDED);
    roles.none("", &[("", "namespaces", &["get", "list", "watch"])]);
    roles.none(
        watched.name(),
        &[("coordination.k8s.io", "leases", &["create", "get", "update"])],
    );
}

#[test]
fn a_cluster_wide_operator_may_do_what_it_needs_everywhere_and_no_more() {
    let helm = Helm::new();
    let [own, other] = ["own", "other"].map(|name| helm.cluster.namespace(name).unwrap());
    let roles = Roles::apply(&helm, &own, &["--set=rbac.aggregate=false"]);
    roles.check(other.name());
    roles.is_listed(other.name(), include_str!("rights/everywhere.txt"));
    roles.all("", &[("", "namespaces", &["get", "list", "watch"])]);
    roles.none(
        "",
        &[
            ("", "namespaces", &["create", "patch", "update", "delete"]),
            ("", "nodes", &["get", "list"]),
        ],
    );
    roles.none(
        other.name(),
        &[("coordination.k8s.io", "leases", &["create", "get", "update"])],
    );
}

#[tokio::test]
async fn whoever_may_edit_a_namespace_may_edit_our_resources_in_it() {
    let helm = Helm::new();
    let own = helm.cluster.namespace("own").unwrap();
    let _roles = Roles::apply(&helm, &own, &["--show-only=templates/aggregated-roles.yaml"]);
    for role in ["view", "edit", "admin"] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={role}"));
        own.kubectl(&["create", "rolebinding", &role[14..], &role, &user])
            .unwrap();
    }
    let may = |user: &str, rules: &[Rule]| allowed(&helm.cluster, user, own.name(), "", rules);
    // A controller puts the cluster's roles together, soon after ours are there.
    let scale: Rule = (OURS, "assetforwarders/scale", &["patch"]);
    eventually(Duration::from_secs(30), "the roles are put together", || async {
        Ok(may("admin", &[scale]).all())
    })
    .await
    .unwrap();
    for resource in ["natsclusters", "kafkachannels", "assetforwarders"] {
        let read: Rule = (OURS, resource, &["get", "list", "watch"]);
        let write: Rule = (
            OURS,
            resource,
            &["create", "update", "patch", "delete", "deletecollection"],
        );
        for user in ["edit", "admin"] {
            let found = may(user, &[read, write, scale]);
            assert!(found.all(), "{user} may not {:?}", found.that_are(false));
        }
        let found = may("view", &[read]);
        assert!(found.all(), "{:?}", found.that_are(false));
        let found = may("view", &[write, scale]);
        assert!(found.none(), "{:?}", found.that_are(true));
    }
    let found = may("admin", &[(OURS, "natsclusters/status", &["patch", "update"])]);
    assert!(
        found.none(),
        "the operator alone says how it is: {:?}",
        found.that_are(true)
    );
}

/// The chart's account and roles, without the operator. They go when this is dropped.
struct Roles {
    cluster: Cluster,
    manifest: NamedTempFile,
    own: String,
    name: String,
}

impl Roles {
    fn apply(helm: &Helm, own: &Namespace, args: &[&str]) -> Self {
        definitions(helm);
        let mut all = vec!["template", own.name(), "fanout-operator", "--namespace", own.name()];
        all.extend([
            "--show-only=templates/rbac.yaml",
            "--show-only=templates/serviceaccount.yaml",
        ]);
        all.extend(args);
        let manifest = NamedTempFile::new().unwrap();
        fs::write(manifest.path(), helm.run(&all)).unwrap();
        let mut apply = helm.cluster.program("kubectl");
        stdout(apply.args(["apply", "--filename"]).arg(manifest.path()));
        Self {
            cluster: helm.cluster.clone(),
            manifest,
            own: own.name().to_owned(),
            name: format!("{}-fanout-operator", own.name()),
        }
    }

    /// What must hold in a namespace that is watched.
    fn check(&self, watched: &str) {
        self.all(watched, &NEEDED);
        self.none(watched, &REFUSED);
        // Its own Lease, and no other one.
        const LEASES: &str = "coordination.k8s.io";
        self.all(&self.own, &[(LEASES, "leases", &["create"])]);
        let of = |name: &str, verbs| {
            allowed(
                &self.cluster,
                &self.account(),
                &self.own,
                name,
                &[(LEASES, "leases", verbs)],
            )
        };
        assert!(of(&self.name, &["get", "update"]).all());
        assert!(of(&self.name, &["delete", "patch"]).none());
        assert!(of("another", &["get", "update"]).none());
        // It can give pods the right to read a ring, and nothing that it does not have.
        let ring = [
            "role",
            "ring",
            "--verb=get,list,watch",
            "--resource=configmaps",
            "--resource-name=plant-ring",
        ];
        assert_eq!(self.create(watched, &ring), "");
        let bind = ["rolebinding", "ring", "--role=ring", "--serviceaccount=plant:plant"];
        assert_eq!(self.create(watched, &bind), "");
        let refusal = self.create(watched, &["role", "shell", "--verb=create", "--resource=pods/exec"]);
        assert!(
            refusal.contains("attempting to grant RBAC permissions not currently held"),
            "{refusal}"
        );
    }

    /// Compares all that the account may do in a namespace, beside what everybody may, with a list that somebody has agreed to.
    fn is_listed(&self, namespace: &str, agreed: &str) {
        let found = listed(&self.cluster, &self.account(), namespace).replace(&self.name, "OPERATOR");
        assert_eq!(found, agreed, "in {namespace}, what is allowed now:\n{found}");
    }

    fn all(&self, namespace: &str, rules: &[Rule]) {
        let found = allowed(&self.cluster, &self.account(), namespace, "", rules);
        assert!(found.all(), "not allowed in {namespace:?}: {:?}", found.that_are(false));
    }

    fn none(&self, namespace: &str, rules: &[Rule]) {
        let found = allowed(&self.cluster, &self.account(), namespace, "", rules);
        assert!(found.none(), "allowed in {namespace:?}: {:?}", found.that_are(true));
    }

    /// Creates as the account; what the API server has against it.
    fn create(&self, namespace: &str, what: &[&str]) -> String {
        let mut create = self.cluster.program("kubectl");
        create.arg("create").args(what);
        create.args(["--namespace", namespace, "--as", &self.account()]);
        text(&create.output().unwrap().stderr)
    }

    fn account(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.own, self.name)
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let mut delete = self.cluster.program("kubectl");
        delete.args(["delete", "--wait=false", "--ignore-not-found", "--filename"]);
        delete.arg(self.manifest.path());
        // The cluster goes anyway.
        drop(delete.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

/// What `kubectl auth can-i --list` says of an account, and not of one that nobody has given anything; sorted.
fn listed(cluster: &Cluster, account: &str, namespace: &str) -> String {
    let list = |account: &str| -> BTreeSet<String> {
        let mut list = cluster.program("kubectl");
        list.args([
            "auth",
            "can-i",
            "--list",
            "--no-headers",
            "--namespace",
            namespace,
            "--as",
            account,
        ]);
        let said = stdout(&mut list);
        let lines = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect()
    };
    let everybody = list("system:serviceaccount:nowhere:nobody");
    let lines = list(account);
    lines.difference(&everybody).map(|line| format!("{line}\n")).collect()
}

/// What was asked, and whether it is allowed.
struct Answers(Vec<(String, bool)>);

impl Answers {
    /// The questions that were answered like this.
    fn that_are(&self, allowed: bool) -> Vec<&str> {
        let such = self.0.iter().filter(|(_, found)| *found == allowed);
        such.map(|(question, _)| question.as_str()).collect()
    }

    fn all(&self) -> bool {
        !self.0.is_empty() && self.that_are(false).is_empty()
    }

    fn none(&self) -> bool {
        !self.0.is_empty() && self.that_are(true).is_empty()
    }
}

/// Asks the API server whether a user may do all that; an empty namespace is the cluster, an empty name any object.
fn allowed(cluster: &Cluster, user: &str, namespace: &str, name: &str, rules: &[Rule]) -> Answers {
    let mut asked = Vec::new();
    let mut reviews = Vec::new();
    for (group, resource, verbs) in rules {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        for verb in *verbs {
            asked.push(format!("{verb} {resource}/{subresource} of {group:?}"));
            reviews.push(json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": user,
                    "resourceAttributes": {
                        "group": group, "resource": resource, "subresource": subresource,
                        "verb": verb, "namespace": namespace, "name": name,
                    },
                },
            }));
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews});
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), list.to_string()).unwrap();
    let mut ask = cluster.program("kubectl");
    ask.args(["create", "--output=jsonpath={.status.allowed}{'\\n'}", "--filename"]);
    let answers = stdout(ask.arg(file.path()));
    let answers: Vec<bool> = answers.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), asked.len());
    Answers(asked.into_iter().zip(answers).collect())
}
