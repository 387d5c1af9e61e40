//! How this OSD reports what images take and how they are used: on its lease, some of it every few seconds, and only what
//! changed.
//!
//! A report is one transaction: the pools, and one part of the images, the one whose turn it is. So an OSD that has
//! many busy images writes no more than others, but each of its numbers less often.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use trivet_core::keys;
use trivet_core::kv::{Change, Compare, LeaseId, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::Action;
use trivet_core::usage::{self, ImageUsage, ImagesUsage, PoolUsage, PoolsUsage};
use trivet_core::{ImageId, Now, OsdId, PgId, PoolId};

use crate::Osd;
use crate::ctx::{Ctx, TxnWait};
use crate::node::counters::{Kind, UsageCounters};
use crate::options::mutant;
use crate::primary::queue::Running;

/// How often something is reported, if something changed.
const PERIOD: Duration = Duration::from_secs(5);
/// A new lease is used after this time: what is said before the PGs are active is not worth much.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// What was to be taken back and may not have been is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A report of which nobody knows the outcome may still be written, over a later one: after this time, what it was about
/// is written once more.
const DOUBTED_FOR: Duration = Duration::from_secs(30);
/// Parts that one transaction takes back, at most.
const PARTS_AT_ONCE: usize = 90;

/// What the metadata store shows, and what it has to.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) counters: UsageCounters,
    /// The lease that reports hang on, while there are some.
    lease: Option<LeaseId>,
    /// When the next report may be made.
    next_at: Now,
    pools_due: bool,
    /// Parts that have to be written.
    due: BTreeSet<usize>,
    /// Whether the pools, and which parts, may be there.
    pools_there: bool,
    there: BTreeSet<usize>,
    /// The part that was written last.
    last: usize,
    under_way: Option<Report>,
    /// Reports without an outcome, oldest first: when they are over, whether of the pools, and of which part.
    doubts: VecDeque<(Now, bool, Option<usize>)>,
}

/// A transaction under way.
#[derive(Debug)]
struct Report {
    ticket: u64,
    about: About,
}

/// What a transaction is about.
#[derive(Debug)]
enum About {
    /// Writes whether the pools, and which part.
    Write { pools: bool, part: Option<usize> },
    /// Takes back the pools and these parts.
    TakeBack(Vec<usize>),
}

impl Usage {
    /// Everything is to be written, on this lease.
    fn begin(&mut self, lease: LeaseId, now: Now) {
        self.lease = Some(lease);
        self.next_at = now + FIRST_AFTER;
        self.pools_due = true;
        self.due = (0..self.counters.parts()).collect();
        self.under_way = None;
    }

    /// Another metadata store took the place of the one that has what was written: whatever it shows is written anew.
    pub(crate) fn replaced(&mut self) {
        self.lease = None;
        self.pools_there = true;
        self.there = (0..self.counters.parts()).collect();
    }

    /// The part whose turn it is.
    fn next_part(&self) -> Option<usize> {
        let next = self.due.range(self.last + 1..).next();
        next.or_else(|| self.due.first()).copied()
    }

    /// What was in doubt for long enough is due again.
    fn end_doubts(&mut self, now: Now) {
        while let Some((_, pools, part)) = self.doubts.pop_front_if(|(until, ..)| *until <= now) {
            self.pools_due |= pools;
            self.due.extend(part);
        }
    }

    /// A transaction ended. What may not have happened is due again.
    pub(crate) fn ended(&mut self, ticket: u64, outcome: TxnOutcome, now: Now) {
        // Nobody waits for one that an earlier lease was for.
        let Some(report) = self.under_way.take_if(|report| report.ticket == ticket) else {
            return;
        };
        let committed = matches!(outcome, TxnOutcome::Committed(_));
        match report.about {
            About::Write { pools, part } if !committed => {
                self.pools_due |= pools;
                self.due.extend(part);
                self.there.extend(part);
                if outcome == TxnOutcome::Unknown {
                    self.doubts.push_back((now + DOUBTED_FOR, pools, part));
                }
            }
            About::TakeBack(parts) if committed => {
                self.pools_there = false;
                self.there.retain(|part| !parts.contains(part));
            }
            About::Write { .. } | About::TakeBack(_) => {}
        }
    }
}

