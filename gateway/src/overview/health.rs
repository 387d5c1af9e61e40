//! The verdict on the cluster, with its reasons.

use std::collections::BTreeMap;

use trivet_api::{Health, OsdInfo, OsdState, PgCounts, Scrub, counted};
use trivet_core::PgId;

use super::pgs::{pg_state, why_inactive};
use super::{Inside, Overview};
use crate::cluster::listed;

/// An OSD that is fuller should get company, per cent.
const NEARLY_FULL_PCT: u64 = 85;
/// So many different reasons why PGs do not serve are told.
const REASONS_SHOWN: usize = 3;

/// What there is to judge beside PGs and scrubs.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// How many OSDs there are.
    pub osds: u64,
    /// Those that are down.
    pub down: Vec<u32>,
    /// Those that an administrator took out.
    pub out: Vec<u32>,
    /// Those that lost their PGs because they were down for too long.
    pub dropped: Vec<u32>,
    /// Those that are nearly full: per cent.
    pub nearly_full: Vec<(u32, u64)>,
    /// Those that nothing is moved to any more: per cent.
    pub full: Vec<(u32, u64)>,
    /// Why the metadata store is not the one that the data belongs to, and the OSD that says so.
    pub halted: Option<(String, u32)>,
    /// No monitor makes plans.
    pub leaderless: bool,
    /// An administrator wants no recovery.
    pub no_recovery: bool,
    /// Why PGs do not serve, and how many. Those that are changing hands do not count.
    pub inactive: BTreeMap<String, u64>,
    /// PGs that are changing hands.
    pub moving: u64,
    /// What keeps clients from what they want, in words.
    pub broken: Vec<String>,
    /// What somebody should look at, in words.
    pub doubtful: Vec<String>,
    /// Truncations and removals whose data does not go, and why.
    pub stuck: Vec<String>,
}

impl Overview {
    /// Looks around.
    pub(super) fn findings(&self, osds: &[OsdInfo], inside: &Inside) -> Findings {
        let map = &self.map;
        let those = |wanted: &dyn Fn(&OsdInfo) -> bool| osds.iter().filter(|o| wanted(o)).map(|o| o.id).collect();
        let filled = osds.iter().filter(|osd| osd.capacity > 0).map(|osd| {
            let pct = u128::from(osd.used) * 100 / u128::from(osd.capacity);
            (osd.id, u64::try_from(pct).unwrap_or(u64::MAX))
        });
        let limit = u64::from(map.settings.backfill_full_pct);
        let (full, rest): (Vec<_>, Vec<_>) = filled.partition(|(_, pct)| *pct >= limit);
        let mut inactive = BTreeMap::new();
        let (stuck, moving): (Vec<_>, Vec<_>) = self.idle_pgs().partition(|pg| self.moving.is_stuck(self.now, *pg));
        for pg in stuck {
            *inactive.entry(why_inactive(map, pg)).or_default() += 1;
        }
        Findings {
            osds: osds.len() as u64,
            down: those(&|osd| osd.state == OsdState::Down),
            out: those(&|osd| osd.out),
            dropped: those(&|osd| osd.dropped),
            nearly_full: rest.into_iter().filter(|(_, pct)| *pct >= NEARLY_FULL_PCT).collect(),
            full,
            halted: map
                .halted
                .as_ref()
                .map(|halted| (halted.value.reason.clone(), halted.value.by.0)),
            leaderless: map.leader.is_none(),
            no_recovery: map.settings.no_recovery,
            inactive,
            moving: moving.len() as u64,
            broken: inside.broken.clone(),
            doubtful: inside.doubtful.clone(),
            stuck: inside.stuck.clone(),
        }
    }

    /// PGs that do not serve clients.
    pub(super) fn idle_pgs(&self) -> impl Iterator<Item = PgId> {
        let map = &self.map;
        map.pgs()
            .filter(|pg| matches!(pg_state(map, *pg), "inactive" | "peering"))
    }
}

/// The verdict, and why it is not better.
pub(super) fn health(found: &Findings, pgs: &PgCounts, scrub: &Scrub) -> (Health, Vec<String>) {
    let mut reasons = found.broken.clone();
    if let Some((reason, by)) = &found.halted {
        reasons.push(format!(
            "metadata store is older than the data ({reason} on OSD {by}): see 'trivet meta adopt'"
        ));
    }
    let inactive = (pgs.total - pgs.active).saturating_sub(found.moving);
    if inactive > 0 {
        let verb = if inactive == 1 { "does" } else { "do" };
        let all = counted(pgs.total, "PG", "PGs");
        reasons.push(format!("{inactive} of {all} {verb} not serve clients"));
        let mut why: Vec<(&String, &u64)> = found.inactive.iter().collect();
        why.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        reasons.extend(
            why.iter()
                .take(REASONS_SHOWN)
                .map(|(why, count)| format!("{count} of these: {why}")),
        );
    }
    if found.moving > 0 {
        reasons.push(counted(found.moving, "PG is changing hands", "PGs are changing hands"));
    }
    reasons.extend_from_slice(&found.doubtful);
    about_osds(found, &mut reasons);
    if found.leaderless {
        reasons.push("no monitor leads, so nobody plans who takes over; start one with 'trivet mon'".to_owned());
    }
    if found.no_recovery {
        reasons.push("recovery is off: 'trivet settings set no_recovery 0' lets it go on".to_owned());
    }
    if pgs.degraded > 0 {
        let too_few = counted(pgs.degraded, "PG has", "PGs have");
        reasons.push(format!("{too_few} too few copies"));
    }
    if scrub.lost > 0 {
        let lost = counted(scrub.lost, "object has", "objects have");
        reasons.push(format!("{lost} data of which no good copy is left"));
    }
    if scrub.inconsistent > 0 {
        let differ = counted(scrub.inconsistent, "object has", "objects have");
        reasons.push(format!("{differ} copies that differ"));
    }
    reasons.extend(found.stuck.iter().cloned());
    let health = if inactive > 0 || !found.broken.is_empty() || found.halted.is_some() {
        Health::Error
    } else if reasons.is_empty() {
        Health::Ok
    } else {
        Health::Warn
    };
    (health, reasons)
}

