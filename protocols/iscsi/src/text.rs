//! The text format of login and text negotiation (RFC 7143 6.1): `key=value` pairs, each ended by a zero byte.

use bytes::{BufMut, BytesMut};

/// Most bytes of one request over all its PDUs.
pub(crate) const MAX_TEXT: usize = 32 << 10;
/// Most pairs of one request: an answer to each then fits the 8192 bytes that every initiator takes.
pub(crate) const MAX_PAIRS: usize = 64;
/// Most bytes of a key (RFC 7143 6.1).
const MAX_KEY: usize = 63;
/// Most bytes of a value (RFC 7143 6.1: 255 unless the key says otherwise; lists may be longer).
const MAX_VALUE: usize = 1024;

/// Why text is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A pair without its zero byte at the end.
    #[error("text does not end with a zero byte")]
    Unterminated,
    /// A pair without '=' or with an impossible key.
    #[error("text has a pair without a valid key")]
    Key,
    /// A value that is not UTF-8 or too long.
    #[error("text has a value that is not valid")]
    Value,
    /// More than 64 pairs or 32 KiB.
    #[error("text is too long")]
    TooLong,
}

/// The pairs of a whole request.
pub(crate) fn pairs(bytes: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    let Some((last, rest)) = bytes.split_last() else {
        return Ok(Vec::new());
    };
    if *last != 0 {
        return Err(TextError::Unterminated);
    }
    let mut out = Vec::new();
    for piece in rest.split(|byte| *byte == 0).filter(|piece| !piece.is_empty()) {
        if out.len() == MAX_PAIRS {
            return Err(TextError::TooLong);
        }
        out.push(pair(piece)?);
    }
    Ok(out)
}

fn pair(piece: &[u8]) -> Result<(&str, &str), TextError> {
    let equals = piece.iter().position(|byte| *byte == b'=').ok_or(TextError::Key)?;
    let (key, value) = (&piece[..equals], &piece[equals + 1..]);
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+@_#:/".contains(byte);
    if key.is_empty() || key.len() > MAX_KEY || !key.iter().all(valid) {
        return Err(TextError::Key);
    }
    let key = std::str::from_utf8(key).map_err(|_| TextError::Key)?;
    if value.len() > MAX_VALUE {
        return Err(TextError::Value);
    }
    Ok((key, std::str::from_utf8(value).map_err(|_| TextError::Value)?))
}

/// Appends a pair.
pub(crate) fn put(out: &mut BytesMut, key: &str, value: &str) {
    out.put_slice(key.as_bytes());
    out.put_u8(b'=');
    out.put_slice(value.as_bytes());
    out.put_u8(0);
}

/// A number, decimal or hexadecimal (RFC 7143 6.1).
pub(crate) fn number(value: &str) -> Option<u32> {
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain {
        u32::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split() {
        assert_eq!(
            pairs(b"A=1\0B=\0\0C=x=y\0"),
            Ok(vec![("A", "1"), ("B", ""), ("C", "x=y")])
        );
        assert_eq!(pairs(b""), Ok(vec![]));
        assert_eq!(pairs(b"\0"), Ok(vec![]));
    }

    #[test]
    fn malformed_text() {
        let many = b"A=1\0".repeat(MAX_PAIRS + 1);
        let long_key = [&[b'k'; 64][..], b"=1\0"].concat();
        let long_value = [b"k=", &[b'v'; MAX_VALUE + 1][..], b"\0"].concat();
        for (bytes, want) in [
            (&b"A=1"[..], TextError::Unterminated),
            (b"A\0", TextError::Key),
            (b"=1\0", TextError::Key),
            (b"A B=1\0", TextError::Key),
            (b"A=\xFF\0", TextError::Value),
            (&long_key, TextError::Key),
            (&long_value, TextError::Value),
            (&many, TextError::TooLong),
        ] {
            assert_eq!(pairs(bytes), Err(want));
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number("262144"), Some(262_144));
        assert_eq!(number("0x1F"), Some(31));
        for wrong in ["", "0x", "-1", "+1", "1k", "4294967296", " 1"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
