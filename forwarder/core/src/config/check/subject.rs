//! What can be said about subjects before there is a record.

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
        return Some("has a wildcard that is no token of its own, or a > before the end");
    }
    None
}

/// Whether some subject below the literal prefix matches the pattern.
pub(super) fn meets(pattern: &str, prefix: &str) -> bool {
    for (token, literal) in pattern.split('.').zip(prefix.split('.')) {
        match token {
            ">" => return true,
            "*" => {}
            token if token == literal => {}
            _ => return false,
        }
    }
    // What follows the prefix may be anything, but is at least one token.
    pattern.split('.').count() > prefix.split('.').count()
}

/// What the server keeps for itself, by the first token.
pub(super) fn is_reserved(subject: &str) -> bool {
    let first = subject.split('.').next().unwrap_or_default();
    first.starts_with('$') || first == "_INBOX"
}

/// Why a template makes no subjects, if it makes none; else its literal tokens before the first placeholder.
pub(super) fn template(template: &str) -> Result<String, &'static str> {
    let mut prefix = Vec::new();
    let mut literal = true;
    let (mut key, mut id) = (false, false);
    for token in template.split('.') {
        match token {
            "" => return Err("has an empty token"),
            "{key}" => key = true,
            "{id}" => id = true,
            _ if token.contains(['{', '}', '*', '>']) || token.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                return Err("has a token that is neither literal nor {key} nor {id}");
            }
            _ if literal => prefix.push(token),
            _ => {}
        }
        literal &= !key && !id;
    }
    if !key || !id {
        return Err("lacks {key} or {id}: subjects of different assets would be one");
    }
    Ok(prefix.join("."))
}
