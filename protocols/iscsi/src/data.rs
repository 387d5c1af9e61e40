//! The answer to a command: Data-In PDUs, the SCSI Response, and residual counts (RFC 7143 11.4.5, 11.7).

use bytes::{BufMut, Bytes, BytesMut};
use trivet_scsi::{Response, SENSE_LEN, Status};

use crate::negotiate::Parameters;
use crate::pdu::{Bhs, NO_TAG, opcode};
use crate::task::{Direction, Task};
use crate::wire::{Stat, Wire};

/// Overflow and underflow, as in both kinds of PDU.
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;
/// Data-In: F and S.
const FINAL: u8 = 0x80;
const HAS_STATUS: u8 = 0x01;

/// The difference between what the initiator expected and what the command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Residual {
    flag: u8,
    count: u32,
}

fn residual(expected: u32, actual: u32) -> Residual {
    match actual.cmp(&expected) {
        std::cmp::Ordering::Less => Residual {
            flag: UNDERFLOW,
            count: expected - actual,
        },
        std::cmp::Ordering::Equal => Residual { flag: 0, count: 0 },
        std::cmp::Ordering::Greater => Residual {
            flag: OVERFLOW,
            count: actual - expected,
        },
    }
}

/// Bytes that the command moves or would move; none if it failed.
fn actual(task: &Task, status: Status, data: usize) -> u32 {
    let Ok(command) = task.command else { return 0 };
    if status != Status::Good {
        return 0;
    }
    let data_in = command.read_length().max(u32::try_from(data).unwrap_or(u32::MAX));
    match task.direction {
        Direction::In(_) => data_in,
        Direction::Out(_) => command.data_out(),
        Direction::None => data_in.max(command.data_out()),
    }
}

/// Sends the data-in that the initiator takes, and the status: with the last data if all is well, or in a PDU of its own.
pub(crate) fn send(
    wire: &mut Wire,
    parameters: &Parameters,
    mut task: Task,
    response: &Response,
    out: &mut Vec<Bytes>,
) {
    let data = std::mem::take(&mut task.data);
    let total = data.iter().map(Bytes::len).sum::<usize>();
    let expected = match task.direction {
        Direction::In(length) | Direction::Out(length) => length,
        Direction::None => 0,
    };
    let residual = residual(expected, actual(&task, response.status, total));
    if let (Direction::In(length), Status::Good) = (task.direction, response.status) {
        let length = u32::try_from(total).map_or(length, |total| total.min(length));
        if length > 0 {
            return data_in(wire, parameters, task.itt, Source::new(data, length), residual, out);
        }
    }
    status(wire, &task, response, residual, out);
}

/// The data-in of a task, taken front to back.
struct Source {
    pieces: std::vec::IntoIter<Bytes>,
    rest: Bytes,
    left: u32,
}

impl Source {
    fn new(pieces: Vec<Bytes>, left: u32) -> Self {
        Self {
            pieces: pieces.into_iter(),
            rest: Bytes::new(),
            left,
        }
    }

    /// Moves the next `n` bytes (no more than are left) to `scratch`, by reference.
    fn next(&mut self, n: u32, scratch: &mut Vec<Bytes>) {
        scratch.clear();
        let mut missing = n as usize;
        while missing > 0 {
            if self.rest.is_empty() {
                let Some(piece) = self.pieces.next() else {
                    break;
                };
                self.rest = piece;
            }
            let piece = self.rest.split_to(missing.min(self.rest.len()));
            missing -= piece.len();
            scratch.push(piece);
        }
        self.left -= n;
    }
}

/// Data-In PDUs no longer than the initiator takes, in sequences no longer than a burst; the last carries GOOD status.
fn data_in(
    wire: &mut Wire,
    parameters: &Parameters,
    itt: u32,
    mut source: Source,
    residual: Residual,
    out: &mut Vec<Bytes>,
) {
    let (mut data_sn, mut offset, mut burst) = (0, 0, parameters.max_burst);
    let mut scratch = Vec::with_capacity(1);
    while source.left > 0 {
        let length = source.left.min(parameters.max_send).min(burst);
        source.next(length, &mut scratch);
        let mut bhs = Bhs::new(opcode::DATA_IN, 0)
            .put(16, itt)
            .put(20, NO_TAG)
            .put(36, data_sn)
            .put(40, offset);
        burst -= length;
        let last = source.left == 0;
        if last {
            bhs = bhs.set(1, [FINAL | HAS_STATUS | residual.flag]).put(44, residual.count);
        } else if burst == 0 {
            bhs = bhs.set(1, [FINAL]);
        }
        if burst == 0 {
            burst = parameters.max_burst;
        }
        wire.send(bhs, if last { Stat::Take } else { Stat::Absent }, &scratch, out);
        data_sn += 1;
        offset += length;
    }
}

/// A SCSI Response with sense data if there is any.
fn status(wire: &mut Wire, task: &Task, response: &Response, residual: Residual, out: &mut Vec<Bytes>) {
    let bhs = Bhs::new(opcode::RESPONSE, 0x80 | residual.flag)
        .set(3, [response.status as u8])
        .put(16, task.itt)
        .put(36, task.out.r2t_sn)
        .put(44, residual.count);
    match response.sense {
        Some(sense) => {
            let mut data = BytesMut::with_capacity(2 + SENSE_LEN);
            data.put_u16(u16::try_from(SENSE_LEN).expect("18"));
            data.put_slice(&sense.fixed());
            wire.send(bhs, Stat::Take, &[data.freeze()], out);
        }
        None => wire.send(bhs, Stat::Take, &[], out),
    }
}
