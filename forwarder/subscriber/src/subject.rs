//! Subjects of records: the forwarder's template, filled for one asset. Pure.

use forwarder_core::subject::{MAX_SUBJECT_BYTES, is_clean};

use crate::error::SubjectError;

/// Fills the template. `id` is an ID, `*` for IDs of one token, or `>` where the template ends in `.{id}`.
pub(crate) fn subject_of(template: &str, asset: &str, id: &str) -> Result<String, SubjectError> {
    if !is_clean(asset.as_bytes()) {
        return Err(SubjectError::Asset(asset.to_owned()));
    }
    let is_possible = match id {
        ">" => template.ends_with(".{id}") && template.matches("{id}").count() == 1,
        "*" => template
            .split('.')
            .all(|token| token == "{id}" || !token.contains("{id}")),
        id => is_clean(id.as_bytes()),
    };
    if !is_possible {
        return Err(SubjectError::Id {
            id: id.to_owned(),
            template: template.to_owned(),
        });
    }
    // Place by place, so that no part of an asset is taken for a place.
    let mut subject = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        subject.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{key}") {
            subject.push_str(asset);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{id}") {
            subject.push_str(id);
            rest = after;
        } else {
            subject.push('{');
            rest = &rest[1..];
        }
    }
    subject.push_str(rest);
    if subject.len() > MAX_SUBJECT_BYTES {
        return Err(SubjectError::TooLong);
    }
    Ok(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in_one_pass() {
        for (template, asset, id, expected) in [
            ("{key}.{id}", "PLC-17", "*", "PLC-17.*"),
            ("plant.{key}.{id}", "PLC-17", ">", "plant.PLC-17.>"),
            ("{id}.{key}", "a.b", "temp", "temp.a.b"),
            ("{key}.{id}", "{id}", "x", "{id}.x"),
        ] {
            assert_eq!(subject_of(template, asset, id).unwrap(), expected);
        }
    }

    #[test]
    fn what_makes_no_subject_or_another_one_is_refused() {
        for (template, asset, id) in [
            ("{key}.{id}", "*", "*"),
            ("{key}.{id}", "", "*"),
            ("{key}.{id}", "a b", "*"),
            ("{key}.{id}", "a..b", "*"),
            ("{key}.{id}", "a", "b.>"),
            ("{id}.{key}", "a", ">"),
            ("{key}.x-{id}", "a", "*"),
            ("{key}.{id}", &"a".repeat(4_000), "*"),
        ] {
            assert!(subject_of(template, asset, id).is_err(), "{template} {asset} {id}");
        }
    }
}
