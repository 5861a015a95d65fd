//! JSON as a tree that keeps every spelling, for comparison: slow, and nothing like the code under test.

use proptest::prelude::*;

/// A value; strings and names as they are written between their quotes, other scalars as they are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    String(String),
    Other(String),
}

pub(super) fn member(name: &str, value: Json) -> (String, Json) {
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

/// A record, and one way to write it.
pub(super) fn record() -> impl Strategy<Value = (Json, String)> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["id", "ID", "Id", "i\\u0064", "\\u0049D", "attributes", "attribute\\u0073"]),
        2 => prop::sample::select(vec!["a", "b", "", "VALUE", "\\ud800", "kafka_timestamp", "naïve", "x\\\"y\\\\"]),
    ];
    let stamp_name = prop::sample::select(vec![
        "kafka_timestamp",
        "kafka_timest\\u0061mp",
        "kafka_timestamp_type",
        "asset_forwarder_timestamp",
        "a",
        "unit",
        "id",
    ]);
    let attributes = prop::collection::vec((stamp_name.prop_map(str::to_owned), tree()), 0..6).prop_map(Json::Object);
    let member = (
        name,
        prop_oneof![4 => tree(), 1 => Just(Json::Other("null".to_owned()))],
        attributes,
    )
        .prop_map(|(name, value, attributes)| {
            // Mostly what has a chance to be valid.
            let is_attributes = text(name).as_deref() == Some("attributes");
            (
                name.to_owned(),
                if is_attributes && value != Json::Other("null".to_owned()) {
                    attributes
                } else {
                    value
                },
            )
        });
    let record = prop::collection::vec(member, 0..7).prop_map(Json::Object);
    (
        record,
        prop::collection::vec(prop::sample::select(vec!["", "", "", " ", "\n\t", "\r  "]), 1..8),
    )
        .prop_map(|(record, spaces)| {
            let mut written = String::new();
            write(&record, &mut written, &mut spaces.iter().cycle().copied());
            (record, written)
        })
}

fn tree() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        prop::sample::select(vec![
            "0",
            "-0",
            "0.0",
            "0e5",
            "1",
            "-1",
            "1.0",
            "1.50",
            "1e400",
            "-1E-400",
            "12345678901234567890",
            "1e+05",
            "true",
            "false",
            "null",
        ])
        .prop_map(|scalar| Json::Other(scalar.to_owned())),
        prop::sample::select(vec![
            "",
            "x",
            "\\ud800",
            "\\ud83d\\ude00",
            "é",
            "😀",
            "\\n\\\\",
            "a.b",
            "\\\"",
            "0",
            "a longer text than one word has",
        ])
        .prop_map(|raw| Json::String(raw.to_owned())),
        "[a-z,:{}\\[\\] ]{0,20}".prop_map(Json::String),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        let name = prop::sample::select(vec!["id", "a", "attributes", "a", "\\udfff", "kafka_timestamp"])
            .prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec((name, inner), 0..4).prop_map(Json::Object),
        ]
    })
}

fn write<'s>(value: &Json, out: &mut String, spaces: &mut impl Iterator<Item = &'s str>) {
    out.extend(spaces.next());
    match value {
        Json::Object(members) => {
            out.push('{');
            for (number, (name, value)) in members.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.extend([
                    spaces.next().unwrap_or(""),
                    "\"",
                    name,
                    "\"",
                    spaces.next().unwrap_or(""),
                    ":",
                ]);
                write(value, out, spaces);
            }
            out.extend(spaces.next());
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out, spaces);
            }
            out.extend(spaces.next());
            out.push(']');
        }
        Json::String(raw) => out.extend(["\"", raw, "\""]),
        Json::Other(scalar) => out.push_str(scalar),
    }
    out.extend(spaces.next());
}
