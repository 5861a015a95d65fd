//! Subjects, and patterns of them.

use crate::document::fault::Faults;

/// Why a text is no pattern of subjects, if it is none.
pub(super) fn pattern_problem(pattern: &str) -> Option<&'static str> {
    let tokens: Vec<_> = pattern.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return Some("has an empty token");
    }
    if pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("holds a blank or a control character");
    }
    let misplaced = |(index, token): (usize, &&str)| match *token {
        ">" => index + 1 < tokens.len(),
        "*" => false,
        token => token.contains(['*', '>']),
    };
    if tokens.iter().enumerate().any(misplaced) {
        return Some("has a wildcard inside a token, or a > before the end");
    }
    None
}

/// A subject without wildcards, as what other tokens are put behind.
pub(super) fn check_literal(faults: &mut Faults<'_>, text: &str, example: &str) {
    if let Some(problem) = pattern_problem(text) {
        faults.add(
            format!("{text:?} {problem}"),
            format!("write a subject such as {example}"),
        );
    } else if text.contains(['*', '>']) {
        faults.add(
            format!("{text:?} has a wildcard"),
            format!("write a subject such as {example}"),
        );
    }
}
