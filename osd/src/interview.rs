//! Peering, the primary's side: fence everybody who may know something, gather listings, decide, become active; and
//! later, tell the metadata store that the PG is clean.

use std::time::Duration;

use trivet_core::keys::{self, Interval};
use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::{Listed, PeerBody, Promise};
use trivet_core::{Epoch, Now, OsdId, PgId};

use crate::decide::{Authorities, decide};
use crate::options::{Options, mutant};
use crate::pg::{Pg, Phase, send_all_on, shorten};
use crate::{Effect, Osd, TxnWait};

/// How often the number of missing objects is written to the metadata store.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A member that has not listed what it has is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Osd {
    /// Asks everybody in the setting who has not answered to accept the epoch and to list what they have.
    pub(crate) fn send_fences(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        pg.asked_at = self.now;
        let epoch = pg.epoch;
        let silent: Vec<OsdId> = pg
            .setting
            .asked
            .keys()
            .copied()
            .filter(|osd| !pg.listed.contains(osd))
            .collect();
        for osd in silent {
            self.to_peer(osd, id, epoch, PeerBody::Fence, out);
        }
    }

    /// Asks again, for questions and answers get lost; goes on where only promises to an earlier primary stood in the
    /// way.
    pub(crate) fn repeat_fences(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        let waiting = |pg: &Pg| pg.phase == Phase::Interviewing;
        let waiting: Vec<PgId> = self
            .pgs
            .iter()
            .filter(|(_, pg)| waiting(pg))
            .map(|(&id, _)| id)
            .collect();
        for id in waiting {
            self.activate_if_heard(id, out);
            let due = |pg: &Pg| pg.phase == Phase::Interviewing && now.since(pg.asked_at) >= ASK_AGAIN;
            if self.pgs.get(&id).is_some_and(due) {
                self.send_fences(id, out);
            }
        }
    }

    /// A part of a member's listing.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn listing(
        &mut self,
        from: OsdId,
        id: PgId,
        epoch: Epoch,
        (part, parts): (u32, u32),
        promise: Option<Promise>,
        objects: Vec<Listed>,
        out: &mut Vec<Effect>,
    ) {
        let (now, me) = (self.now, self.id());
        let Some(pg) = self
            .pgs
            .get_mut(&id)
            .filter(|pg| pg.epoch == epoch && pg.phase == Phase::Interviewing)
        else {
            return;
        };
        let left = promise.filter(|p| p.to != Some(me)).map_or(Duration::ZERO, |p| p.left);
        let promised = pg.promised.entry(from).or_insert(now);
        *promised = (*promised).max(now + left);
        let missing = pg.parts.entry(from).or_insert_with(|| (0..parts).collect());
        missing.remove(&part);
        if missing.is_empty() {
            pg.listed.insert(from);
        }
        let listing = pg.listings.entry(from).or_default();
        listing.extend(objects.into_iter().map(|l| (l.object, l)));
        self.activate_if_heard(id, out);
    }

    /// Activates the PG when everybody was heard and no earlier primary can be answering reads any more.
    fn activate_if_heard(&mut self, id: PgId, out: &mut Vec<Effect>) {
        // A claim without a lease would outlive this OSD.
        if self.lease.is_none() {
            return;
        }
        let now = self.now;
        let heard = |pg: &Pg| pg.setting.asked.keys().all(|osd| pg.listed.contains(osd));
        let options = self.options;
        if self
            .pgs
            .get(&id)
            .is_some_and(|pg| heard(pg) && pg.is_freed(now, &options))
        {
            self.activate(id, out);
        }
    }

    /// A member has accepted a higher epoch: somebody else claimed the PG, or this OSD must claim higher.
    pub(crate) fn refused(&mut self, id: PgId, epoch: Epoch, accepted: Epoch, out: &mut Vec<Effect>) {
        let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.epoch == epoch) else {
            return;
        };
        pg.floor_epoch = pg.floor_epoch.max(accepted);
        self.start_over(id, out);
    }

    /// Leaves the epoch; the next tick claims a new one if the plan still says so.
    pub(crate) fn start_over(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let Some(old) = self.pgs.remove(&id) else { return };
        let mut pg = Pg::new(old.history.clone(), old.setting.clone());
        pg.epoch = old.epoch;
        pg.floor_epoch = old.floor_epoch;
        self.pgs.insert(id, pg);
        send_all_on(old, out);
    }

    /// Everybody was heard: decide, and record that this acting set is about to acknowledge writes.
    fn activate(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let Some(mut pg) = self.pgs.remove(&id) else { return };
        let listings = std::mem::take(&mut pg.listings);
        let mut authorities = Authorities::of(&pg.history);
        // A metadata store that knows of no history, but objects: it was lost. Everything counts.
        if authorities.is_nobody() || mutant!(self.options, BelieveStrays) {
            authorities = Authorities::everybody(listings.keys().copied());
        }
        pg.missing = decide(&pg.setting.acting, &authorities, &listings, &self.options);
        let deletions = pg.missing.iter().filter(|(_, missing)| missing.newest.tombstone);
        pg.deletions = deletions.map(|(&object, _)| object).collect();
        let epoch = pg.epoch;
        if pg.missing.is_empty() || mutant!(self.options, ForgetHistory) {
            pg.history.intervals.clear();
        } else {
            pg.history.intervals.retain(|interval| interval.epoch != epoch);
        }
        pg.history.intervals.push(Interval {
            epoch,
            acting: pg.setting.acting.clone(),
            active: true,
            of: None,
        });
        shorten(&mut pg.history, &self.options);
        pg.reported = (pg.missing.len() as u64, self.now);
        // The fences were as good as pings: who answered accepted the epoch after they were sent.
        let mut asked_from = pg.asked_from;
        if mutant!(self.options, ConfirmedLate) {
            asked_from = self.now;
        }
        pg.confirmed = pg.others().map(|osd| (osd, asked_from)).collect();
        pg.pinged_from = self.now;
        pg.phase = Phase::Activating { ticket: self.next };
        let txn = Txn {
            compare: vec![
                Compare::ModRevision(keys::history(id), pg.history_revision),
                self.same_generation(id),
            ],
            changes: vec![
                Change::put(keys::history(id), encode(&pg.history)),
                self.claim_change(id, &pg, true),
            ],
        };
        self.pgs.insert(id, pg);
        self.run_txn(txn, TxnWait::Activate(id), out);
    }

    pub(crate) fn activate_ended(&mut self, id: PgId, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        let Some(pg) = self
            .pgs
            .get_mut(&id)
            .filter(|pg| pg.phase == Phase::Activating { ticket })
        else {
            return;
        };
        match outcome {
            TxnOutcome::Committed(revision) => {
                pg.history_revision = revision;
                pg.phase = Phase::Active;
                (pg.served_from, pg.active_since) = (revision, self.now);
                self.note_tombstones(id);
                self.count_pg(id);
                self.heal_in_background(out);
            }
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => pg.phase = Phase::Idle,
        }
    }

    /// Writes to the metadata store how far healing is; the history shrinks when the PG is clean.
    pub(crate) fn report_all(&mut self, out: &mut Vec<Effect>) {
        if self.lease.is_none() {
            return;
        }
        let now = self.now;
        let due: Vec<PgId> = self
            .pgs
            .iter()
            .filter(|(_, pg)| {
                pg.phase == Phase::Active
                    && pg.reporting.is_none()
                    && pg.reported.0 != pg.missing.len() as u64
                    && (pg.missing.is_empty() || now.since(pg.reported.1) >= REPORT_INTERVAL)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            self.report(id, out);
        }
    }

    fn report(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let Some(mut pg) = self.pgs.remove(&id) else { return };
        let mut changes = vec![self.claim_change(id, &pg, true)];
        if pg.missing.is_empty() {
            let epoch = pg.epoch;
            pg.history.intervals.retain(|interval| interval.epoch == epoch);
            changes.push(Change::put(keys::history(id), encode(&pg.history)));
        }
        pg.reported = (pg.missing.len() as u64, self.now);
        pg.reporting = Some(self.next);
        let compare = vec![
            Compare::ModRevision(keys::history(id), self.history_revision(id, &pg)),
            self.same_generation(id),
        ];
        self.pgs.insert(id, pg);
        self.run_txn(Txn { compare, changes }, TxnWait::Report(id), out);
    }

    /// The commit that wrote the history last. Nobody else writes it with this epoch, but this OSD may have written it
    /// without hearing of the outcome.
    pub(crate) fn history_revision(&self, id: PgId, pg: &Pg) -> u64 {
        let mirrored = self.map.histories.get(&id).filter(|h| h.value.epoch == pg.epoch);
        mirrored.map_or(0, |h| h.revision).max(pg.history_revision)
    }

    pub(crate) fn report_ended(&mut self, id: PgId, ticket: u64, outcome: TxnOutcome) {
        let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.reporting == Some(ticket)) else {
            return;
        };
        pg.reporting = None;
        let shrunk = pg.reported.0 == 0;
        match outcome {
            TxnOutcome::Committed(revision) if shrunk => pg.history_revision = revision,
            TxnOutcome::Committed(_) => {}
            // Said again with the next tick; a foreign claim shows in the notices.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => pg.reported.0 = u64::MAX,
        }
    }
}

impl Pg {
    /// Whether the primaries of the last active epochs, of this PG and of those that it takes over from, must have
    /// stopped answering reads.
    fn is_freed(&self, now: Now, options: &Options) -> bool {
        let active = || self.history.intervals.iter().filter(|interval| interval.active);
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
