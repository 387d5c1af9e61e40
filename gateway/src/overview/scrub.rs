//! How far scrubs are, and what they found.

use trivet_api::Scrub;
use trivet_namespace::Time;

use super::Overview;

impl Overview {
    /// What the PGs say about the last scrub.
    pub(super) fn scrub(&self, wall: Time) -> Scrub {
        let map = &self.map;
        let now = u64::try_from(wall.sec).unwrap_or(0);
        let mut scrub = Scrub {
            pgs: map.pgs().count() as u64,
            ..Scrub::default()
        };
        if let Some(request) = &map.scrub {
            scrub.number = request.number;
            scrub.asked = Some(request.at);
            scrub.age_s = now.saturating_sub(request.at);
        }
        let reports = map.scrubs.iter().filter(|(pg, _)| map.is_current(**pg));
        for report in reports.map(|(_, report)| &report.value) {
            scrub.inconsistent = scrub.inconsistent.saturating_add(report.inconsistent);
            scrub.lost = scrub.lost.saturating_add(report.lost);
            if report.number >= scrub.number {
                scrub.done += 1;
                scrub.objects = scrub.objects.saturating_add(report.objects);
                scrub.repaired = scrub.repaired.saturating_add(report.repaired);
            }
        }
        scrub
    }
}
