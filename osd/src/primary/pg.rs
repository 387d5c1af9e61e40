//! One PG of which this OSD is, or tries to be, the primary. What it knows depends on its phase, and belongs to it
//! (`docs/architecture.md`, the life of a PG).

use std::collections::BTreeMap;

use trivet_core::keys::{Claim, History, Interval};
use trivet_core::kv::{Change, Revision};
use trivet_core::map::encode;
use trivet_core::{Epoch, Now, ObjectId, OsdId, PgId, keys};

use crate::ctx::{Ctx, Target};
use crate::options::{Options, mutant};
use crate::primary::confirm::Confirmation;
use crate::primary::peering::Peering;
use crate::primary::queue::{ObjectQueue, queue_of};
use crate::primary::recovery::Recovery;
use crate::primary::report::Report;
use crate::primary::scrub::Scrubs;
use crate::primary::tombstone::Tombstones;

/// Who must be asked, as of one look at the map. A change means starting over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The members, this OSD first.
    pub acting: Vec<OsdId>,
    /// Everybody who is asked, with the start that is meant.
    pub asked: BTreeMap<OsdId, u64>,
}

/// The PG's history, as this OSD wrote it last.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub history: History,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// A PG that this OSD leads, or tries to, in one epoch.
#[derive(Debug)]
pub(crate) struct Pg {
    pub id: PgId,
    pub epoch: Epoch,
    pub membership: Membership,
    /// The highest epoch that members reported.
    pub floor_epoch: Epoch,
    pub phase: Phase,
}

/// Where a PG's life stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The claim's transaction is on its way, with this history.
    Claiming { ticket: u64, history: History },
    /// Members accept the epoch and list what they have.
    Peering(Peering),
    /// The transaction that makes the interval active is on its way: this is what the PG will be.
    Activating { ticket: u64, next: Box<Active> },
    /// Clients are served.
    Active(Box<Active>),
    /// To be claimed anew: the last attempt failed.
    Idle,
}

/// A PG that serves clients, or is about to: all members of its acting set accepted the epoch.
#[derive(Debug)]
pub(crate) struct Active {
    pub id: PgId,
    pub epoch: Epoch,
    /// The members, this OSD first.
    pub acting: Vec<OsdId>,
    pub recorded: Recorded,
    pub report: Report,
    /// The commit that made it active, and when this OSD heard of it.
    pub served_from: Revision,
    pub active_since: Now,
    pub confirmation: Confirmation,
    /// What runs on objects, and what waits.
    pub queues: BTreeMap<ObjectId, ObjectQueue>,
    pub recovery: Recovery,
    pub tombstones: Tombstones,
    pub scrubs: Scrubs,
    /// Counters of this epoch up to here belong to objects that were forgotten, or could not be healed.
    pub floor_counter: u64,
}

/// A member has what it should not have: peering has to decide again.
#[derive(Debug)]
pub(crate) struct StartOver;

/// What one PG has to tell about itself.
#[derive(Clone, Debug)]
pub struct PgStatus {
    /// Which PG.
    pub id: PgId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Clients are served.
    pub active: bool,
    /// Objects with too few copies.
    pub missing: usize,
    /// The members.
    pub acting: Vec<OsdId>,
}

impl Pg {
    pub(crate) fn status(&self) -> PgStatus {
        PgStatus {
            id: self.id,
            epoch: self.epoch,
            active: self.active().is_some(),
            missing: self.accepted().map_or(0, |active| active.recovery.missing.len()),
            acting: self.membership.acting.clone(),
        }
    }

    /// What it is while it serves clients.
    pub(crate) fn active(&self) -> Option<&Active> {
        match &self.phase {
            Phase::Active(active) => Some(active),
            _ => None,
        }
    }

    /// What it is while it serves clients.
    pub(crate) fn active_mut(&mut self) -> Option<&mut Active> {
        match &mut self.phase {
            Phase::Active(active) => Some(active),
            _ => None,
        }
    }

    /// What it is, or is about to be, once all members have accepted the epoch.
    pub(crate) fn accepted(&self) -> Option<&Active> {
        match &self.phase {
            Phase::Active(active) | Phase::Activating { next: active, .. } => Some(active),
            _ => None,
        }
    }

    /// What it is, or is about to be, once all members have accepted the epoch.
    pub(crate) fn accepted_mut(&mut self) -> Option<&mut Active> {
        match &mut self.phase {
            Phase::Active(active) | Phase::Activating { next: active, .. } => Some(active),
            _ => None,
        }
    }

    /// The commit that wrote the history last; none while the claim is on its way, or after it failed.
    pub(crate) fn recorded_at(&self) -> Option<Revision> {
        match &self.phase {
            Phase::Peering(peering) => Some(peering.recorded.revision),
            Phase::Activating { next, .. } => Some(next.recorded.revision),
            Phase::Active(active) => Some(active.recorded.revision),
            Phase::Claiming { .. } | Phase::Idle => None,
        }
    }

