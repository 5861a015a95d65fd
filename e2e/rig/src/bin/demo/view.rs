//! What the demo shows: a table that is redrawn on a terminal, else a few lines every few seconds.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use e2e_rig::followers::Followed;
use e2e_rig::forwarder::Metrics;
use e2e_rig::observer::Observer;
use e2e_rig::verdict::{Ledger, Verdict};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::subscribers::{self, Subscribers};

const PUBLISHED: &str = "asset_forwarder_nats_messages_published_total";
const PENDING: &str = "asset_forwarder_pending_records";
const LAG: &str = "asset_forwarder_lag";

pub(crate) struct View {
    clusters: Vec<&'static str>,
    table: Option<(MultiProgress, Vec<ProgressBar>)>,
    before: Vec<u64>,
    at: Instant,
}

impl View {
    pub(crate) fn new(clusters: &[&'static str]) -> Self {
        let table = io::stdout().is_terminal().then(|| {
            let table = MultiProgress::new();
            let lines = (0..clusters.len() + 2).map(|_| {
                let line = table.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    line.set_style(style);
                }
                line
            });
            let lines = lines.collect();
            (table, lines)
        });
        Self {
            clusters: clusters.to_vec(),
            table,
            before: vec![0; clusters.len()],
            at: Instant::now(),
        }
    }

    /// How often to draw.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(if self.table.is_some() { 1 } else { 5 })
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.table {
            // A failure to draw is no reason to stop.
            Some((table, _)) => drop(table.println(text)),
            None => print(text),
        }
    }

    /// `pages`: what the forwarders that run now have counted.
    pub(crate) fn draw(&mut self, observer: &Observer, ledger: &Ledger, pages: &[Metrics], subscribers: &Subscribers) {
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        self.at = Instant::now();
        let mut lines = vec![format!(
            "{:10} {:>7} {:>10} {:>11} {:>11} {:>8} {:>9} {:>9}",
            "cluster", "assets", "records/s", "arrived", "confirmed*", "pending*", "p50", "p99"
        )];
        for (index, name) in self.clusters.iter().enumerate() {
            let cluster = u8::try_from(index).unwrap_or(u8::MAX);
            let (assets, arrived, latency) = observer.look(|tally| {
                (
                    tally.assets_of(cluster),
                    tally.of_cluster(cluster),
                    tally.take_recent(cluster),
                )
            });
            let before = self
                .before
                .get_mut(index)
                .map(|before| std::mem::replace(before, arrived))
                .unwrap_or(0);
            let of_cluster = |metric| -> f64 { pages.iter().map(|page| page.sum(metric, &[("cluster", name)])).sum() };
            let (confirmed, pending) = (of_cluster(PUBLISHED), of_cluster(PENDING));
            lines.push(format!(
                "{name:10} {assets:>7} {:>10.0} {arrived:>11} {confirmed:>11} {pending:>8} {:>6.1} ms {:>6.1} ms",
                arrived.saturating_sub(before) as f64 / seconds,
                latency.quantile_ms(0.5),
                latency.quantile_ms(0.99)
            ));
        }
        let sent = ledger.acknowledged();
        let lag: f64 = pages.iter().map(|page| page.sum(LAG, &[])).sum();
        let read = subscribers
            .read()
            .map_or_else(String::new, |read| format!(", subscribers have read {read}"));
        lines.push(format!(
            "sent {sent}, on the way {}, lag* {lag}{read}   (* of the forwarders that run now)",
            sent.saturating_sub(observer.distinct())
        ));
        match &self.table {
            Some((_, bars)) => bars.iter().zip(lines).for_each(|(bar, line)| bar.set_message(line)),
            None => print(&lines.join("\n")),
        }
    }

    /// The last word.
    pub(crate) fn close(self, verdict: &Verdict, followed: Option<&Followed>) {
        if let Some((_, bars)) = &self.table {
            bars.iter().for_each(ProgressBar::abandon);
        }
        for example in &verdict.examples {
            print(example);
        }
        print(&format!(
            "sent {}, arrived {}, p50 {:.1} ms, p99 {:.1} ms",
            verdict.sent, verdict.distinct, verdict.p50_ms, verdict.p99_ms
        ));
        if let Some(followed) = followed {
            if subscribers::check(Some(followed)).is_err() || !followed.gaps.is_empty() {
                print(&followed.detail());
            }
            print(&followed.to_string());
        }
        print(&verdict.to_string());
    }
}

fn print(text: &str) {
    // Nobody is left to report a closed stdout to.
    drop(writeln!(io::stdout(), "{text}"));
}

/// A line to stderr.
pub(crate) fn complain(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
