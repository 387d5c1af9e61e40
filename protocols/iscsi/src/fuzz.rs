//! The entry for fuzzing: a connection to a small target, fed arbitrary bytes.

use bytes::{Bytes, BytesMut};

use crate::{Action, BackendOp, Connection, TargetInfo, Targets, Unit};

/// The target that [`SmallTarget`] has.
pub const TARGET: &str = "iqn.2026-11.io.trivet:fuzz";
/// Bytes of its one unit.
pub const SIZE: u64 = 1 << 20;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// One target with one small unit.
#[derive(Clone, Copy, Debug)]
pub struct SmallTarget;

impl Targets for SmallTarget {
    fn find(&self, iqn: &str) -> Option<TargetInfo> {
        (iqn == TARGET).then_some(TargetInfo { id: 1 })
    }

    fn each(&self, f: &mut dyn FnMut(&str)) {
        f(TARGET);
    }

    fn portal(&self) -> String {
        "127.0.0.1:3260,1".to_owned()
    }

    fn unit(&self, target: u64, lun: u64) -> Option<Unit> {
        (target == 1 && lun == 0).then_some(Unit {
            image: 7,
            cluster: 1,
            size: SIZE,
            read_only: false,
        })
    }

    fn luns(&self, _: u64) -> Vec<u64> {
        vec![0]
    }
}

/// Feeds `data` to a connection. A first byte that is odd logs in before the rest is fed; the next two bits say how large the
/// pieces are. Operations are answered at the end of each piece. Checks that the output stays in proportion to the input.
///
/// # Panics
/// If the connection does, or if it emits more than it may.
pub fn fuzz(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let mut connection = Connection::new(0, 1);
    let (mut input, mut fed) = (BytesMut::new(), 0);
    if first & 1 != 0 {
        input.extend_from_slice(&login());
    }
    let piece = [7, 48, 4096, usize::MAX][usize::from(first >> 1 & 3)];
    for chunk in rest.chunks(piece.min(rest.len().max(1))) {
        input.extend_from_slice(chunk);
        fed += chunk.len();
        if !exchange(&mut connection, &mut input, fed) {
            return;
        }
    }
}

/// Feeds and answers until nothing moves; whether the connection goes on.
fn exchange(connection: &mut Connection, input: &mut BytesMut, fed: usize) -> bool {
    let (mut out, mut actions) = (Vec::new(), Vec::new());
    let mut result = connection.receive(1, input, &SmallTarget, &mut out, &mut actions);
    while result.is_ok() && !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Io { tag, op, .. } => {
                    let data = answer(&op);
                    connection.finished(tag, Ok(data), &SmallTarget, &mut out, &mut actions);
                }
                Action::Established { .. } => {
                    connection.admit(&mut out);
                    result = connection.receive(1, input, &SmallTarget, &mut out, &mut actions);
                }
                Action::Reset { .. } => {}
            }
        }
    }
    let sent: usize = out.iter().map(Bytes::len).sum();
    let pdus = fed / 48 + 3;
    assert!(sent <= pdus * (ZEROS.len() * 2), "{sent} bytes for {pdus} PDUs");
    result.is_ok() && !connection.is_finished()
}

/// Zeros for a read, after the check that it lies within the unit.
fn answer(op: &BackendOp) -> Vec<Bytes> {
    let (offset, len) = match op {
        BackendOp::Read { offset, len } => (*offset, u64::from(*len)),
        BackendOp::Write { offset, data, .. } => (*offset, data.iter().map(|piece| piece.len() as u64).sum()),
        BackendOp::Zero { offset, len, .. } => (*offset, *len),
        BackendOp::Flush => (0, 0),
    };
    assert!(offset + len <= SIZE && offset % 512 == 0 && len % 512 == 0, "{op:?}");
    match (op, usize::try_from(len)) {
        (BackendOp::Read { .. }, Ok(len)) => vec![Bytes::from_static(&ZEROS[..len])],
        _ => Vec::new(),
    }
}

/// A login request that goes straight to full feature phase, with command number 1.
#[must_use]
pub fn login() -> Vec<u8> {
    let text = format!("InitiatorName=iqn.fuzz\0TargetName={TARGET}\0InitialR2T=No\0MaxRecvDataSegmentLength=65536\0");
    let mut out = vec![0; 48];
    out[0] = 0x43;
    out[1] = 0x87;
    out[6] = u8::try_from(text.len() >> 8).unwrap_or(0);
    out[7] = u8::try_from(text.len() & 0xFF).unwrap_or(0);
    out[27] = 1;
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
