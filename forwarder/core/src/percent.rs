//! Percent-encoding.

/// Encodes all but visible ASCII; of that, `%` and `also`.
pub(crate) fn escape(bytes: &[u8], also: u8, out: &mut Vec<u8>) {
    escape_all_of(bytes, &[also], out);
}

/// As [`escape`], with several bytes to encode.
pub(crate) fn escape_all_of(bytes: &[u8], also: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'%' && !also.contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// The bytes that the text stands for; `None`: a `%` without its two digits.
pub(crate) fn unescape(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        if *first == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
            out.push((high? * 16 + low?) as u8);
            bytes = after;
        } else {
            out.push(*first);
            bytes = rest;
        }
    }
    Some(out)
}
