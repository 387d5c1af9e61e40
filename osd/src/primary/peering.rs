//! Peering, the primary's side: fence everybody who may know something, gather listings, decide, become active.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_core::keys::Interval;
use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::{Listed, PeerBody, Promise};
use trivet_core::{Epoch, Now, ObjectId, OsdId, PgId, keys};

use crate::Osd;
use crate::ctx::{Ctx, TxnWait};
use crate::options::{Options, mutant};
use crate::primary::confirm::Confirmation;
use crate::primary::decide::{Authorities, decide};
use crate::primary::pg::{Active, Pg, Phase, Recorded, interval, shorten};
use crate::primary::recovery::Recovery;
use crate::primary::report::Report;
use crate::primary::scrub::Scrubs;
use crate::primary::tombstone::Tombstones;

/// A member that has not listed what it has is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What was heard so far.
#[derive(Debug)]
pub(crate) struct Peering {
    pub recorded: Recorded,
    /// What was listed, by whom.
    listings: BTreeMap<OsdId, BTreeMap<ObjectId, Listed>>,
    /// The parts that are still to come, of everybody who began to list.
    parts: BTreeMap<OsdId, BTreeSet<u32>>,
    /// Who has listed everything.
    listed: BTreeSet<OsdId>,
    /// When everybody was asked first, and when those who have not listed were asked last.
    asked_from: Now,
    asked_at: Now,
    /// Until when each member keeps what it promised to an earlier primary.
    promised: BTreeMap<OsdId, Now>,
}

impl Peering {
    /// The claim is written: peering begins.
    pub(crate) fn new(recorded: Recorded, now: Now) -> Peering {
        Peering {
            recorded,
            listings: BTreeMap::new(),
            parts: BTreeMap::new(),
            listed: BTreeSet::new(),
            asked_from: now,
            asked_at: now,
            promised: BTreeMap::new(),
        }
    }

    /// A part of a member's listing, and for how long it keeps what it promised to another primary.
    fn take(&mut self, from: OsdId, (part, parts): (u32, u32), promised: Now, objects: Vec<Listed>) {
        let until = self.promised.entry(from).or_insert(promised);
        *until = promised.max(*until);
        let missing = self.parts.entry(from).or_insert_with(|| (0..parts).collect());
        missing.remove(&part);
        if missing.is_empty() {
            self.listed.insert(from);
        }
        let listing = self.listings.entry(from).or_default();
        listing.extend(objects.into_iter().map(|l| (l.object, l)));
    }

    /// Whether the primaries of the last active epochs, of this PG and of those that it takes over from, must have
    /// stopped answering reads.
    fn is_freed(&self, now: Now, options: &Options) -> bool {
        let active = || {
            self.recorded
                .history
                .intervals
                .iter()
                .filter(|interval| interval.active)
        };
        let own = active().rfind(|interval| interval.of.is_none());
        let ignored = mutant!(options, IgnoreInherited);
        let inherited = active().filter(|interval| interval.of.is_some() && !ignored);
        own.into_iter()
            .chain(inherited)
            .all(|interval| self.is_over(interval, now))
    }

    /// Whether an interval's primary must have stopped answering reads: it was heard itself, or one of those who had to
    /// confirm it keeps no promise any more.
    fn is_over(&self, interval: &Interval, now: Now) -> bool {
        let Some((primary, others)) = interval.acting.split_first() else {
            return true;
        };
        let free = |osd: &OsdId| self.promised.get(osd).is_some_and(|until| *until <= now);
        self.listed.contains(primary) || others.iter().any(free)
    }
}

impl Osd {
    /// Asks again, for questions and answers get lost; goes on where only promises to an earlier primary stood in the
    /// way.
    pub(crate) fn repeat_fences(&mut self) {
        for pg in self.pgs.values_mut() {
            pg.activate_if_heard(&mut self.ctx);
            let now = self.ctx.now;
            let due = |peering: &Peering| now.since(peering.asked_at) >= ASK_AGAIN;
            if matches!(&pg.phase, Phase::Peering(peering) if due(peering)) {
                pg.send_fences(&mut self.ctx);
            }
        }
    }

    /// A part of a member's listing.
    pub(crate) fn listing(
        &mut self,
        from: OsdId,
        (id, epoch): (PgId, Epoch),
        part: (u32, u32),
        promise: Option<Promise>,
        objects: Vec<Listed>,
    ) {
        let (now, me) = (self.ctx.now, self.id());
        // A listing comes late, or once more if it was asked for twice.
        let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.epoch == epoch) else {
            return;
        };
        let Phase::Peering(peering) = &mut pg.phase else { return };
        let left = promise.filter(|p| p.to != Some(me)).map_or(Duration::ZERO, |p| p.left);
        peering.take(from, part, now + left, objects);
        pg.activate_if_heard(&mut self.ctx);
    }

    /// A member has accepted a higher epoch.
    pub(crate) fn refused(&mut self, id: PgId, epoch: Epoch, accepted: Epoch) {
        if let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.epoch == epoch) {
            pg.refused(&mut self.ctx, accepted);
        }
    }
}

