//! The SCSI device server as a target: commands one after the other, each a CDB and the data-out that it asks for.
//!
//! Checks what the gateway relies on: what the backend is asked for lies within the unit, in whole blocks, within the limits
//! of the Block Limits page, and no answer is longer than the initiator takes.

use bytes::Bytes;
use trivet_scsi::{
    BLOCK, BackendError, BackendOp, Context, MAX_TRANSFER_BLOCKS, MAX_UNMAP_BLOCKS, Outcome, Unit, accept, decode_lun,
    encode_lun, finish, perform,
};

/// Bytes of the unit.
const SIZE: u64 = 1 << 20;
/// Longest answer to a command that takes no allocation length, bytes.
const MAX_ANSWER: usize = 64 << 10;

/// The first byte says whether there is a unit (bit 0 clear) and whether it takes writes (bit 1 clear); then come commands.
///
/// # Panics
/// If the device server breaks a promise.
pub fn fuzz(data: &[u8]) {
    let Some((&flags, mut rest)) = data.split_first() else {
        return;
    };
    let unit = Unit {
        image: 7,
        cluster: 1,
        size: SIZE,
        read_only: flags & 2 != 0,
    };
    let unit = (flags & 1 == 0).then_some(&unit);
    if let Some(lun) = rest.first_chunk().and_then(|bytes| decode_lun(*bytes)) {
        assert_eq!(encode_lun(lun).and_then(decode_lun), Some(lun));
    }
    while let Some((cdb, after)) = rest.split_first_chunk() {
        rest = command(cdb, unit, after);
    }
}

/// Carries one command out and returns what follows its data-out.
fn command<'a>(cdb: &[u8; 16], unit: Option<&Unit>, after: &'a [u8]) -> &'a [u8] {
    let command = match accept(cdb, unit) {
        Ok(command) => command,
        Err(sense) => {
            assert_eq!(sense.fixed().len(), trivet_scsi::SENSE_LEN);
            return after;
        }
    };
    let (data, rest) = after.split_at(after.len().min(command.data_out() as usize));
    let context = Context {
        unit,
        luns: &[0, 3],
        attention: None,
        expected: u32::from(cdb[15]) << 12,
    };
    let data = data.chunks(500).map(Bytes::copy_from_slice).collect();
    match perform(&command, &context, data) {
        Outcome::Done(response) => assert!(response.data.len() <= MAX_ANSWER),
        Outcome::Backend(plan) => {
            let unit = unit.expect("only a unit has a backend");
            std::iter::once(&plan.first)
                .chain(&plan.rest)
                .for_each(|op| check(op, unit));
            assert!(finish(&command, Err(BackendError::Io)).sense.is_some());
        }
    }
    rest
}

fn check(op: &BackendOp, unit: &Unit) {
    let (offset, len, limit) = match op {
        BackendOp::Read { offset, len } => (*offset, u64::from(*len), MAX_TRANSFER_BLOCKS),
        BackendOp::Write { offset, data, .. } => (
            *offset,
            data.iter().map(|piece| piece.len() as u64).sum(),
            MAX_TRANSFER_BLOCKS,
        ),
        BackendOp::Zero { offset, len, .. } => (*offset, *len, MAX_UNMAP_BLOCKS),
        BackendOp::Flush => return,
    };
    let block = u64::from(BLOCK);
    assert!(
        len > 0 && len <= u64::from(limit) * block && offset.is_multiple_of(block),
        "{op:?}"
    );
    assert!(len.is_multiple_of(block) && offset + len <= SIZE, "{op:?}");
    assert!(!unit.read_only || matches!(op, BackendOp::Read { .. }), "{op:?}");
}
