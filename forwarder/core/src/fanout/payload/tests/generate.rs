//! Records that are valid or nearly so.

use proptest::prelude::*;

use super::model::{Json, text};

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
