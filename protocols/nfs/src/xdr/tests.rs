//! Byte vectors of RFC 4506 and the limits of every primitive.

use super::*;

fn encoded(value: &impl Xdr) -> Vec<u8> {
    let mut w = Writer::new();
    value.encode(&mut w);
    w.into_bytes().to_vec()
}

fn decode<T: Xdr>(bytes: &[u8]) -> Result<T, XdrError> {
    let message = Bytes::copy_from_slice(bytes);
    let mut r = Reader::new(&message);
    let value = T::decode(&mut r)?;
    r.finish()?;
    Ok(value)
}

#[test]
fn primitives_have_the_standard_form() {
    assert_eq!(encoded(&0x0102_0304_u32), [1, 2, 3, 4]);
    assert_eq!(encoded(&0x0102_0304_0506_0708_u64), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(encoded(&true), [0, 0, 0, 1]);
    assert_eq!(encoded(&Some(7_u32)), [0, 0, 0, 1, 0, 0, 0, 7]);
    assert_eq!(encoded(&None::<u32>), [0, 0, 0, 0]);
    assert_eq!(encoded(&List(vec![5_u32])), [0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0]);
    assert_eq!(encoded(&Array(vec![5_u32])), [0, 0, 0, 1, 0, 0, 0, 5]);
}

/// RFC 4506 section 7: "sillyprog", "john", "(quit)" as they stand in the example.
#[test]
fn strings_are_padded_to_words() {
    for (text, hex) in [
        (&b"sillyprog"[..], &b"\0\0\0\x09sillyprog\0\0\0"[..]),
        (b"john", b"\0\0\0\x04john"),
        (b"(quit)", b"\0\0\0\x06(quit)\0\0"),
        (b"", b"\0\0\0\0"),
    ] {
        let value = Bytes::copy_from_slice(text);
        assert_eq!(encoded(&value), hex);
        assert_eq!(decode::<Bytes>(hex), Ok(value));
    }
}

#[test]
fn lengths_near_the_wrap_are_refused() {
    for length in [u32::MAX, u32::MAX - 1, u32::MAX - 2, u32::MAX - 3, 1 << 31, 9] {
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(b"12345678");
        assert_eq!(decode::<Bytes>(&message), Err(XdrError::Truncated), "{length:#x}");
        let limit = 8;
        let message = Bytes::from(message);
        let refused = Reader::new(&message).opaque(limit);
        assert_eq!(refused, Err(XdrError::TooLong { length, limit }));
    }
}

#[test]
fn array_counts_never_exceed_the_message() {
    for count in [u32::MAX, 1 << 30, 3] {
        let mut message = count.to_be_bytes().to_vec();
        message.extend_from_slice(&[0; 8]);
        let expected = XdrError::TooLong {
            length: count,
            limit: 2,
        };
        assert_eq!(decode::<Array<u64>>(&message), Err(expected));
    }
}

#[test]
fn missing_padding_is_a_truncation() {
    assert_eq!(decode::<Bytes>(b"\0\0\0\x05hello\0\0"), Err(XdrError::Truncated));
}

#[test]
fn booleans_are_zero_or_one() {
    for bad in [2, 256, u32::MAX] {
        assert_eq!(decode::<bool>(&bad.to_be_bytes()), Err(XdrError::BadBool(bad)));
        assert_eq!(decode::<Option<u32>>(&bad.to_be_bytes()), Err(XdrError::BadBool(bad)));
    }
}

#[test]
fn trailing_bytes_are_seen() {
    assert_eq!(decode::<u32>(&[0; 5]), Err(XdrError::Trailing(1)));
}

#[test]
fn opaque_data_is_not_copied() {
    let message = Bytes::from_static(b"\0\0\0\x03abc\0");
    let data = Reader::new(&message).opaque(3).unwrap();
    assert_eq!(data.as_ptr(), message[4..].as_ptr());
}

#[test]
fn payloads_are_not_copied_and_padded() {
    for length in 0..9 {
        let data = Bytes::from(vec![b'x'; length]);
        let mut w = Writer::new();
        w.payload(std::slice::from_ref(&data));
        let total = w.len();
        let mut out = Vec::new();
        w.finish(&mut out);
        assert_eq!(total, out.iter().map(Bytes::len).sum::<usize>());
        assert_eq!(out.concat(), encoded(&data));
        if length > 0 {
            assert_eq!(out[1].as_ptr(), data.as_ptr());
        }
    }
}

#[test]
#[should_panic(expected = "a payload ends its message")]
fn nothing_follows_a_payload() {
    let mut w = Writer::new();
    w.payload(&[]);
    w.u32(1);
    w.finish(&mut Vec::new());
}
