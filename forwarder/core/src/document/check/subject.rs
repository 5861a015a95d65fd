//! Patterns of subjects.

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
