//! The settings of topics, by their types: what Kafka takes for the same value, and what is wrong with one that it refuses.
//!
//! A broker parses what is declared and gives back its own form: `"0600000"` comes back as `600000`, `"TRUE"` as `true`, `"0.10"` as
//! `0.1`, `"1e-5"` as `1.0E-5`, `"compact , delete"` as `compact,delete`. Compared as text, such a setting would differ for ever. Our
//! library does not tell a setting's type, so they are listed here, with the types of Kafka's `LogConfig` (3.x and 4.x).

/// How Kafka parses a setting. All are trimmed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// `true` or `false`, in any case of letters.
    Boolean,
    /// 32 bits, with an optional sign.
    Int,
    /// 64 bits, with an optional sign.
    Long,
    Double,
    /// Separated by commas, with or without blanks around them; each item counts once. Empty: of any items.
    List(&'static [&'static str]),
    /// Empty: any text.
    Text(&'static [&'static str]),
}

const TYPES: &[(&str, Type)] = &[
    ("cleanup.policy", Type::List(&["compact", "delete"])),
    ("compression.gzip.level", Type::Int),
    ("compression.lz4.level", Type::Int),
    (
        "compression.type",
        Type::Text(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    ("compression.zstd.level", Type::Int),
    ("delete.retention.ms", Type::Long),
    ("file.delete.delay.ms", Type::Long),
    ("flush.messages", Type::Long),
    ("flush.ms", Type::Long),
    ("follower.replication.throttled.replicas", Type::List(&[])),
    ("index.interval.bytes", Type::Int),
    ("leader.replication.throttled.replicas", Type::List(&[])),
    ("local.retention.bytes", Type::Long),
    ("local.retention.ms", Type::Long),
    ("max.compaction.lag.ms", Type::Long),
    ("max.message.bytes", Type::Int),
    ("message.downconversion.enable", Type::Boolean),
    ("message.format.version", Type::Text(&[])),
    ("message.timestamp.after.max.ms", Type::Long),
    ("message.timestamp.before.max.ms", Type::Long),
    ("message.timestamp.difference.max.ms", Type::Long),
    ("message.timestamp.type", Type::Text(&["CreateTime", "LogAppendTime"])),
    ("min.cleanable.dirty.ratio", Type::Double),
    ("min.compaction.lag.ms", Type::Long),
    ("min.insync.replicas", Type::Int),
    ("preallocate", Type::Boolean),
    ("remote.log.copy.disable", Type::Boolean),
    ("remote.log.delete.on.disable", Type::Boolean),
    ("remote.storage.enable", Type::Boolean),
    ("retention.bytes", Type::Long),
    ("retention.ms", Type::Long),
    ("segment.bytes", Type::Int),
    ("segment.index.bytes", Type::Int),
    ("segment.jitter.ms", Type::Long),
    ("segment.ms", Type::Long),
    ("unclean.leader.election.enable", Type::Boolean),
];

fn type_of(name: &str) -> Option<Type> {
    TYPES
        .iter()
        .find(|(listed, _)| *listed == name)
        .map(|(_, type_)| *type_)
}

/// Whether Kafka takes both for the same value of the setting.
pub(super) fn same(name: &str, one: &str, other: &str) -> bool {
    let (one, other) = (trimmed(one), trimmed(other));
    if one == other {
        return true;
    }
    match type_of(name) {
        Some(Type::Boolean) => both(boolean, one, other),
        Some(Type::Int | Type::Long) => both(whole, one, other),
        Some(Type::Double) => both(double, one, other),
        Some(Type::List(_)) => items(one) == items(other),
        Some(Type::Text(_)) => false,
        // One of another Kafka. What reads as a number or a truth value on both sides is compared as that.
        None => {
            both(boolean, one, other)
                || both(whole, one, other)
                || both(double, one, other)
                || items(one) == items(other)
        }
    }
}

/// What is wrong with a value that Kafka refuses, as far as its type tells.
pub(super) fn fault(name: &str, value: &str) -> String {
    let value = trimmed(value);
    let Some(type_) = type_of(name) else {
        return "the operator knows no setting of topics with this name".to_owned();
    };
    let one_of = |allowed: &[&str]| format!("write one of {}", allowed.join(", "));
    match type_ {
        Type::Boolean if boolean(value).is_none() => "write true or false".to_owned(),
        Type::Int if value.parse::<i32>().is_err() => "write a whole number that fits in 32 bits".to_owned(),
        Type::Long if whole(value).is_none() => "write a whole number that fits in 64 bits".to_owned(),
        Type::Double if double(value).is_none() => "write a number, such as 0.5".to_owned(),
        Type::List(allowed) if !allowed.is_empty() && items(value).iter().any(|item| !allowed.contains(item)) => {
            format!("write a list of {}", allowed.join(", "))
        }
        Type::Text(allowed) if !allowed.is_empty() && !allowed.contains(&value) => one_of(allowed),
        _ => "Kafka does not take this value with the other settings; its documentation says what it allows".to_owned(),
    }
}

/// Whether both can be read, as the same.
fn both<T: PartialEq>(read: impl Fn(&str) -> Option<T>, one: &str, other: &str) -> bool {
    read(one).is_some_and(|one| read(other) == Some(one))
}

/// As Java trims: all up to the blank.
fn trimmed(value: &str) -> &str {
    value.trim_matches(|letter| letter <= ' ')
}

fn boolean(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    value.eq_ignore_ascii_case("false").then_some(false)
}

fn whole(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// Java takes the suffixes of its own literals: `0.5f`, `0.5d`.
fn double(value: &str) -> Option<f64> {
    value
        .strip_suffix(['f', 'F', 'd', 'D'])
        .unwrap_or(value)
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

fn items(value: &str) -> Vec<&str> {
    if value.is_empty() {
        return Vec::new();
    }
    let mut items = Vec::new();
    for item in value.split(',').map(trimmed) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    items
}
