//! The counters of the data path, as a scrape finds them.

use std::sync::{Arc, Mutex, PoisonError};

use trivet_gateway::admin::metrics::{ExportList, ExportMetrics, Protocol};

/// The counters of one export.
pub(crate) type Export = (Protocol, Arc<str>, Arc<ExportMetrics>);

/// What the gateway counts: the exports that it listed last. It adds to their counters without asking here.
#[derive(Debug, Default)]
pub struct Counters {
    exports: Mutex<ExportList>,
}

impl Counters {
    /// The gateway counts other exports from now on.
    pub fn list(&self, exports: ExportList) {
        // A panic elsewhere leaves the list whole: it is only ever replaced.
        *self.exports.lock().unwrap_or_else(PoisonError::into_inner) = exports;
    }

    /// The exports that the gateway has not forgotten.
    pub(crate) fn read(&self) -> Vec<Export> {
        let exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |(protocol, name, counters): &(Protocol, Arc<str>, std::sync::Weak<ExportMetrics>)| {
            Some((*protocol, Arc::clone(name), counters.upgrade()?))
        };
        exports.iter().filter_map(held).collect()
    }
}
