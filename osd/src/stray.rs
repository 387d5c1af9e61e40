//! Strays: objects of PGs in which this OSD has no part any more. It asks the primary whether they may go; the primary
//! says so when the PG is clean without them.

use std::time::Duration;

use trivet_core::message::PeerBody;
use trivet_core::mutation::{Mutation, Ops};
use trivet_core::{Epoch, ObjectId, OsdId, PgId, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::{Effect, Osd, Wait};

/// How often this OSD looks for PGs in which it has no part.
const INTERVAL: Duration = Duration::from_secs(5);

/// Objects that are dropped with one tick at most.
const AT_ONCE: usize = 64;

impl Osd {
    /// Asks about strays, and drops those that may go.
    pub(crate) fn drop_strays(&mut self, out: &mut Vec<Effect>) {
        if self.now.since(self.strays_at) >= INTERVAL {
            self.strays_at = self.now;
            self.ask_about_strays(out);
        }
        let dropping: Vec<(PgId, Epoch)> = self.dropping.iter().map(|(&pg, &epoch)| (pg, epoch)).collect();
        for (pg, epoch) in dropping {
            if self.accepted.get(&pg) == Some(&epoch) {
                self.drop_some(pg, epoch);
            } else {
                self.dropping.remove(&pg);
            }
        }
    }

    fn ask_about_strays(&self, out: &mut Vec<Effect>) {
        for &pg in self.accepted.keys().filter(|pg| !self.dropping.contains_key(pg)) {
            let Some(claim) = self.map.claims.get(&pg).map(|claim| &claim.value) else {
                continue;
            };
            if claim.active && !self.has_part(pg) && self.objects_of(pg).next().is_some() {
                self.to_peer(claim.primary, pg, claim.epoch, PeerBody::Stray, out);
            }
        }
    }

    /// Whether this OSD is in the up set, or in a set that the history still needs.
    fn has_part(&self, pg: PgId) -> bool {
        let me = self.id();
        let planned = self.plan_of(pg).is_none_or(|plan| plan.osds.contains(&me));
        let history = self.map.histories.get(&pg).map(|history| &history.value.intervals);
        planned || history.is_none_or(|intervals| intervals.iter().any(|interval| interval.acting.contains(&me)))
    }

    /// Somebody asks whether his objects may go.
    pub(crate) fn stray(&mut self, from: OsdId, id: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        if !self.is_clean_on_up_set(id) {
            return;
        }
        let Some(pg) = self.pgs.get(&id) else { return };
        let recorded = pg.reporting.is_none() && pg.reported.0 == 0 && pg.history.intervals.len() == 1;
        if pg.epoch == epoch && recorded && !pg.setting.acting.contains(&from) {
            self.to_peer(from, id, epoch, PeerBody::Drop, out);
        }
    }

    /// A primary says that the PG is clean without this OSD.
    pub(crate) fn member_drop(&mut self, from: OsdId, pg: PgId, epoch: Epoch, out: &mut Vec<Effect>) {
        let accepted = self.accepted.get(&pg).copied().unwrap_or_default();
        if epoch < accepted || self.dropping.get(&pg) == Some(&epoch) {
            return;
        }
        self.accept(from, pg, epoch, out);
        self.ask(Request::AcceptEpoch { pg, epoch }, Wait::Drop(pg, epoch));
    }

    /// The epoch in which the PG has to go is durable.
    pub(crate) fn may_drop(&mut self, pg: PgId, epoch: Epoch, result: &Result<Reply, StoreError>) {
        if result.is_ok() && self.accepted.get(&pg) == Some(&epoch) {
            self.dropping.insert(pg, epoch);
        }
    }

    /// Deletes some objects of the PG: a tombstone of a version beyond all that the epoch can give, which is forgotten
    /// at once.
    fn drop_some(&mut self, pg: PgId, epoch: Epoch) {
        let version = Version {
            epoch,
            counter: u64::MAX,
        };
        let mut objects: Vec<ObjectId> = self.objects_of(pg).map(|(object, _)| object).collect();
        if objects.is_empty() {
            self.dropping.remove(&pg);
            return;
        }
        objects.sort_unstable();
        objects.truncate(AT_ONCE);
        for object in objects {
            let mutation = Mutation {
                version,
                ops: Ops::Exactly(Vec::new()),
                zero: UnitMask::ALL,
                patches: Vec::new(),
                tombstone: true,
            };
            self.ask(Request::Replace { object, mutation }, Wait::Nobody);
            self.ask(Request::Forget { object, version }, Wait::Nobody);
        }
    }
}
