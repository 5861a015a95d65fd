//! What a run of these tests tells besides that they pass: how often, how long, how much.

/// Tells a figure to whoever looks at the test's output.
#[expect(clippy::print_stderr, reason = "nextest keeps what a test prints")]
pub(crate) fn tell(figure: &str) {
    eprintln!("{figure}");
}
