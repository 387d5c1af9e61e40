//! The fuzzer's entry: bytes go in as they are, and once more behind a header that is right.

use bytes::{Bytes, BytesMut};

use super::frame::{HEADER, Kind, seal};
use super::{Limits, WireError, decode, encode};
use crate::message::Message;

/// Feeds `data` to the decoder, whole and split.
///
/// # Panics
/// If the decoder breaks a promise. That is what a fuzzer looks for.
pub fn fuzz(data: &[u8]) {
    check(data);
    check(&behind_header(data));
}

fn check(data: &[u8]) {
    let step = 1 + usize::from(data.last().copied().unwrap_or(0));
    let (messages, end) = run(data, data.len().max(1));
    assert_eq!(
        (&messages, end),
        (&run(data, step).0, run(data, step).1),
        "the split of the input changed its meaning"
    );
    let mut again = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut again));
    assert!(data.starts_with(&again.concat()), "a message has two spellings");
}

/// The messages in `data`, fed in pieces of `step` bytes, and why it ended if not for lack of bytes.
fn run(data: &[u8], step: usize) -> (Vec<Message>, Result<(), WireError>) {
    let limits = Limits::default();
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match decode(&mut input, &limits) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

/// A frame with right sums: the first byte chooses the kind, the next two the length of the body.
fn behind_header(data: &[u8]) -> Vec<u8> {
    let Some(([kind, low, high], rest)) = data.split_first_chunk() else {
        return Vec::new();
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let meta = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let mut frame = vec![0; HEADER];
    frame.extend_from_slice(&rest[..meta]);
    let payload = Bytes::copy_from_slice(&rest[meta..]);
    seal(kind, &mut frame, std::slice::from_ref(&payload));
    frame.extend_from_slice(&payload);
    frame
}
