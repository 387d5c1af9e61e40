//! Scrub: every copy of every object is read, verified and compared with the others, one object at a time and paced;
//! what is damaged is repaired from a good copy. The outcome goes to the metadata store.

use std::collections::VecDeque;
use std::time::Duration;

use trivet_core::keys::{self, ScrubReport};
use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::PeerBody;
use trivet_core::{Now, ObjectId, OsdId, PgId, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::options::mutant;
use crate::{Effect, Osd, Target, TxnWait, Wait};

/// Objects that a PG compares between two ticks at most: 80 in a second, 10 MiB/s.
const PER_TICK: usize = 8;

/// Members that have not answered are asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// An object whose copies have different versions is looked at again this often: it may just be changing.
const TRIES: u32 = 50;

/// The scrub of one PG.
#[derive(Debug)]
pub(crate) struct Scrub {
    todo: VecDeque<(ObjectId, u32)>,
    current: Option<Current>,
    budget: usize,
    /// The transaction that reports the end.
    reporting: Option<u64>,
    pub report: ScrubReport,
}

/// The object that is being compared.
#[derive(Debug)]
struct Current {
    object: ObjectId,
    tries: u32,
    awaited: Vec<OsdId>,
    copies: Vec<Copy>,
    sent: Now,
}

/// What a member has.
#[derive(Clone, Copy, Debug)]
struct Copy {
    osd: OsdId,
    version: Version,
    digest: u64,
    damaged: UnitMask,
}

/// What the copies of an object say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    /// They have different versions.
    Changing,
    /// Of the same version, and not the same.
    Inconsistent,
    /// These have units that cannot be read.
    Damaged(Vec<OsdId>),
}

impl Osd {
    /// Starts a scrub that is due, and goes on with one that is under way: while the whole up set takes part, for a copy
    /// that is away was not compared.
    pub(crate) fn scrub_more(&mut self, id: PgId, out: &mut Vec<Effect>) {
        if !self.is_clean_on_up_set(id) {
            return;
        }
        let due = self.scrub_due(id);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        if let Some(scrub) = &mut pg.scrub {
            scrub.budget = PER_TICK;
        } else if let Some(number) = due {
            self.start_scrub(id, number);
        } else {
            return;
        }
        self.ask_copies_again(id, out);
        self.scrub_next(id, out);
    }

    /// The number of the request that the PG has not answered yet.
    fn scrub_due(&self, id: PgId) -> Option<u64> {
        let wanted = self.map.scrub.as_ref()?.number;
        let done = self.map.scrubs.get(&id).map_or(0, |report| report.value.number);
        let reported = self.pgs.get(&id)?.scrubbed;
        (wanted > done.max(reported)).then_some(wanted)
    }

    fn start_scrub(&mut self, id: PgId, number: u64) {
        let mut objects: Vec<ObjectId> = self.objects_of(id).map(|(object, _)| object).collect();
        objects.sort_unstable();
        let scrub = Scrub {
            todo: objects.into_iter().map(|object| (object, 0)).collect(),
            current: None,
            budget: PER_TICK,
            reporting: None,
            report: ScrubReport {
                number,
                ..ScrubReport::default()
            },
        };
        if let Some(pg) = self.pgs.get_mut(&id) {
            pg.scrub = Some(scrub);
        }
    }

    /// Asks all members for the next object, or reports when there are no more.
    fn scrub_next(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let now = self.now;
        let own_only = mutant!(self.options, ScrubOnlyOwn);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let acting = if own_only {
            vec![pg.setting.acting[0]]
        } else {
            pg.setting.acting.clone()
        };
        let epoch = pg.epoch;
        let Some(scrub) = pg.scrub.as_mut().filter(|s| s.current.is_none() && s.budget > 0) else {
            return;
        };
        let Some((object, tries)) = scrub.todo.pop_front() else {
            return self.report_scrub(id, out);
        };
        scrub.budget -= 1;
        scrub.current = Some(Current {
            object,
            tries,
            awaited: acting.clone(),
            copies: Vec::new(),
            sent: now,
        });
        for osd in acting {
            self.to_peer(osd, id, epoch, PeerBody::Scrub { object }, out);
        }
    }

    fn ask_copies_again(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let now = self.now;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let current = pg.scrub.as_mut().and_then(|scrub| scrub.current.as_mut());
        let Some(current) = current.filter(|current| now.since(current.sent) >= ASK_AGAIN) else {
            return;
        };
        current.sent = now;
        let (object, awaited) = (current.object, current.awaited.clone());
        for osd in awaited {
            self.to_peer(osd, id, epoch, PeerBody::Scrub { object }, out);
        }
    }

    /// A primary wants an object verified.
    pub(crate) fn member_scrub(&mut self, from: OsdId, target: Target, out: &mut Vec<Effect>) {
        if self.admits(from, target, out) {
            let object = target.object;
            self.ask(Request::Salvage { object }, Wait::Scrub(from, target));
        }
    }

