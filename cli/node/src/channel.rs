//! The messages between the data path and the control plane.

use std::sync::{Arc, mpsc};

use trivet_core::OsdId;
use trivet_core::keys::OsdStats;
use trivet_core::kv::{LeaseId, Notice, Txn, TxnOutcome};
use trivet_gateway::fresh::Heard;
use trivet_reactor::Waker;

/// Whose transaction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An OSD machine.
    Osd(OsdId),
    /// The gateway machine.
    Gateway,
}

/// What the control plane tells the data path.
#[derive(Debug)]
pub enum ToData {
    /// The metadata store changed.
    Notice(Arc<Notice>),
    /// What the metadata store said of itself, or did not.
    Heard(Heard),
    /// A transaction ended.
    Outcome(Role, u64, TxnOutcome),
    /// An OSD has a new lease, or has lost the one it had.
    Leased {
        /// Which OSD.
        osd: OsdId,
        /// What its keys hang on.
        lease: Option<LeaseId>,
    },
    /// An OSD's keys are gone.
    Revoked(OsdId),
    /// End the process.
    Stop,
}

/// What the data path asks of the control plane.
#[derive(Debug)]
pub enum ToControl {
    /// Run a transaction.
    Txn(Role, u64, Txn),
    /// See that an OSD has a lease, from now on.
    Lease(OsdId),
    /// End an OSD's lease.
    Revoke(OsdId),
    /// Show how an OSD is.
    Stats(OsdId, OsdStats),
}

/// The control plane's end: every message wakes the data path.
#[derive(Clone)]
pub struct DataSender {
    sender: mpsc::Sender<ToData>,
    waker: Waker,
}

impl DataSender {
    /// A sender that wakes.
    pub fn new(sender: mpsc::Sender<ToData>, waker: Waker) -> DataSender {
        DataSender { sender, waker }
    }

    /// Tells the data path something. If it has ended, the process is about to.
    pub fn tell(&self, message: ToData) {
        if self.sender.send(message).is_ok() {
            self.waker.wake();
        }
    }
}