fn about_osds(found: &Findings, reasons: &mut Vec<String>) {
    let Findings { down, out, dropped, .. } = found;
    if !down.is_empty() {
        let verb = if down.len() == 1 { "is" } else { "are" };
        let all = counted(found.osds, "OSD", "OSDs");
        reasons.push(format!("{} of {all} {verb} down: {}", down.len(), listed(down)));
    }
    if !dropped.is_empty() {
        let which = listed(dropped);
        reasons.push(format!(
            "OSDs were down for too long, and their PGs go to others: {which}"
        ));
    }
    if !out.is_empty() {
        reasons.push(format!("OSDs are taken out: {}", listed(out)));
    }
    let filled = |osds: &[(u32, u64)]| listed(osds.iter().map(|(osd, pct)| format!("{osd} ({pct} %)")));
    if !found.full.is_empty() {
        let which = filled(&found.full);
        reasons.push(format!("OSDs are full, nothing is moved to them; add others: {which}"));
    }
    if !found.nearly_full.is_empty() {
        reasons.push(format!("OSDs are nearly full: {}", filled(&found.nearly_full)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pgs(active: u64, clean: u64) -> PgCounts {
        PgCounts {
            total: 8,
            active,
            clean,
            degraded: active - clean,
            by_state: BTreeMap::new(),
        }
    }

    fn found() -> Findings {
        Findings {
            osds: 3,
            ..Findings::default()
        }
    }

    #[test]
    fn health_names_its_reasons() {
        let scrub = |repaired, inconsistent, lost| Scrub {
            repaired,
            inconsistent,
            lost,
            ..Scrub::default()
        };
        let down = Findings {
            down: vec![2],
            ..found()
        };
        let moving = Findings { moving: 1, ..found() };
        let broken = Findings {
            broken: vec!["the store is full".into()],
            ..found()
        };
        let halted = Findings {
            halted: Some(("no mark, and not 3".to_owned(), 1)),
            ..found()
        };
        let table = [
            (halted, pgs(8, 8), scrub(0, 0, 0), Health::Error, 1),
            (moving.clone(), pgs(7, 7), scrub(0, 0, 0), Health::Warn, 1),
            (moving, pgs(6, 6), scrub(0, 0, 0), Health::Error, 2),
            (broken, pgs(8, 8), scrub(0, 0, 0), Health::Error, 1),
            (found(), pgs(8, 8), scrub(0, 0, 0), Health::Ok, 0),
            (down, pgs(8, 5), scrub(0, 0, 0), Health::Warn, 2),
            (found(), pgs(7, 7), scrub(0, 0, 0), Health::Error, 1),
            (found(), pgs(8, 8), scrub(9, 0, 0), Health::Ok, 0),
            (found(), pgs(8, 8), scrub(9, 1, 0), Health::Warn, 1),
            (found(), pgs(8, 8), scrub(9, 1, 1), Health::Warn, 2),
        ];
        for (found, pgs, scrub, verdict, reasons) in table {
            let (given, why) = health(&found, &pgs, &scrub);
            assert_eq!((given, why.len()), (verdict, reasons), "{why:?}");
        }
    }

    #[test]
    fn one_is_not_told_as_many() {
        let found = Findings {
            down: vec![2],
            moving: 1,
            ..found()
        };
        let scrub = Scrub {
            inconsistent: 1,
            lost: 1,
            ..Scrub::default()
        };
        let (_, why) = health(&found, &pgs(6, 5), &scrub);
        let text = [
            "1 of 8 PGs does not serve clients",
            "1 PG is changing hands",
            "1 of 3 OSDs is down: 2",
            "1 PG has too few copies",
            "1 object has data of which no good copy is left",
            "1 object has copies that differ",
        ];
        assert_eq!(why, text);
    }

    #[test]
    fn every_finding_is_told() {
        let found = Findings {
            down: vec![1, 2],
            out: vec![3],
            dropped: vec![2],
            nearly_full: vec![(4, 86)],
            full: vec![(5, 93)],
            halted: Some(("mark 812 < 1034".to_owned(), 3)),
            leaderless: true,
            no_recovery: true,
            inactive: [("a".to_owned(), 1), ("b".to_owned(), 4)].into(),
            moving: 1,
            broken: vec!["the store is gone".into()],
            doubtful: vec!["2 writes are stuck".into()],
            stuck: vec!["the truncation of vm waits for PG 1.3".to_owned()],
            osds: 5,
        };
        let (verdict, why) = health(&found, &pgs(2, 2), &Scrub::default());
        assert_eq!(verdict, Health::Error);
        let text = why.join("\n");
        for part in [
            "5 of 8 PGs do not serve clients\n4 of these: b\n1 of these: a\n1 PG is changing hands\n",
            "the store is gone",
            "2 writes are stuck",
            "recovery is off",
            "2 of 5 OSDs are down: 1, 2",
            "too long, and their PGs go to others: 2",
            "taken out: 3",
            "nearly full: 4 (86 %)",
            "are full, nothing is moved to them; add others: 5 (93 %)",
            "no monitor leads",
            "the truncation of vm waits for PG 1.3",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
