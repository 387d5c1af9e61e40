//! Operations as the API shows them: totals that only rise, of which readers make rates.

use serde::{Deserialize, Serialize};
use trivet_core::usage::{OpCount, Ops};

/// Operations on the objects of an image or pool, as OSDs count them: one that spans several objects counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpTotals {
    /// Reads.
    pub read: OpTotal,
    /// Writes.
    pub write: OpTotal,
    /// Discards and writes of zeroes.
    pub zero: OpTotal,
}

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpTotal {
    /// How many.
    pub count: u64,
    /// Bytes that they were about.
    pub bytes: u64,
    /// Microseconds that they took, all together.
    pub time_us: u64,
}

impl From<OpCount> for OpTotal {
    fn from(op: OpCount) -> OpTotal {
        OpTotal {
            count: op.count,
            bytes: op.bytes,
            time_us: op.micros,
        }
    }
}

impl From<Ops> for OpTotals {
    fn from(ops: Ops) -> OpTotals {
        OpTotals {
            read: ops.read.into(),
            write: ops.write.into(),
            zero: ops.zero.into(),
        }
    }
}

impl OpTotals {
    /// Each kind with its name as a label.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, OpTotal); 3] {
        [("read", self.read), ("write", self.write), ("zero", self.zero)]
    }
}
