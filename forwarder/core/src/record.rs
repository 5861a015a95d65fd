//! What a record is on its way in: positions, timestamps, and the reasons for which it cannot be forwarded.

use std::fmt;

/// A Kafka header as it came: name, and value where there is one.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// When Kafka says a record was made, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Milliseconds since the epoch.
    pub millis: i64,
    /// Who set the time.
    pub kind: TimestampKind,
}

/// Who set a record's timestamp; the words are those of `attributes.kafka_timestamp_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// `CreateTime`: the producer.
    Producer,
    /// `LogAppendTime`: the broker.
    Broker,
    /// The broker did not say.
    Unknown,
}

impl TimestampKind {
    /// The word that the payload carries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Broker => "broker",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a record was read: no two records of a cluster's topic share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Why a record can never be forwarded, whatever the target does.
///
/// Such a record is counted by [`Invalid::reason`], dead-lettered where that is declared, and stepped over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// The record has no key, so no asset owns it.
    NoKey,
    /// The key is empty or not UTF-8.
    BadKey,
    /// The value is null (a tombstone) or absent.
    NullValue,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not one JSON text as RFC 8259 has it.
    NotJson,
    /// The value is JSON, but no object.
    NotAnObject,
    /// Nested deeper than the payload edit follows.
    TooDeep,
    /// `attributes` is there, but no object.
    BadAttributes,
    /// No member named `id`, or one that holds neither a non-empty string nor a number other than zero.
    NoId,
    /// Key and ID make a subject that the asset may not publish to.
    BadSubject,
    /// A header's name is not UTF-8.
    BadHeaders,
    /// Larger than the target server takes.
    TooLarge,
    /// Refused by the target as often as the configuration allows.
    Refused,
    /// Refused by the target, which no configuration of it could change.
    Impossible,
    /// Key, value and headers are larger than `engine.maxRecordBytes`: nothing of it is copied.
    RecordTooLarge,
}

impl Invalid {
    /// Every reason, in the order of declaration: metrics show each from the start.
    pub const ALL: [Self; 15] = [
        Self::NoKey,
        Self::BadKey,
        Self::NullValue,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::BadAttributes,
        Self::NoId,
        Self::BadSubject,
        Self::BadHeaders,
        Self::TooLarge,
        Self::Refused,
        Self::Impossible,
        Self::RecordTooLarge,
    ];

    /// The label of metrics and dead letters: fixed strings, a contract.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::BadKey => "bad_key",
            Self::NullValue => "null_value",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::BadAttributes => "bad_attributes",
            Self::NoId => "no_id",
            Self::BadSubject => "bad_subject",
            Self::BadHeaders => "bad_headers",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Impossible => "impossible",
            Self::RecordTooLarge => "record_too_large",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "the record has no key",
            Self::BadKey => "the key is empty or not UTF-8",
            Self::NullValue => "the value is null",
            Self::NotUtf8 => "the value is not UTF-8",
            Self::NotJson => "the value is not JSON",
            Self::NotAnObject => "the value is JSON, but not an object",
            Self::TooDeep => "the value is nested too deeply",
            Self::BadAttributes => "the member `attributes` is not an object",
            Self::NoId => "no member `id` holds a non-empty string or a number other than zero",
            Self::BadHeaders => "the name of a header is not UTF-8",
            Self::BadSubject => "key and ID make an invalid subject",
            Self::TooLarge => "the message is larger than the NATS server accepts",
            Self::Refused => "the NATS server refused the record as often as publish.retry.maxAttempts allows",
            Self::Impossible => {
                "the NATS server refused the record, and no configuration of the server would accept it"
            }
            Self::RecordTooLarge => "key, value and headers are larger than engine.maxRecordBytes",
        })
    }
}
