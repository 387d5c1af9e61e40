//! Carrying a command out: what is answered at once, what is asked of the backend, and how its answer is reported.

use bytes::{BufMut, Bytes, BytesMut};

use crate::cdb::{Command, Extent};
use crate::{BLOCK, Sense, Status, Unit, encode_lun, inquiry, mode, opcodes, unmap};

/// Bytes of the repeated pattern that WRITE SAME's writes refer to.
const PATTERN_LEN: usize = 64 << 10;
/// Bytes of one write of WRITE SAME.
const SAME_WRITE: u64 = 1 << 20;

/// One operation on the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendOp {
    /// Read `len` bytes (at most 32 MiB) at `offset`.
    Read {
        /// Bytes from the start of the image.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write all of `data` at `offset`; durable when answered.
    Write {
        /// Bytes from the start of the image.
        offset: u64,
        /// Consecutive pieces.
        data: Vec<Bytes>,
        /// The initiator asked for force unit access.
        fua: bool,
    },
    /// Make a range read as zeros.
    Zero {
        /// Bytes from the start of the image.
        offset: u64,
        /// Bytes (at most 256 MiB).
        len: u64,
        /// Whether to free the space rather than keep it allocated.
        unmap: bool,
    },
    /// Make everything durable that was answered before.
    Flush,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no room.
    #[error("out of space")]
    NoSpace,
    /// The data cannot be read or written.
    #[error("input/output error")]
    Io,
    /// Too much to do; try again.
    #[error("busy")]
    Busy,
    /// The storage is moving between states; try again.
    #[error("not ready")]
    NotReady,
    /// The image does not exist any more.
    #[error("image is gone")]
    Gone,
    /// The image takes no writes.
    #[error("read-only")]
    ReadOnly,
    /// The range lies outside of the image, which has shrunk.
    #[error("out of range")]
    OutOfRange,
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// Why, for CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Data-in, cut to the allocation length.
    pub data: Bytes,
}

impl Response {
    /// GOOD with data.
    #[must_use]
    pub fn good(data: Bytes) -> Self {
        Self {
            status: Status::Good,
            sense: None,
            data,
        }
    }

    /// CHECK CONDITION.
    #[must_use]
    pub fn check(sense: Sense) -> Self {
        Self {
            status: Status::CheckCondition,
            sense: Some(sense),
            data: Bytes::new(),
        }
    }
}

/// Operations to be done, in any order and at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first; most commands have no more.
    pub first: BackendOp,
    /// The others.
    pub rest: Vec<BackendOp>,
    /// For a VERIFY that compares: what the first operation is to read. See [`compare`].
    pub expected: Vec<Bytes>,
}

