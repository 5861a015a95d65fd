//! A record as it came from Kafka, packed to go with its message.

use forwarder_core::record::Header;

/// How large a record is: key, value and headers.
#[must_use]
pub fn record_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> usize {
    let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers = headers.iter().map(|(name, value)| name.len() + length(*value));
    headers.fold(length(key) + length(value), usize::saturating_add)
}

/// A record as it came from Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers, in order. Names are bytes: what came need not have been UTF-8.
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Original<'a> {
    /// Appends key, value and headers, each with its length.
    pub fn pack(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>], out: &mut Vec<u8>) {
        pack_one(key, out);
        pack_one(value, out);
        for (name, value) in headers {
            pack_one(Some(name.as_bytes()), out);
            pack_one(*value, out);
        }
    }

    pub(super) fn unpack(mut bytes: &'a [u8]) -> Self {
        let key = unpack_one(&mut bytes);
        let value = unpack_one(&mut bytes);
        let mut headers = Vec::new();
        while !bytes.is_empty() {
            let name = unpack_one(&mut bytes).unwrap_or_default();
            headers.push((name, unpack_one(&mut bytes)));
        }
        Self { key, value, headers }
    }
}

/// The length that stands for "none". No Kafka field is that long.
const NONE: u32 = u32::MAX;

fn pack_one(field: Option<&[u8]>, out: &mut Vec<u8>) {
    let length = field.map_or(NONE, |field| u32::try_from(field.len()).unwrap_or(NONE));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(field.unwrap_or_default());
}

fn unpack_one<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NONE {
        *bytes = rest;
        return None;
    }
    let (field, rest) = rest.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(field)
}