impl Ctx {
    /// Counts what the store has, once it is open.
    pub(crate) fn count_copies(&mut self) {
        for (object, info) in self.store.objects() {
            self.usage.counters.found_copy(object.image.pool(), info.present);
        }
    }

    /// Counts what has become of objects.
    pub(crate) fn count_changes(&mut self) {
        let mut changes = std::mem::take(&mut self.output.changed);
        for changed in changes.drain(..) {
            let pg = self.map.pg_of(changed.object);
            self.inventory.changed(pg, &changed);
            let pg = pg.filter(|_| !mutant!(self.options, CountOnce));
            self.usage.counters.changed(pg, &changed, self.now);
        }
        // The room is used again.
        self.output.changed = changes;
    }

    /// Counts a PG, which became active.
    pub(crate) fn count_pg(&mut self, id: PgId) {
        let objects: Vec<_> = self
            .objects_of(id)
            .map(|(object, info)| (object, info.present))
            .filter(|(_, present)| !present.is_empty())
            .collect();
        self.inventory.begin(id, objects.iter().map(|(object, _)| *object));
        let units = objects.into_iter().map(|(object, present)| (object.image, present));
        self.usage.counters.begin(id, units, self.now);
    }

    /// Counts an operation that is answered now. Deletions of whole objects are not asked for by users of images.
    pub(crate) fn count_op(&mut self, running: &Running) {
        let (kind, object, bytes) = match &running.op.action {
            Action::Read { object, len, .. } => (Kind::Read, object, *len),
            Action::Write { object, data, .. } => (Kind::Write, object, data.iter().map(bytes::Bytes::len).sum()),
            Action::Zero { object, len, .. } => (Kind::Zero, object, *len),
            Action::Remove { .. } | Action::List { .. } | Action::Barrier { .. } => return,
        };
        let took = self.now.since(running.since);
        self.usage.counters.answered(object.image, kind, bytes, took, self.now);
    }

    /// Stops counting PGs that this OSD serves no more.
    pub(crate) fn forget_pgs(&mut self, serves: impl Fn(&PgId) -> bool) {
        self.inventory.keep(&serves);
        let gone: Vec<PgId> = self.usage.counters.pgs().filter(|id| !serves(id)).collect();
        for id in gone {
            if mutant!(self.options, KeepCounting) {
                continue;
            }
            self.usage.counters.end(id, self.now);
        }
    }

    /// Reports what is due, when it is time.
    pub(crate) fn report_usage(&mut self) {
        let Some(lease) = self.lease.filter(|_| self.is_present()) else {
            return self.take_back_usage();
        };
        let now = self.now;
        let usage = &mut self.usage;
        if usage.lease != Some(lease) {
            usage.begin(lease, now);
        }
        if now < usage.next_at || usage.under_way.is_some() {
            return;
        }
        usage.next_at = now + PERIOD;
        usage.counters.forget_idle(now);
        usage.end_doubts(now);
        usage.pools_due |= usage.counters.take_pools_changed();
        usage.due.append(&mut usage.counters.take_changed());
        let part = usage.next_part();
        if usage.pools_due || part.is_some() {
            self.send_report(lease, part);
        }
    }

    /// While this OSD does not show that it is up, others serve its PGs, and count them.
    fn take_back_usage(&mut self) {
        let (me, now) = (self.id(), self.now);
        let usage = &mut self.usage;
        let is_shown = usage.pools_there || !usage.there.is_empty();
        let is_due = usage.lease.take().is_some() || now >= usage.next_at;
        if self.lease.is_none() || !is_shown || !is_due {
            return;
        }
        let parts: Vec<usize> = usage.there.iter().copied().take(PARTS_AT_ONCE).collect();
        let keys = parts.iter().filter_map(|&part| part_key(me, part));
        let keys = std::iter::once(usage::pools(me)).chain(keys);
        let txn = Txn {
            compare: vec![Compare::Absent(keys::osd_state(me))],
            changes: keys.map(Change::Delete).collect(),
        };
        usage.next_at = now + TRY_AGAIN;
        self.run_report(About::TakeBack(parts), txn);
    }