impl Pg {
    /// Asks everybody in the membership who has not answered to accept the epoch and to list what they have.
    pub(crate) fn send_fences(&mut self, ctx: &mut Ctx) {
        let Phase::Peering(peering) = &mut self.phase else {
            unreachable!("fences are sent while the PG peers");
        };
        peering.asked_at = ctx.now;
        let asked = self.membership.asked.keys();
        for &osd in asked.filter(|osd| !peering.listed.contains(osd)) {
            ctx.tell_peer(osd, self.id, self.epoch, PeerBody::Fence);
        }
    }

    /// Activates the PG when everybody was heard and no earlier primary can be answering reads any more.
    fn activate_if_heard(&mut self, ctx: &mut Ctx) {
        // A claim without a lease would outlive this OSD.
        if ctx.lease.is_none() {
            return;
        }
        let heard = |peering: &Peering| self.membership.asked.keys().all(|osd| peering.listed.contains(osd));
        let may = |peering: &Peering| heard(peering) && peering.is_freed(ctx.now, &ctx.options);
        if !matches!(&self.phase, Phase::Peering(peering) if may(peering)) {
            return;
        }
        if let Phase::Peering(peering) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.activate(ctx, peering);
        }
    }

    /// Everybody was heard: decide, and record that this acting set is about to acknowledge writes.
    fn activate(&mut self, ctx: &mut Ctx, peering: Peering) {
        let next = Box::new(self.decided(ctx, peering));
        let history = &next.recorded.history;
        let txn = Txn {
            compare: vec![
                Compare::ModRevision(keys::history(self.id), next.recorded.revision),
                ctx.same_generation(self.id),
            ],
            changes: vec![Change::put(keys::history(self.id), encode(history)), next.claim(ctx)],
        };
        let ticket = ctx.run_txn(txn, TxnWait::Activate(self.id));
        self.phase = Phase::Activating { ticket, next };
    }

    /// What the PG is once it is active.
    fn decided(&self, ctx: &Ctx, peering: Peering) -> Active {
        let acting = self.membership.acting.clone();
        let mut recorded = peering.recorded;
        let mut authorities = Authorities::of(&recorded.history);
        // A metadata store that knows of no history, but objects: it was lost. Everything counts.
        if authorities.is_nobody() || mutant!(ctx.options, BelieveStrays) {
            authorities = Authorities::everybody(peering.listings.keys().copied());
        }
        let missing = decide(&acting, &authorities, &peering.listings, &ctx.options);
        let intervals = &mut recorded.history.intervals;
        if missing.is_empty() || mutant!(ctx.options, ForgetHistory) {
            intervals.clear();
        } else {
            intervals.retain(|interval| interval.epoch != self.epoch);
        }
        intervals.push(interval(self.epoch, &acting, true));
        shorten(&mut recorded.history, &ctx.options);
        let mut asked = peering.asked_from;
        if mutant!(ctx.options, ConfirmedLate) {
            asked = ctx.now;
        }
        let others = acting.iter().copied().skip(1);
        Active {
            id: self.id,
            epoch: self.epoch,
            report: Report::activated(missing.len(), ctx.now),
            recorded,
            served_from: 0,
            active_since: ctx.now,
            confirmation: Confirmation::new(others, asked, ctx.now),
            queues: BTreeMap::new(),
            recovery: Recovery::of(missing),
            tombstones: Tombstones::default(),
            scrubs: Scrubs::default(),
            floor_counter: 0,
            acting,
        }
    }

    pub(crate) fn activate_ended(&mut self, ctx: &mut Ctx, ticket: u64, outcome: TxnOutcome) {
        if !matches!(&self.phase, Phase::Activating { ticket: own, .. } if *own == ticket) {
            return;
        }
        let Phase::Activating { mut next, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("just looked at");
        };
        match outcome {
            TxnOutcome::Committed(revision) => {
                next.recorded.revision = revision;
                (next.served_from, next.active_since) = (revision, ctx.now);
                next.tombstones.begin(ctx, self.id);
                ctx.count_pg(self.id);
                ctx.concerns.healing = true;
                self.phase = Phase::Active(next);
            }
            // Claimed anew with the next look at the map.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => {}
        }
    }
}

#[cfg(test)]
impl Pg {
    /// One that is active in its first epoch; its members have confirmed nothing since long ago.
    pub(crate) fn activated(ctx: &Ctx, id: PgId, membership: crate::primary::pg::Membership) -> Pg {
        let mut pg = Pg {
            id,
            epoch: Epoch(1),
            membership,
            floor_epoch: Epoch(0),
            phase: Phase::Idle,
        };
        let recorded = Recorded {
            history: trivet_core::keys::History::default(),
            revision: 0,
        };
        let mut active = pg.decided(ctx, Peering::new(recorded, Now(0)));
        active.confirmation = Confirmation::default();
        pg.phase = Phase::Active(Box::new(active));
        pg
    }
}
