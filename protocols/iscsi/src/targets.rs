//! What a connection asks about the targets; the gateway knows.

use trivet_scsi::Unit;

/// A target that an initiator may log in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetInfo {
    /// What the gateway knows it by.
    pub id: u64,
}

/// The targets as of now; the answers may differ from call to call.
pub trait Targets {
    /// The target of this name.
    fn find(&self, iqn: &str) -> Option<TargetInfo>;

    /// Calls `f` with the name of every target to be discovered.
    fn each(&self, f: &mut dyn FnMut(&str));

    /// Where the targets are: `address:port,portal-group-tag`, as in TargetAddress (RFC 7143 13.8).
    fn portal(&self) -> String;

    /// Logical unit `lun` of a target. Asked for every command.
    fn unit(&self, target: u64, lun: u64) -> Option<Unit>;

    /// The target's logical units in ascending order.
    fn luns(&self, target: u64) -> Vec<u64>;
}