    fn run_report(&mut self, about: About, txn: Txn) {
        let ticket = self.run_txn(txn, TxnWait::Usage);
        self.usage.under_way = Some(Report { ticket, about });
    }

    fn send_report(&mut self, lease: LeaseId, part: Option<usize>) {
        // A later start of this OSD has a state of its own.
        let state = self.map.osds.get(&self.id()).map_or(0, |state| state.revision);
        let compare = vec![Compare::ModRevision(keys::osd_state(self.id()), state)];
        let pools = std::mem::take(&mut self.usage.pools_due);
        self.usage.pools_there |= pools;
        let mut changes = Vec::new();
        if pools {
            let value = encode(&PoolsUsage {
                pools: self.usage.counters.pools(),
            });
            changes.push(on(lease, usage::pools(self.id()), value));
        }
        if let Some(part) = part {
            changes.extend(self.part_change(lease, part));
            self.usage.due.remove(&part);
            self.usage.last = part;
        }
        if changes.is_empty() {
            return;
        }
        self.run_report(About::Write { pools, part }, Txn { compare, changes });
    }

    /// A part that is empty need not be there.
    fn part_change(&mut self, lease: LeaseId, part: usize) -> Option<Change> {
        let key = part_key(self.id(), part)?;
        let images = self.usage.counters.part(part);
        if images.is_empty() {
            return self.usage.there.remove(&part).then_some(Change::Delete(key));
        }
        self.usage.there.insert(part);
        let boot = self.identity.boot;
        Some(on(lease, key, encode(&ImagesUsage { boot, images })))
    }
}

impl Osd {
    /// What it counts of images, for checks from outside.
    #[must_use]
    pub fn image_usage(&self) -> std::collections::BTreeMap<ImageId, ImageUsage> {
        self.ctx.usage.counters.all()
    }

    /// What it counts of pools, for checks from outside.
    #[must_use]
    pub fn pool_usage(&self) -> std::collections::BTreeMap<PoolId, PoolUsage> {
        self.ctx.usage.counters.pools()
    }
}

fn part_key(osd: OsdId, part: usize) -> Option<String> {
    u32::try_from(part).ok().map(|part| usage::images(osd, part))
}

fn on(lease: LeaseId, key: String, value: bytes::Bytes) -> Change {
    Change::Put {
        key,
        value,
        lease: Some(lease),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_store_shows_is_written_anew() {
        let mut usage = Usage::default();
        usage.begin(LeaseId(1), Now(0));
        (usage.pools_due, usage.due) = (false, BTreeSet::new());
        usage.replaced();
        assert_eq!(usage.there.len(), usage.counters.parts(), "it may have any of them");
        assert!(usage.lease.is_none(), "the next report begins anew");
    }

    #[test]
    fn what_may_be_written_late_is_written_once_more() {
        let mut usage = Usage::default();
        let about = About::Write {
            pools: true,
            part: Some(3),
        };
        usage.under_way = Some(Report { ticket: 1, about });
        let began = Now(0) + PERIOD;
        usage.ended(1, TxnOutcome::Unknown, began);
        assert!(usage.pools_due && usage.due.contains(&3), "at once");
        (usage.pools_due, usage.due) = (false, BTreeSet::new());
        usage.end_doubts(began + DOUBTED_FOR.saturating_sub(Duration::from_nanos(1)));
        assert!(!usage.pools_due && usage.due.is_empty());
        usage.end_doubts(began + DOUBTED_FOR);
        assert!(usage.pools_due && usage.due.contains(&3), "and again");
        assert!(usage.doubts.is_empty());
    }
}
