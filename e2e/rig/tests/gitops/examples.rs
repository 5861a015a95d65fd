//! What people copy: it names what is there, and the charts take its values.

use std::fs;

use e2e_rig::cluster::Cluster;
use serde_json::{Value, json};

use crate::argo_cd::gitops;

/// Every object of the examples, with the file that it is in.
fn objects() -> Vec<(String, Value)> {
    let files = ["flux/kustomize.yaml", "flux/helm.yaml", "argocd/applications.yaml"];
    let read = |file: &&str| {
        let text = fs::read_to_string(gitops().join(file)).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects
            .into_iter()
            .map(|object| ((*file).to_owned(), object))
            .collect::<Vec<_>>()
    };
    files.iter().flat_map(read).collect()
}

#[test]
fn the_examples_name_kinds_paths_and_charts_that_are_there() {
    let mut kinds: Vec<String> = Vec::new();
    let objects = objects();
    for (file, object) in &objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        kinds.push(format!("{} {}", text("/apiVersion"), text("/kind")));
        let own = ["fanout-crds", "fanout-operator"].contains(&text("/metadata/name"));
        if text("/kind") == "Kustomization" && own {
            let path = gitops()
                .join("../..")
                .join(text("/spec/path"))
                .join("kustomization.yaml");
            assert!(path.is_file(), "{file}: {}", path.display());
        }
        for dependency in object["spec"]["dependsOn"].as_array().into_iter().flatten() {
            let is_it = |other: &(String, Value)| {
                other.0 == *file
                    && other.1["kind"] == object["kind"]
                    && other.1["metadata"]["name"] == dependency["name"]
            };
            assert!(objects.iter().any(is_it), "{file}: {dependency}");
        }
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "argoproj.io/v1alpha1 Application",
            "helm.toolkit.fluxcd.io/v2 HelmRelease",
            "kustomize.toolkit.fluxcd.io/v1 Kustomization",
            "source.toolkit.fluxcd.io/v1 OCIRepository",
        ]
    );
}

#[test]
fn the_charts_take_the_values_of_the_examples() {
    let cluster = Cluster::of_this_run().unwrap();
    let mut rendered = 0;
    for (file, object) in objects() {
        let mut sources: Vec<(Value, Value)> = Vec::new();
        if object["kind"] == "HelmRelease" {
            sources.push((
                object["spec"]["chartRef"]["name"].clone(),
                object["spec"]["values"].clone(),
            ));
        }
        for source in object["spec"]["sources"].as_array().into_iter().flatten() {
            sources.push((source["chart"].clone(), source["helm"]["valuesObject"].clone()));
        }
        for (chart, values) in sources {
            let chart = gitops().join("..").join(chart.as_str().unwrap());
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("values.yaml");
            let values = if values.is_null() { json!({}) } else { values };
            fs::write(&path, values.to_string()).unwrap();
            let mut helm = cluster.program("helm");
            helm.args(["template", "it"]).arg(&chart).arg("--values").arg(&path);
            let output = helm.output().unwrap();
            assert!(
                output.status.success(),
                "{file}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            rendered += 1;
        }
    }
    assert_eq!(rendered, 4);
}
