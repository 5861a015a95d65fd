//! The suites: parts of the tests that run by themselves.

/// A part of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    name: &'static str,
    /// What is in it.
    what: &'static str,
    /// About how long it takes on two cores once all is built, and how long with `--full`.
    lasting: [&'static str; 2],
    /// What nextest is told of it. Without one, it has the fuzz targets, which nextest does not run.
    pub(crate) filter: Option<&'static str>,
    needs: &'static [Need],
}

/// How many of the tests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Those that tell most for their time.
    Quick,
    /// All but the long ones.
    Usual,
    /// All.
    Full,
}

/// What tests need besides the servers that each of them starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The Kafka that tests share.
    Kafka,
    /// A Kubernetes, with our images.
    Cluster,
    /// What judges as GitOps tools do.
    GitOps,
    /// Prometheus and promtool.
    Prometheus,
    /// What the Python package needs.
    Python,
}

const SUITES: [Suite; 9] = [
    Suite {
        name: "forwarder",
        what: "what arrives, how often and in which order, also while clients, servers and brokers fail",
        lasting: ["15 min", "2 h"],
        filter: Some("package(/^forwarder(-|$)/) | (package(e2e-rig) & binary(forwarder))"),
        needs: &[Need::Kafka],
    },
    Suite {
        name: "operator",
        what: "the three resources, the charts, an API server that fails, neighbours, upgrades, scale",
        lasting: ["13 min", "1 h"],
        filter: Some(
            "package(operator) | package(kubectl-fanout) | package(crds) | (package(e2e-rig) & binary(operator))",
        ),
        needs: &[Need::Kafka, Need::Cluster, Need::Python],
    },
    Suite {
        name: "managed",
        what: "NATS servers that the operator runs",
        lasting: ["1 min", "4 min"],
        filter: Some("package(e2e-rig) & binary(managed)"),
        needs: &[Need::Kafka, Need::Cluster],
    },
    Suite {
        name: "gitops",
        what: "what kstatus, Argo CD and Flux make of the resources",
        lasting: ["2 min", "4 min"],
        filter: Some("package(e2e-rig) & binary(gitops)"),
        needs: &[Need::Kafka, Need::Cluster, Need::GitOps],
    },
    Suite {
        name: "observability",
        what: "metrics, alerts, the dashboard and traces",
        lasting: ["1 min", "1 min"],
        filter: Some("package(e2e-rig) & binary(observability)"),
        needs: &[Need::Kafka, Need::Cluster, Need::Prometheus],
    },
    Suite {
        name: "subscribers",
        what: "what subscribers are told of the ring, and what nobody but a forwarder can tell them",
        lasting: ["1 min", "1 min"],
        filter: Some("package(fanout-client) | (package(e2e-rig) & binary(subscribers))"),
        needs: &[Need::Kafka, Need::Python],
    },
    Suite {
        name: "rig",
        what: "the runner, the judges of all other tests, and the documents",
        lasting: ["1 min", "1 min"],
        filter: Some("package(e2e) | (package(e2e-rig) & (not kind(test) | binary(rig)))"),
        needs: &[Need::Kafka],
    },
    Suite {
        name: "unit",
        what: "unit and property tests of all crates, and the simulation of forwarders",
        lasting: ["2 min", "2 min"],
        filter: Some("kind(lib) | kind(bin)"),
        needs: &[],
    },
    Suite {
        name: "fuzz",
        what: "the fuzz targets, along a fixed path",
        lasting: ["1 min", "20 min"],
        filter: None,
        needs: &[],
    },
];

impl Suite {
    /// The suite of this name, or else what there is.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = SUITES.into_iter().find(|suite| suite.name == name);
        found.ok_or_else(|| format!("there is no such suite\n\n{}", list()))
    }
}

impl Tier {
    /// The profile of nextest that chooses them, where it is not the one that nextest takes by itself.
    pub(crate) const fn profile(self) -> Option<&'static str> {
        match self {
            Self::Quick => Some("quick"),
            Self::Usual => None,
            Self::Full => Some("full"),
        }
    }
}

/// Whether some test needs this: of the suite, or of all.
pub(crate) fn needs(suite: Option<Suite>, need: Need) -> bool {
    suite.is_none_or(|suite| suite.needs.contains(&need))
}

/// The suites, for the person who chooses one.
pub(crate) fn list() -> String {
    let rows = SUITES.map(|suite| {
        let [usual, full] = suite.lasting;
        let lasting = format!("{usual}, {full} with --full");
        format!("  {:<14}{lasting:<28}{}", suite.name, suite.what)
    });
    format!(
        "Suites, and about how long each takes on two cores once all is built:\n{}",
        rows.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn suite(name: &str) -> Suite {
        Suite::parse(name).unwrap()
    }

    #[test]
    fn each_program_of_tests_of_the_rig_is_a_suite() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/tests");
        let mut seen = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let filter = suite(name).filter.unwrap();
            assert!(filter.contains(&format!("binary({name})")), "{name}: {filter}");
            assert!(needs(Some(suite(name)), Need::Kafka), "{name}");
            seen += 1;
        }
        assert!(seen > 1, "{} has no tests", folder.display());
    }

    #[test]
    fn who_names_no_suite_is_told_of_all() {
        for name in ["", "operators", "guarantees", "hardening"] {
            let told = Suite::parse(name).unwrap_err();
            for Suite {
                name, what, lasting, ..
            } in SUITES
            {
                for said in [name, what, lasting[0], lasting[1]] {
                    assert!(told.contains(said), "{said} is missing: {told}");
                }
            }
        }
    }

    #[test]
    fn the_manual_says_the_same_of_each_suite() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/docs/src/develop.md");
        let page = fs::read_to_string(page).unwrap();
        for Suite {
            name, what, lasting, ..
        } in SUITES
        {
            let [usual, full] = lasting;
            let row = format!("| `{name}` | {what} | {usual} | {full} |\n");
            assert!(page.contains(&row), "develop.md lacks {row}");
        }
    }

    #[test]
    fn each_tier_has_its_profile() {
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.config/nextest.toml");
        let settings = fs::read_to_string(settings).unwrap();
        for tier in [Tier::Quick, Tier::Usual, Tier::Full] {
            let head = format!("[profile.{}]\n", tier.profile().unwrap_or("default"));
            assert!(settings.contains(&head), "nextest.toml lacks {head}");
        }
    }

    #[test]
    fn all_suites_together_need_everything() {
        for need in [Need::Kafka, Need::Cluster, Need::GitOps, Need::Prometheus, Need::Python] {
            assert!(needs(None, need));
            assert!(!needs(Some(suite("unit")), need));
            assert!(!needs(Some(suite("fuzz")), need));
        }
    }
}