    /// It was read.
    pub(crate) fn verified(
        &mut self,
        from: OsdId,
        target: Target,
        result: &Result<Reply, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let object = target.object;
        let now_there = self.store.info(object).map(|info| info.version);
        let (version, damaged) = match result {
            Ok(Reply::Salvaged { version, damaged, .. }) if now_there == Some(*version) => (*version, *damaged),
            // It is not there, or changed meanwhile: the primary looks again.
            _ => (Version::NONE, UnitMask::EMPTY),
        };
        let body = PeerBody::Scrubbed {
            object,
            version,
            digest: self.store.digest(object),
            damaged,
        };
        self.tell(from, target, body, out);
    }

    /// A member's copy.
    pub(crate) fn scrubbed(
        &mut self,
        from: OsdId,
        target: Target,
        (version, digest, damaged): (Version, u64, UnitMask),
        out: &mut Vec<Effect>,
    ) {
        let Some(pg) = self.pgs.get_mut(&target.pg).filter(|pg| pg.epoch == target.epoch) else {
            return;
        };
        let Some(current) = pg.scrub.as_mut().and_then(|scrub| scrub.current.as_mut()) else {
            return;
        };
        if current.object != target.object || !current.awaited.contains(&from) {
            return;
        }
        current.awaited.retain(|&osd| osd != from);
        current.copies.push(Copy {
            osd: from,
            version,
            digest,
            damaged,
        });
        if current.awaited.is_empty() {
            self.compare_copies(target, out);
            self.scrub_next(target.pg, out);
        }
    }

    /// All copies of the object are known.
    fn compare_copies(&mut self, target: Target, out: &mut Vec<Effect>) {
        let Target { pg: id, object, .. } = target;
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let is_busy = pg.lanes.contains_key(&object) || pg.missing.contains_key(&object);
        let Some(scrub) = &mut pg.scrub else { return };
        let Some(current) = scrub.current.take() else { return };
        let verdict = judge(&current.copies);
        if is_busy || verdict == Verdict::Changing && current.tries < TRIES {
            scrub.todo.push_back((object, current.tries + u32::from(!is_busy)));
            scrub.budget = scrub.budget.min(1);
            return;
        }
        let is_gone = current.copies.iter().all(|copy| copy.version == Version::NONE);
        scrub.report.objects += u64::from(!is_gone);
        match verdict {
            Verdict::Equal => {}
            Verdict::Changing | Verdict::Inconsistent => scrub.report.inconsistent += 1,
            Verdict::Damaged(osds) => {
                let mut lane = self.new_lane(object);
                lane.damaged = osds;
                if let Some(pg) = self.pgs.get_mut(&id) {
                    pg.lanes.insert(object, lane);
                }
                self.make_equal(id, object, out);
            }
        }
    }

    fn report_scrub(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let ticket = self.next;
        let Some(pg) = self.pgs.get(&id) else { return };
        let revision = self.history_revision(id, pg);
        let same_generation = self.same_generation(id);
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let waits = pg.reporting.is_some() || !pg.missing.is_empty();
        let Some(scrub) = pg.scrub.as_mut().filter(|s| s.reporting.is_none() && !waits) else {
            return;
        };
        scrub.reporting = Some(ticket);
        let txn = Txn {
            compare: vec![Compare::ModRevision(keys::history(id), revision), same_generation],
            changes: vec![Change::put(keys::scrub(id), encode(&scrub.report))],
        };
        self.run_txn(txn, TxnWait::Scrub(id), out);
    }

    pub(crate) fn scrub_reported(&mut self, id: PgId, ticket: u64, outcome: TxnOutcome) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let Some(scrub) = pg.scrub.as_mut().filter(|scrub| scrub.reporting == Some(ticket)) else {
            return;
        };
        scrub.reporting = None;
        if matches!(outcome, TxnOutcome::Committed(_)) {
            pg.scrubbed = scrub.report.number;
            pg.scrub = None;
        }
    }
}

fn judge(copies: &[Copy]) -> Verdict {
    let Some(first) = copies.first() else {
        return Verdict::Equal;
    };
    if copies.iter().any(|copy| copy.version != first.version) {
        return Verdict::Changing;
    }
    let damaged: Vec<OsdId> = copies.iter().filter(|c| !c.damaged.is_empty()).map(|c| c.osd).collect();
    if !damaged.is_empty() {
        return Verdict::Damaged(damaged);
    }
    if first.version != Version::NONE && copies.iter().any(|copy| copy.digest != first.digest) {
        return Verdict::Inconsistent;
    }
    Verdict::Equal
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::Epoch;

    #[test]
    fn verdicts() {
        let copy = |osd, counter, digest, damaged| Copy {
            osd: OsdId(osd),
            version: Version {
                epoch: Epoch(1),
                counter,
            },
            digest,
            damaged: UnitMask(damaged),
        };
        let table = [
            (vec![copy(1, 1, 7, 0), copy(2, 1, 7, 0)], Verdict::Equal),
            (vec![copy(1, 1, 7, 0), copy(2, 2, 8, 0)], Verdict::Changing),
            (vec![copy(1, 1, 7, 0), copy(2, 1, 8, 0)], Verdict::Inconsistent),
            (
                vec![copy(1, 1, 7, 0), copy(2, 1, 7, 4)],
                Verdict::Damaged(vec![OsdId(2)]),
            ),
            (vec![], Verdict::Equal),
        ];
        for (copies, expected) in table {
            assert_eq!(judge(&copies), expected, "{copies:?}");
        }
    }
}
