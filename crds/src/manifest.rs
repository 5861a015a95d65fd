//! The definitions as files: for printing, for the chart, for kustomize.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::definition;

/// Why the definitions were not written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A definition has no form in YAML.
    #[error("failed to write {name} as YAML")]
    Serialize {
        /// The definition's name.
        name: String,
        /// Why.
        source: serde_saphyr::ser::Error,
    },
    /// A file or its folder could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All definitions as one text of YAML.
///
/// # Errors
/// A definition has no form in YAML.
pub fn text() -> Result<String, ManifestError> {
    definition::all()
        .iter()
        .map(|one| Ok(format!("---\n{}", yaml(one)?)))
        .collect()
}

/// The files that are made from the definitions, by their place in the folder `charts`.
///
/// # Errors
/// A definition has no form in YAML.
pub fn files() -> Result<Vec<(PathBuf, String)>, ManifestError> {
    let mut files = Vec::new();
    for plain in definition::all() {
        let name = format!("{}.yaml", plain.spec.names.plural);
        let mut kept = plain.clone();
        // With a definition goes every object of its kind: uninstalling the chart must not do that.
        kept.metadata
            .annotations
            .get_or_insert_default()
            .insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        for (folder, definition) in [("fanout-crds/templates", kept), ("kustomize/crds", plain)] {
            files.push((Path::new(folder).join(&name), format!("{NOTE}{}", yaml(&definition)?)));
        }
    }
    Ok(files)
}

/// Writes the files into the folder `charts`.
///
/// # Errors
/// A definition has no form in YAML, or a file cannot be written.
pub fn write(charts: &Path) -> Result<(), ManifestError> {
    for (place, text) in files()? {
        let path = charts.join(place);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text));
        written.map_err(|source| ManifestError::Write { path, source })?;
    }
    Ok(())
}

const NOTE: &str = "# Made from the types in crds/src; after a change there: cargo run -p crds -- write charts\n";

fn yaml(definition: &CustomResourceDefinition) -> Result<String, ManifestError> {
    serde_saphyr::to_string(definition).map_err(|source| ManifestError::Serialize {
        name: definition.metadata.name.clone().unwrap_or_default(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_hold_what_the_types_say() {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
        for (place, text) in files().unwrap() {
            let found = fs::read_to_string(charts.join(&place)).unwrap_or_default();
            assert!(
                found == text,
                "charts/{} is not what the types say: cargo run -p crds -- write charts",
                place.display()
            );
        }
    }

    #[test]
    fn helm_finds_nothing_to_fill_in() {
        for (place, text) in files().unwrap() {
            assert!(!text.contains("{{"), "{}", place.display());
        }
    }
}
