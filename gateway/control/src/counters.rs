//! The counters of the data path, as a scrape finds them.

use std::sync::{Arc, Mutex, PoisonError};

use trivet_core::ImageId;
use trivet_gateway::metrics::{ExportList, ExportMetrics, Protocol};

/// The name under which images are counted for which there are no counters of their own; not a valid name of an image.
const OTHERS: &str = "..";

/// The counters of one export, and its name.
pub(crate) type Export = (Protocol, String, Arc<ExportMetrics>);

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

    /// The exports that the gateway has not forgotten and that have a name.
    pub(crate) fn read(&self, name: impl Fn(ImageId) -> Option<String>) -> Vec<Export> {
        let exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = exports.into_iter().filter_map(|(protocol, image, counters)| {
            let counters = counters.upgrade()?;
            let name = image.map_or_else(|| Some(OTHERS.to_owned()), &name)?;
            Some((protocol, name, counters))
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_gateway::metrics::Metrics;

    #[test]
    fn what_has_no_name_or_is_forgotten_is_not_shown() {
        let (mut metrics, counters) = (Metrics::default(), Counters::default());
        for image in [1, 2, 3] {
            metrics.export(Protocol::Nbd, ImageId(image));
        }
        counters.list(metrics.take_changed().unwrap());
        metrics.forget(ImageId(2));
        let shown = counters.read(|image| (image.0 < 3).then(|| format!("vm{}", image.0)));
        let names: Vec<_> = shown.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, ["vm1"]);
    }
}
