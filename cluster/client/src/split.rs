//! Cuts byte ranges of an image at object boundaries.

use bytes::Bytes;
use trivet_core::buffer::slice_segments;
use trivet_core::{ImageId, OBJECT_SIZE, ObjectId};

/// The part of a range that lies in one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The object.
    pub object: ObjectId,
    /// First byte within it.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// The first slice of `[offset, end)`, which is not empty.
pub(crate) fn first_slice(image: ImageId, offset: u64, end: u64) -> Slice {
    let size = OBJECT_SIZE as u64;
    let within = offset % size;
    let len = (size - within).min(end - offset);
    Slice {
        object: ObjectId {
            image,
            number: offset / size,
        },
        offset: usize::try_from(within).expect("less than an object"),
        len: usize::try_from(len).expect("at most an object"),
    }
}

/// How many objects `[offset, end)` touches.
pub(crate) fn slices(offset: u64, end: u64) -> usize {
    let size = OBJECT_SIZE as u64;
    if end <= offset {
        return 0;
    }
    usize::try_from((end - 1) / size - offset / size + 1).unwrap_or(usize::MAX)
}

/// The bytes of `data`, which starts at `start` of the image, that belong to a slice at `offset` of the image.
pub(crate) fn payload(data: &[Bytes], start: u64, offset: u64, len: usize) -> Vec<Bytes> {
    let from = usize::try_from(offset - start).expect("within the payload");
    slice_segments(data, from, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        let size = OBJECT_SIZE as u64;
        // (offset, end) -> (object number, offset, len), objects touched
        let table = [
            ((0, 1), (0, 0, 1), 1),
            ((size - 1, size + 1), (0, OBJECT_SIZE - 1, 1), 2),
            ((size, 3 * size), (1, 0, OBJECT_SIZE), 2),
            ((u64::MAX - 2, u64::MAX), (u64::MAX / size, OBJECT_SIZE - 3, 2), 1),
        ];
        for ((offset, end), (number, within, len), count) in table {
            let slice = first_slice(ImageId(9), offset, end);
            assert_eq!((slice.object.number, slice.offset, slice.len), (number, within, len));
            assert_eq!(slices(offset, end), count, "{offset}..{end}");
        }
        assert_eq!(slices(5, 5), 0);
    }
}