impl From<BackendOp> for Plan {
    fn from(first: BackendOp) -> Self {
        Self {
            first,
            rest: Vec::new(),
            expected: Vec::new(),
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered.
    Done(Response),
    /// The backend has work; [`finish`] answers when all of it is done. What a READ reads is its data-in.
    Backend(Plan),
}

/// What a command may need to know besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The unit, if there is one.
    pub unit: Option<&'a Unit>,
    /// The target's units; looked at by REPORT LUNS only.
    pub luns: &'a [u64],
    /// A unit attention that was taken from the queue for REQUEST SENSE to report.
    pub attention: Option<Sense>,
    /// Bytes of data-in that the initiator takes: more is not read.
    pub expected: u32,
}

/// Carries `command` out with the data-out that came (never more than [`Command::data_out`]).
#[must_use]
pub fn perform(command: &Command, context: &Context<'_>, data_out: Vec<Bytes>) -> Outcome {
    attempt(command, context, data_out).unwrap_or_else(|sense| Outcome::Done(Response::check(sense)))
}

fn attempt(command: &Command, context: &Context<'_>, data_out: Vec<Bytes>) -> Result<Outcome, Sense> {
    let unit = context.unit.ok_or(Sense::NO_UNIT);
    let done = |data: Bytes, allocation: u32| Ok(Outcome::Done(Response::good(cut(data, allocation))));
    match *command {
        Command::Read(extent) => Ok(read(extent, context.expected)),
        Command::Write { extent, fua } => Ok(write(extent, fua, data_out)),
        Command::Nothing => Ok(nothing()),
        Command::Synchronize => Ok(Outcome::Backend(BackendOp::Flush.into())),
        Command::Verify { extent, compare: false } => Ok(read(extent, u32::MAX)),
        Command::Verify { extent, compare: true } => Ok(verify(extent, data_out)),
        Command::WriteSame { extent, unmap, no_data } => {
            let pattern = gather(data_out);
            write_same(extent, unmap, if no_data { None } else { Some(&pattern) })
        }
        Command::Unmap { length } => Ok(several(unmap::ranges(&list(data_out, length)?, unit?)?)),
        Command::ModeSelect { ten, length } => mode::select(ten, &list(data_out, length)?).map(|()| nothing()),
        Command::ModeSense(query) => done(mode::sense(&query, unit?)?, query.allocation),
        Command::Inquiry { page, allocation } => done(inquiry::data(page, context.unit)?, allocation),
        Command::ReadCapacity10 => done(capacity10(unit?), u32::MAX),
        Command::ReadCapacity16 { allocation } => done(capacity16(unit?), allocation),
        Command::ReportLuns { well_known, allocation } => {
            done(report_luns(if well_known { &[] } else { context.luns }), allocation)
        }
        Command::ReportOpcodes {
            query,
            timeouts,
            allocation,
        } => done(opcodes::report(query, timeouts)?, allocation),
        Command::RequestSense { descriptor, allocation } => {
            let otherwise = if context.unit.is_some() {
                Sense::NONE
            } else {
                Sense::NO_UNIT
            };
            let sense = context.attention.unwrap_or(otherwise);
            let data = if descriptor {
                sense.descriptor()
            } else {
                sense.fixed().to_vec()
            };
            done(data.into(), allocation)
        }
    }
}

/// The answer to a command whose operations are done. `result` is the first error, or success; the data of a READ goes its own
/// way.
#[must_use]
pub fn finish(command: &Command, result: Result<(), BackendError>) -> Response {
    let Err(error) = result else {
        return Response::good(Bytes::new());
    };
    let reads = matches!(command, Command::Read(_) | Command::Verify { .. });
    Response::check(match error {
        BackendError::Busy => {
            return Response {
                status: Status::Busy,
                sense: None,
                data: Bytes::new(),
            };
        }
        BackendError::NoSpace => Sense::NO_SPACE,
        BackendError::Io if reads => Sense::READ_ERROR,
        BackendError::Io => Sense::WRITE_ERROR,
        BackendError::NotReady => Sense::TRANSITIONING,
        BackendError::Gone => Sense::NO_UNIT,
        BackendError::ReadOnly => Sense::WRITE_PROTECTED,
        BackendError::OutOfRange => Sense::OUT_OF_RANGE,
    })
}

fn nothing() -> Outcome {
    Outcome::Done(Response::good(Bytes::new()))
}

fn cut(mut data: Bytes, allocation: u32) -> Bytes {
    data.truncate(allocation as usize);
    data
}

/// Whole blocks, no more than the initiator takes.
fn read(extent: Extent, expected: u32) -> Outcome {
    let len = (extent.blocks).min(expected.div_ceil(BLOCK)) * BLOCK;
    if len == 0 {
        return nothing();
    }
    Outcome::Backend(
        BackendOp::Read {
            offset: extent.offset(),
            len,
        }
        .into(),
    )
}

/// Writes what came, in whole blocks: an initiator may announce less than the CDB says.
fn write(extent: Extent, fua: bool, mut data: Vec<Bytes>) -> Outcome {
    let came: usize = data.iter().map(Bytes::len).sum();
    let whole = came - came % BLOCK as usize;
    if whole == 0 {
        return nothing();
    }
    if whole < came {
        truncate(&mut data, whole);
    }
    Outcome::Backend(
        BackendOp::Write {
            offset: extent.offset(),
            data,
            fua,
        }
        .into(),
    )
}

/// Reads as many whole blocks as came.
fn verify(extent: Extent, mut data: Vec<Bytes>) -> Outcome {
    let came: usize = data.iter().map(Bytes::len).sum();
    let whole = u32::try_from(came).unwrap_or(u32::MAX) / BLOCK * BLOCK;
    if whole == 0 {
        return nothing();
    }
    truncate(&mut data, whole as usize);
    let first = BackendOp::Read {
        offset: extent.offset(),
        len: whole,
    };
    Outcome::Backend(Plan {
        first,
        rest: Vec::new(),
        expected: data,
    })
}

/// The answer to a VERIFY that compares, when its blocks are read.
#[must_use]
pub fn compare(read: &[Bytes], expected: &[Bytes]) -> Response {
    if read.iter().flatten().eq(expected.iter().flatten()) {
        return Response::good(Bytes::new());
    }
    Response::check(Sense::MISCOMPARE)
}

fn truncate(data: &mut Vec<Bytes>, len: usize) {
    let mut room = len;
    data.retain_mut(|piece| {
        piece.truncate(room);
        room -= piece.len();
        !piece.is_empty()
    });
}

/// The data-out in one piece; for parameter lists and patterns, which are small.
fn gather(mut data: Vec<Bytes>) -> Bytes {
    match data.as_mut_slice() {
        [] => Bytes::new(),
        [only] => std::mem::take(only),
        many => many.concat().into(),
    }
}

/// A parameter list, which must be as long as the CDB says.
fn list(data: Vec<Bytes>, length: u32) -> Result<Bytes, Sense> {
    let list = gather(data);
    if list.len() < length as usize {
        Err(Sense::LIST_LENGTH)
    } else {
        Ok(list)
    }
}

fn several(ops: Vec<BackendOp>) -> Outcome {
    let mut ops = ops.into_iter();
    match ops.next() {
        Some(first) => Outcome::Backend(Plan {
            first,
            rest: ops.collect(),
            expected: Vec::new(),
        }),
        None => nothing(),
    }
}

/// A zero pattern (or none) zeroes; another is written as references to one repeated copy.
fn write_same(extent: Extent, unmap: bool, pattern: Option<&Bytes>) -> Result<Outcome, Sense> {
    let (offset, len) = (extent.offset(), extent.len());
    match pattern {
        Some(pattern) if pattern.len() < BLOCK as usize => Err(Sense::INCORRECT_DATA),
        Some(pattern) if pattern.iter().any(|byte| *byte != 0) => {
            let repeats = usize::try_from(len).map_or(PATTERN_LEN, |len| len.min(PATTERN_LEN)) / pattern.len();
            let repeated = Bytes::from(pattern.repeat(repeats));
            let starts = (0..len).step_by(usize::try_from(SAME_WRITE).unwrap_or(usize::MAX));
            let ops = starts.map(|at| {
                let data = repeat(&repeated, SAME_WRITE.min(len - at));
                BackendOp::Write {
                    offset: offset + at,
                    data,
                    fua: false,
                }
            });
            Ok(several(ops.collect()))
        }
        _ => Ok(Outcome::Backend(BackendOp::Zero { offset, len, unmap }.into())),
    }
}

fn repeat(piece: &Bytes, len: u64) -> Vec<Bytes> {
    let mut left = usize::try_from(len).unwrap_or(0);
    let mut out = Vec::with_capacity(left.div_ceil(piece.len()));
    while left > 0 {
        let take = left.min(piece.len());
        out.push(piece.slice(..take));
        left -= take;
    }
    out
}

/// SBC-3 5.15.2.
fn capacity10(unit: &Unit) -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(u32::try_from(unit.blocks().saturating_sub(1)).unwrap_or(u32::MAX));
    out.put_u32(BLOCK);
    out.freeze()
}

