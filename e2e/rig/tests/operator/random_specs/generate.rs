//! Specs that the definitions' schemas allow, more or less.

use e2e_rig::random::Random;
use serde_json::{Map, Value, json};

/// What a text might be, wherever one is wanted.
const TEXTS: [&str; 16] = [
    "a",
    "c1",
    "plant-1",
    "Plant_1",
    "a.b.c",
    "",
    " ",
    "ü",
    "*",
    "{key}.{id}",
    "assets.{key}.{id}",
    "$SYS.x",
    "../../etc/passwd",
    "a b",
    "30",
    "true",
];

/// A value for a schema. What `base` says stays in most cases, so that much of what is made is accepted.
pub(crate) fn value(random: &mut Random, name: &str, schema: &Value, base: Option<&Value>) -> Value {
    if let Some(base) = base.filter(|base| !base.is_object())
        && !random.one_in(30)
    {
        return base.clone();
    }
    if let Some(options) = schema["enum"].as_array()
        && !random.one_in(30)
    {
        return options[random.within(0..options.len() as u64) as usize].clone();
    }
    match schema["type"].as_str() {
        // Sometimes something of another kind.
        _ if random.one_in(100) => json!([1, {"x": null}]),
        Some("object") if schema["properties"].is_object() => object(random, schema, base),
        Some("object") => map(random, &schema["additionalProperties"]),
        Some("array") => {
            let (least, most) = (
                schema["minItems"].as_u64().unwrap_or(0),
                schema["maxItems"].as_u64().unwrap_or(3),
            );
            let count = random.within(least..most.min(least + 2) + 1);
            (0..count)
                .map(|_| value(random, name, &schema["items"], None))
                .collect()
        }
        Some("string") => json!(text(random, name)),
        Some("boolean") => json!(random.one_in(2)),
        Some("integer" | "number") => number(random, name, schema),
        // A quantity, or anything at all.
        _ => json!(random.pick(&["100m", "64Mi", "1", "many", "-1"])),
    }
}

fn object(random: &mut Random, schema: &Value, base: Option<&Value>) -> Value {
    let mut object = Map::new();
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let base = base.and_then(|base| base.get(name));
        let is_wanted = if base.is_some() || required.contains(&name.as_str()) {
            !random.one_in(60)
        } else {
            random.one_in(5)
        };
        if is_wanted {
            object.insert(name.clone(), value(random, name, property, base));
        }
    }
    if random.one_in(60) {
        object.insert("nobodyKnowsThis".to_owned(), json!(1));
    }
    Value::Object(object)
}

fn map(random: &mut Random, schema: &Value) -> Value {
    let count = random.within(0..3);
    let entries = (0..count).map(|_| {
        let name = random.pick(&[
            "a",
            "linger.ms",
            "retention.ms",
            "group.instance.id",
            "team",
            "x/y",
            "A B",
        ]);
        (name.to_owned(), value(random, name, schema, None))
    });
    Value::Object(entries.collect())
}

/// What fits the field, or what fits some other one.
fn text(random: &mut Random, name: &str) -> String {
    let fitting: &[&str] = match name {
        "servers" => &[
            "nats://127.0.0.1:1",
            "tls://nats.invalid:4222",
            "nats://u:p@127.0.0.1:1",
        ],
        "bootstrapServers" => &["127.0.0.1:1"],
        "name" | "claimName" | "key" | "usernameKey" => &["a", "c1", "login"],
        "group" | "ringName" => &["g", "C1"],
        "subject" => &["{key}.{id}", "assets.{key}.{id}", "assets.>"],
        "timestamp" => &["2026-01-31T06:00:00Z", "yesterday"],
        "image" => &["nowhere.invalid/forwarder:1"],
        "address" => &["kafka://example.com/assets"],
        "operator" => &["Exists", "In"],
        _ => &[],
    };
    if !fitting.is_empty() && !random.one_in(8) {
        return random.pick(fitting).to_owned();
    }
    if random.one_in(20) {
        return "x".repeat(random.within(1..600) as usize);
    }
    random.pick(&TEXTS).to_owned()
}

fn number(random: &mut Random, name: &str, schema: &Value) -> Value {
    // Topics are really made.
    if ["partitions", "replicationFactor", "allowPartitionIncrease"].contains(&name) {
        return json!(random.pick(&[1, 1, 1, 2, 0, -1]));
    }
    let least = schema["minimum"].as_f64().unwrap_or(-2.0) as i64;
    let most = schema["maximum"].as_f64().unwrap_or(1e9) as i64;
    let near = least.saturating_add(random.within(0..5) as i64);
    json!(random.pick(&[least, most, near, near, least.saturating_sub(1), most.saturating_add(1)]))
}
