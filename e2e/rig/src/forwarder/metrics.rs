//! Reads a page of Prometheus metrics.

use std::collections::{BTreeMap, HashMap};

/// Samples of a page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads the text format. Lines that are no sample are left out.
    pub fn parse(text: &str) -> Self {
        Self {
            samples: text.lines().filter_map(sample).collect(),
        }
    }

    /// The sum of all samples of this name that have these labels among theirs; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// The sample of this name that has these labels among its own; of several the first.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).map(|(_, value)| value).next()
    }

    /// Whether there is any sample of this name.
    pub fn has(&self, name: &str) -> bool {
        self.matching(name, &[]).next().is_some()
    }

    /// All samples: name, labels, value.
    pub fn samples(&self) -> &[(String, BTreeMap<String, String>, f64)] {
        &self.samples
    }

    /// What was counted between an earlier page and this one: each sample less what it was then. Of use for counters and histograms.
    pub fn since(&self, earlier: &Self) -> Self {
        let before: HashMap<_, _> = earlier
            .samples
            .iter()
            .map(|(name, labels, value)| ((name, labels), *value))
            .collect();
        let samples = self.samples.iter().map(|(name, labels, value)| {
            let before = before.get(&(name, labels)).copied().unwrap_or(0.0);
            (name.clone(), labels.clone(), value - before)
        });
        Self {
            samples: samples.collect(),
        }
    }

    /// An estimate of a histogram's quantile over all its series, in its own unit; none if it is empty. It is interpolated within its bucket,
    /// as Prometheus does.
    pub fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.matching(&format!("{histogram}_bucket"), &[]) {
            let bound = labels.get("le").and_then(|bound| bound.parse::<f64>().ok())?;
            match buckets.iter_mut().find(|(of, _)| *of == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let wanted = total * share;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= wanted {
                let part = if count > below {
                    (wanted - below) / (count - below)
                } else {
                    1.0
                };
                return Some(if bound.is_finite() {
                    lower + (bound - lower) * part
                } else {
                    lower
                });
            }
            (lower, below) = (bound, count);
        }
        None
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        self.samples
            .iter()
            .filter(move |(of, found, _)| {
                of == name
                    && labels
                        .iter()
                        .all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
            })
            .map(|(_, found, value)| (found, *value))
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_once(' ')?,
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    let Some((name, inside)) = series.split_once('{') else {
        return Some((series.trim().to_owned(), BTreeMap::new(), value));
    };
    Some((name.to_owned(), labels(inside.strip_suffix('}')?)?, value))
}

fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.trim_matches([',', ' ']).is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_matches([',', ' ']).to_owned(), value);
        text = rest.get(end + 1..)?;
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP a Something.
# TYPE a counter
a{cluster="c1",note="has \"quotes\", a comma} and a brace"} 3
a{cluster="c2"} 4.5
plain 7 1700000000000
h_bucket{le="0.1"} 2
h_bucket{le="0.2"} 4
h_bucket{le="+Inf"} 4
h_count 4
"#;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page = Metrics::parse(PAGE);
        assert_eq!(page.sum("a", &[]), 7.5);
        assert_eq!(page.get("a", &[("cluster", "c2")]), Some(4.5));
        assert_eq!(
            page.get("a", &[("note", "has \"quotes\", a comma} and a brace")]),
            Some(3.0)
        );
        assert_eq!(page.get("plain", &[]), Some(7.0));
        assert_eq!(page.get("a", &[("cluster", "c3")]), None);
        assert!(page.has("h_count") && !page.has("h"));
    }

    #[test]
    fn what_was_counted_since() {
        let before = Metrics::parse("a{cluster=\"c1\",note=\"has \\\"quotes\\\", a comma} and a brace\"} 1\nplain 7\n");
        let since = Metrics::parse(PAGE).since(&before);
        assert_eq!(since.sum("a", &[]), 2.0 + 4.5);
        assert_eq!(since.get("plain", &[]), Some(0.0));
    }

    #[test]
    fn quantiles_are_interpolated() {
        let page = Metrics::parse(PAGE);
        assert!((page.quantile("h", 0.25).unwrap() - 0.05).abs() < 1e-9);
        assert!((page.quantile("h", 0.75).unwrap() - 0.15).abs() < 1e-9);
        assert_eq!(page.quantile("absent", 0.5), None);
    }
}