/// SBC-3 5.16.2: eight logical blocks per physical block, provisioning management, unmapped blocks read as zero.
fn capacity16(unit: &Unit) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    out.put_u64(unit.blocks().saturating_sub(1));
    out.put_u32(BLOCK);
    out.put_slice(&[0, 3, 0xC0, 0]);
    out.put_bytes(0, 16);
    out.freeze()
}

fn report_luns(luns: &[u64]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + luns.len() * 8);
    out.put_u64(0);
    for lun in luns.iter().filter_map(|lun| encode_lun(*lun)) {
        out.put_slice(&lun);
    }
    let length = u32::try_from(out.len() - 8).expect("at most 2^14 units of 8 bytes");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept;

    const UNIT: Unit = Unit {
        image: 1,
        cluster: 1,
        size: 2 << 30,
        read_only: false,
    };

    fn run(bytes: &[u8], data: Vec<Bytes>) -> Outcome {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        let command = accept(&cdb, Some(&UNIT)).unwrap();
        let context = Context {
            unit: Some(&UNIT),
            luns: &[0, 300],
            attention: None,
            expected: 1 << 20,
        };
        perform(&command, &context, data)
    }

    fn answer(bytes: &[u8], data: Vec<Bytes>) -> Response {
        match run(bytes, data) {
            Outcome::Done(response) => response,
            Outcome::Backend(plan) => panic!("{plan:?}"),
        }
    }

    fn plan(bytes: &[u8], data: Vec<Bytes>) -> Plan {
        match run(bytes, data) {
            Outcome::Backend(plan) => plan,
            Outcome::Done(response) => panic!("{response:?}"),
        }
    }

    #[test]
    fn capacities() {
        let short = answer(&[0x25], vec![]);
        assert_eq!(short.data[..], [0, 0x3F, 0xFF, 0xFF, 0, 0, 2, 0]);
        let long = answer(&[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], vec![]);
        assert_eq!(
            long.data[..16],
            [0, 0, 0, 0, 0, 0x3F, 0xFF, 0xFF, 0, 0, 2, 0, 0, 3, 0xC0, 0]
        );
        assert_eq!(long.data.len(), 32);
        let huge = Unit { size: u64::MAX, ..UNIT };
        assert_eq!(capacity10(&huge)[..4], [0xFF; 4]);
    }

    #[test]
    fn units_are_reported_in_their_addressing() {
        let luns = answer(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0], vec![]);
        assert_eq!(
            luns.data[..],
            [
                0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x2C, 0, 0, 0, 0, 0, 0
            ]
        );
        let known = answer(&[0xA0, 0, 1, 0, 0, 0, 0, 0, 1, 0], vec![]);
        assert_eq!(known.data[..], [0; 8]);
    }

    #[test]
    fn allocation_length_cuts() {
        assert_eq!(answer(&[0x12, 0, 0, 0, 5, 0], vec![]).data.len(), 5);
        assert_eq!(answer(&[0x12, 0, 0, 0, 0, 0], vec![]).data.len(), 0);
        assert_eq!(answer(&[0x03, 0, 0, 0, 18, 0], vec![]).data[..3], [0x70, 0, 0]);
        assert_eq!(
            answer(&[0x03, 1, 0, 0, 255, 0], vec![]).data[..],
            [0x72, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn reads_stop_at_what_the_initiator_takes() {
        let read = plan(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x40, 0, 0, 0], vec![]);
        assert_eq!(
            read,
            BackendOp::Read {
                offset: 512,
                len: 1 << 20
            }
            .into()
        );
        assert_eq!(run(&[0x28], vec![]), nothing(), "no blocks");
    }

    #[test]
    fn writes_keep_their_pieces_and_whole_blocks_only() {
        let pieces = vec![
            Bytes::from_static(&[1; 512]),
            Bytes::from_static(&[2; 500]),
            Bytes::from_static(&[3; 24]),
        ];
        let start = pieces[0].as_ptr();
        let Plan {
            first: BackendOp::Write { offset, data, fua },
            ..
        } = plan(&[0x2A, 8, 0, 0, 0, 2, 0, 0, 3], pieces)
        else {
            panic!("not a write");
        };
        assert_eq!((offset, fua), (1024, true));
        assert_eq!(data.iter().map(Bytes::len).collect::<Vec<_>>(), [512, 500, 12]);
        assert_eq!(data[0].as_ptr(), start, "not copied");
    }

    #[test]
    fn write_same_zeroes_or_repeats() {
        let zero = Bytes::from_static(&[0; 512]);
        let same = |bits| [0x93, bits, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0];
        let zeroed = |unmap| {
            Plan::from(BackendOp::Zero {
                offset: 4096,
                len: 2 << 20,
                unmap,
            })
        };
        assert_eq!(plan(&same(0), vec![zero.clone()]), zeroed(false));
        assert_eq!(plan(&same(8), vec![zero]), zeroed(true));
        assert_eq!(plan(&same(9), vec![]), zeroed(true));
        let written = plan(&same(8), vec![Bytes::from_static(&[7; 512])]);
        assert_eq!(written.rest.len(), 1);
        let BackendOp::Write { offset, data, .. } = &written.rest[0] else {
            panic!("not a write")
        };
        assert_eq!(*offset, 4096 + (1 << 20));
        assert_eq!(data.iter().map(Bytes::len).sum::<usize>(), 1 << 20);
        assert!(data.iter().all(|piece| piece.as_ptr() == data[0].as_ptr()));
        assert_eq!(answer(&same(0), vec![]).sense, Some(Sense::INCORRECT_DATA));
    }

    #[test]
    fn verify_reads_what_it_compares_with() {
        let data = vec![Bytes::from_static(&[1; 512]), Bytes::from_static(&[2; 100])];
        let plan = plan(&[0x2F, 2, 0, 0, 0, 8, 0, 0, 2], data);
        assert_eq!(plan.first, BackendOp::Read { offset: 4096, len: 512 });
        let pieces = |at| {
            vec![
                Bytes::from_static(&[1; 512]).slice(..at),
                Bytes::from_static(&[1; 512]).slice(at..),
            ]
        };
        assert_eq!(compare(&pieces(7), &plan.expected).status, Status::Good);
        assert_eq!(compare(&pieces(7)[..1], &plan.expected).sense, Some(Sense::MISCOMPARE));
        assert_eq!(
            compare(&[Bytes::from_static(&[2; 512])], &plan.expected).sense,
            Some(Sense::MISCOMPARE)
        );
    }

    #[test]
    fn parameter_lists_must_be_whole() {
        let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
        assert_eq!(
            answer(&unmap, vec![Bytes::from_static(&[0; 8])]).sense,
            Some(Sense::LIST_LENGTH)
        );
        let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0];
        let pieces = vec![Bytes::copy_from_slice(&list[..10]), Bytes::copy_from_slice(&list[10..])];
        assert_eq!(
            plan(&unmap, pieces),
            BackendOp::Zero {
                offset: 4096,
                len: 4096,
                unmap: true
            }
            .into()
        );
    }

    #[test]
    fn backend_errors_become_sense() {
        let read = Command::Read(Extent { lba: 0, blocks: 1 });
        let write = Command::Write {
            extent: Extent { lba: 0, blocks: 1 },
            fua: false,
        };
        for (command, error, key, asc, ascq) in [
            (read, BackendError::Io, 3, 0x11, 0),
            (write, BackendError::Io, 3, 0x0C, 0),
            (write, BackendError::NoSpace, 7, 0x27, 7),
            (write, BackendError::ReadOnly, 7, 0x27, 0),
            (read, BackendError::NotReady, 2, 4, 0x0A),
            (read, BackendError::Gone, 5, 0x25, 0),
            (read, BackendError::OutOfRange, 5, 0x21, 0),
        ] {
            let sense = finish(&command, Err(error)).sense.unwrap();
            assert_eq!((sense.key as u8, sense.asc, sense.ascq), (key, asc, ascq), "{error}");
        }
        assert_eq!(finish(&read, Err(BackendError::Busy)).status, Status::Busy);
        assert_eq!(finish(&read, Ok(())).status, Status::Good);
    }
}