    /// Whether the epoch can go on under a newer look at the map: the members are the same, since the same start; and
    /// while listings are awaited, so is everybody who was asked.
    pub(crate) fn fits(&self, newer: &Membership) -> bool {
        let same_start = |osd: &OsdId| self.membership.asked.get(osd) == newer.asked.get(osd);
        let waits = matches!(self.phase, Phase::Claiming { .. } | Phase::Peering(_));
        self.membership.acting == newer.acting
            && self.membership.acting.iter().all(same_start)
            && (!waits || self.membership.asked.keys().all(same_start))
    }

    /// Leaves the epoch; the next look at the map claims a new one if the plan still says so.
    pub(crate) fn start_over(&mut self, ctx: &mut Ctx) {
        if let Phase::Active(active) = std::mem::replace(&mut self.phase, Phase::Idle) {
            active.send_all_on(ctx);
        }
    }

    /// A member has accepted a higher epoch: somebody else claimed the PG, or this OSD must claim higher.
    pub(crate) fn refused(&mut self, ctx: &mut Ctx, accepted: Epoch) {
        self.floor_epoch = self.floor_epoch.max(accepted);
        self.start_over(ctx);
    }

    /// Whether objects are being healed.
    pub(crate) fn is_healing(&self) -> bool {
        self.active().is_some_and(|active| !active.recovery.healing.is_empty())
    }

    /// Whether a member may still have to delete objects of the PG.
    pub(crate) fn may_delete_on(&self, osd: OsdId) -> bool {
        let pending = self.active().is_none_or(|active| active.recovery.is_deleting());
        pending && self.membership.acting.contains(&osd)
    }

    /// What is due in a PG with a tick.
    pub(crate) fn tick(&mut self, ctx: &mut Ctx) {
        let Phase::Active(active) = &mut self.phase else { return };
        active.repeat(ctx);
        active.ask_others(ctx);
        if active.is_clean_on_up_set(ctx) || mutant!(ctx.options, ForgetTombstones) {
            active.forget_due(ctx);
        }
        if active.is_clean_on_up_set(ctx) {
            active.scrub_more(ctx);
        }
    }
}

impl Active {
    /// An object in this epoch.
    pub(crate) fn target(&self, object: ObjectId) -> Target {
        Target {
            pg: self.id,
            epoch: self.epoch,
            object,
        }
    }

    /// The queue of an object on which something runs, or is about to.
    pub(crate) fn queue(&mut self, object: ObjectId) -> &mut ObjectQueue {
        queue_of(&mut self.queues, object)
    }

    /// Members other than the primary.
    pub(crate) fn others(&self) -> impl Iterator<Item = OsdId> + '_ {
        self.acting.iter().copied().skip(1)
    }

    /// Every object is equal on the whole acting set.
    pub(crate) fn is_clean(&self) -> bool {
        self.recovery.missing.is_empty()
    }

    /// The metadata store says that nothing is missing, and names no other interval.
    fn is_recorded(&self) -> bool {
        self.report.says_clean() && self.recorded.history.intervals.len() == 1
    }

    /// Nothing is missing, and the acting set is the whole up set; and so the history says: nobody else will be asked.
    pub(crate) fn is_clean_on_up_set(&self, ctx: &Ctx) -> bool {
        let plan = ctx.map.plan_of(self.id);
        self.is_clean()
            && self.is_recorded()
            && plan.is_some_and(|plan| plan.osds.iter().all(|osd| self.acting.contains(osd)))
    }

    /// Sends everybody who waits for an answer of the PG on to the next primary.
    pub(crate) fn send_all_on(self, ctx: &mut Ctx) {
        for queue in self.queues.into_values() {
            for (client, op) in queue.into_clients() {
                ctx.send_on(client, op);
            }
        }
        self.confirmation.send_all_on(ctx);
    }

    /// The put of the claim that says how the PG is.
    pub(crate) fn claim(&self, ctx: &Ctx) -> Change {
        claim(
            ctx,
            (self.id, self.epoch),
            &self.acting,
            Some(self.recovery.missing.len()),
        )
    }
}

/// The put of a claim. `missing`: how many objects, of a PG that is active.
pub(crate) fn claim(ctx: &Ctx, (id, epoch): (PgId, Epoch), acting: &[OsdId], missing: Option<usize>) -> Change {
    let claim = Claim {
        primary: ctx.id(),
        epoch,
        acting: acting.to_vec(),
        active: missing.is_some(),
        missing: missing.unwrap_or(0) as u64,
    };
    Change::Put {
        key: keys::claim(id),
        value: encode(&claim),
        lease: ctx.lease,
    }
}

/// Leaves out of a history what need not be recorded.
pub(crate) fn shorten(history: &mut History, options: &Options) {
    let count = history.intervals.len();
    if mutant!(options, DropIntervals) && count > options.intervals.max(2) {
        history.intervals.drain(1..count - 1);
    }
    history.merge(options.intervals);
}

/// The interval of these members in this epoch.
pub(crate) fn interval(epoch: Epoch, acting: &[OsdId], active: bool) -> Interval {
    Interval {
        epoch,
        acting: acting.to_vec(),
        active,
        of: None,
    }
}
