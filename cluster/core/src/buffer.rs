//! Buffers whose start is aligned for direct I/O, without unsafe code, and a page of zeroes.

use bytes::{Buf, Bytes, BytesMut};

use crate::ids::{OBJECT_SIZE, UNIT_SIZE};

/// Alignment that direct I/O asks of memory, in bytes.
pub const ALIGNMENT: usize = 4096;

static ZEROES: [u8; OBJECT_SIZE] = [0; OBJECT_SIZE];

/// An empty buffer with room for `capacity` bytes whose first byte lies at a multiple of [`ALIGNMENT`].
#[must_use]
pub fn aligned(capacity: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(capacity + ALIGNMENT);
    let misalignment = buffer.as_ptr().align_offset(ALIGNMENT);
    if misalignment > 0 && misalignment < ALIGNMENT {
        buffer.resize(misalignment, 0);
        buffer.advance(misalignment);
    }
    buffer
}

/// `len` zero bytes by reference; `len` is at most one object.
#[must_use]
pub fn zeroes(len: usize) -> Bytes {
    Bytes::from_static(&ZEROES[..len])
}

/// Any number of zero bytes, as references to one page of them.
pub fn push_zeroes(out: &mut Vec<Bytes>, mut len: usize) {
    while len > 0 {
        let n = len.min(OBJECT_SIZE);
        out.push(zeroes(n));
        len -= n;
    }
}

/// Whether every byte is zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    data.chunks(UNIT_SIZE).all(|chunk| chunk == &ZEROES[..chunk.len()])
}

/// Joins segments into one buffer; a single segment is returned as it is, without a copy.
#[must_use]
pub fn join(mut segments: Vec<Bytes>) -> Bytes {
    if segments.len() == 1 {
        return segments.swap_remove(0);
    }
    let mut whole = aligned(segments.iter().map(Bytes::len).sum());
    for segment in &segments {
        whole.extend_from_slice(segment);
    }
    whole.freeze()
}

/// The bytes `[from, from + len)` of a sequence of segments, by reference.
///
/// # Panics
/// If the segments hold fewer than `from + len` bytes.
#[must_use]
pub fn slice_segments(segments: &[Bytes], mut from: usize, mut len: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(segments.len());
    for segment in segments {
        if len == 0 {
            break;
        }
        if from >= segment.len() {
            from -= segment.len();
            continue;
        }
        let n = len.min(segment.len() - from);
        out.push(segment.slice(from..from + n));
        from = 0;
        len -= n;
    }
    assert_eq!(len, 0, "segments end before the range does");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_buffers_stay_aligned_while_filled() {
        for capacity in [0, 1, 4096, 12_288, 1 << 20] {
            let mut buffer = aligned(capacity);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            let start = buffer.as_ptr();
            buffer.resize(capacity, 7);
            assert_eq!(buffer.as_ptr(), start, "no reallocation within the capacity");
        }
    }

    #[test]
    fn slices_of_segments() {
        let segments = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        assert_eq!(join(slice_segments(&segments, 2, 3)), "cde");
        assert_eq!(join(slice_segments(&segments, 0, 7)), "abcdefg");
        assert!(slice_segments(&segments, 7, 0).is_empty());
    }

    #[test]
    fn zero_detection() {
        assert!(is_zero(&[0; 5000]));
        let mut data = [0; 5000];
        data[4999] = 1;
        assert!(!is_zero(&data));
    }
}
