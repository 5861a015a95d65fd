//! JSON as a tree that keeps every spelling, and the edit done on it: slow, and nothing like the code under test.
//!
//! The fuzz target `payload` compares with it too, so whoever includes this file brings what it edits with.

use super::{Invalid, Stamps};

/// A value; strings and names as they are written between their quotes, other scalars as they are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    String(String),
    Other(String),
}

/// What the edit is to do, by the plainest means.
pub(super) fn expected(stamps: &Stamps<'_>, record: &Json) -> Result<(String, Json), Invalid> {
    let Json::Object(members) = record else {
        return Err(Invalid::NotAnObject);
    };
    let mut members = members.clone();
    let last = members
        .iter()
        .rposition(|(name, _)| text(name).as_deref() == Some("attributes"));
    let at = last.unwrap_or_else(|| {
        members.push(member("attributes", Json::Object(vec![])));
        members.len() - 1
    });
    let Json::Object(attributes) = &mut members[at].1 else {
        return Err(Invalid::BadAttributes);
    };
    let (time, kind) = stamps.kafka.unzip();
    for (name, stamp) in [
        ("asset_forwarder_timestamp", Some(stamps.forwarder)),
        ("kafka_timestamp", time),
        ("kafka_timestamp_type", kind),
    ] {
        let is_it = |member: &(String, Json)| text(&member.0).as_deref() == Some(name);
        match stamp {
            None => attributes.retain(|member| !is_it(member)),
            Some(stamp) => {
                let stamp = Json::String(stamp.to_owned());
                if !attributes.iter().any(is_it) {
                    attributes.push(member(name, stamp.clone()));
                }
                attributes
                    .iter_mut()
                    .filter(|member| is_it(member))
                    .for_each(|member| member.1 = stamp.clone());
            }
        }
    }
    let id_name = members
        .iter()
        .filter_map(|(name, _)| text(name))
        .find(|name| name.eq_ignore_ascii_case("id"));
    let id_name = id_name.ok_or(Invalid::NoId)?;
    let is_id = |member: &(String, Json)| text(&member.0).as_ref() == Some(&id_name);
    let value = members
        .iter()
        .rfind(|member| is_id(member))
        .map(|member| member.1.clone());
    members.retain(|member| !is_id(member));
    let id = match value {
        Some(Json::String(raw)) if !raw.is_empty() => text(&raw).ok_or(Invalid::BadSubject)?,
        Some(Json::Other(number)) if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            let mantissa = number.split(['e', 'E']).next().unwrap();
            if !mantissa.contains(|c: char| matches!(c, '1'..='9')) {
                return Err(Invalid::NoId);
            }
            number
        }
        _ => return Err(Invalid::NoId),
    };
    Ok((id, Json::Object(members)))
}

fn member(name: &str, value: Json) -> (String, Json) {
    (name.to_owned(), value)
}

/// What a string says, if that is text.
pub(super) fn text(raw: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{raw}\"")).ok()
}

/// The tree of a text that is known to be JSON.
pub(super) fn parse(json: &str) -> Json {
    let tokens = tokens(json);
    let mut rest = tokens.as_slice();
    let value = value(&mut rest);
    assert!(rest.is_empty(), "{rest:?} after {json}");
    value
}

fn tokens(json: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = json.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                let mut token = String::from('"');
                while let Some(char) = chars.next().filter(|char| *char != '"') {
                    token.push(char);
                    if char == '\\' {
                        token.extend(chars.next());
                    }
                }
                tokens.push(token);
            }
            '{' | '}' | '[' | ']' | ',' | ':' => tokens.push(char.into()),
            _ => {
                let mut token = String::from(char);
                while let Some(char) = chars.next_if(|char| !" \t\r\n{}[],:\"".contains(*char)) {
                    token.push(char);
                }
                tokens.push(token);
            }
        }
    }
    tokens
}

fn value(rest: &mut &[String]) -> Json {
    let mut next = || {
        let (first, others) = rest.split_first().expect("more tokens");
        *rest = others;
        first.as_str()
    };
    match next() {
        "{" => {
            let mut members = Vec::new();
            while rest[0] != "}" {
                let name = rest[0].strip_prefix('"').expect("a name").to_owned();
                assert_eq!(rest[1], ":");
                *rest = &rest[2..];
                members.push((name, value(rest)));
                separator(rest, "}");
            }
            *rest = &rest[1..];
            Json::Object(members)
        }
        "[" => {
            let mut items = Vec::new();
            while rest[0] != "]" {
                items.push(value(rest));
                separator(rest, "]");
            }
            *rest = &rest[1..];
            Json::Array(items)
        }
        token => match token.strip_prefix('"') {
            Some(raw) => Json::String(raw.to_owned()),
            None => Json::Other(token.to_owned()),
        },
    }
}

fn separator(rest: &mut &[String], close: &str) {
    if rest[0] == "," {
        *rest = &rest[1..];
        assert_ne!(rest[0], close, "a comma before the end");
    } else {
        assert_eq!(rest[0], close);
    }
}
