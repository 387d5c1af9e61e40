//! What a member executes: mutations, whole objects, and what the primary asks about its copy.

use trivet_core::buffer::{join, slice_segments};
use trivet_core::message::{PeerBody, WriteError};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::{ObjectId, OsdId, UNIT_SIZE, UnitMask, Version};
use trivet_store::api::{Reply, Request, StoreError};

use crate::ctx::{Ctx, Target, Wait};
use crate::member::Member;
use crate::options::mutant;

impl Member {
    /// Whether a request of this epoch may be executed; if not, the sender is told.
    fn admits(&self, ctx: &mut Ctx, from: OsdId, target: Target) -> bool {
        let accepted = self.accepted_epoch(target.pg);
        let admitted = target.epoch == accepted || mutant!(ctx.options, AcceptOldEpoch);
        if !admitted {
            ctx.tell(from, target, PeerBody::Refused { accepted });
        }
        admitted
    }

    /// A mutation, to be executed on top of the version that the primary names, and no other. One that was executed
    /// before is answered again; one that is just being executed will be.
    pub(crate) fn write(&self, ctx: &mut Ctx, from: OsdId, target: Target, after: Version, mutation: Mutation) {
        if !self.admits(ctx, from, target) {
            return;
        }
        let Target { object, .. } = target;
        let version = mutation.version;
        let (latest, is_nothing) = ctx.store.latest(object);
        let fits = latest == after || is_nothing && after == Version::NONE;
        if version <= ctx.durable(object) {
            say_written(ctx, from, target, version, Ok(()));
        } else if version > latest && (fits || mutant!(ctx.options, IgnorePredecessor)) {
            let wait = Wait::MemberWrite(from, target, version);
            ctx.ask(Request::Write { object, mutation }, wait);
        } else if version > latest {
            let error = if after == Version::NONE {
                WriteError::Stale
            } else {
                WriteError::Behind
            };
            say_written(ctx, from, target, version, Err(error));
        }
    }

    /// A whole object. What is there already and newer is at least as good: it came after it in this epoch.
    pub(crate) fn push(&self, ctx: &mut Ctx, from: OsdId, target: Target, mutation: Mutation) {
        if !self.admits(ctx, from, target) {
            return;
        }
        let Target { object, .. } = target;
        let version = mutation.version;
        if ctx.store.latest(object).0 > version {
            return say_written(ctx, from, target, version, Ok(()));
        }
        let wait = Wait::MemberWrite(from, target, version);
        ctx.ask(Request::Replace { object, mutation }, wait);
    }

    /// A primary wants the whole object.
    pub(crate) fn fetch(&self, ctx: &mut Ctx, from: OsdId, target: Target) {
        if self.admits(ctx, from, target) {
            let object = target.object;
            ctx.ask(Request::Salvage { object }, Wait::Fetch(from, target));
        }
    }

    /// A primary wants an object verified.
    pub(crate) fn scrub(&self, ctx: &mut Ctx, from: OsdId, target: Target) {
        if self.admits(ctx, from, target) {
            let object = target.object;
            ctx.ask(Request::Salvage { object }, Wait::Scrub(from, target));
        }
    }

    /// A primary has this OSD forget a tombstone.
    pub(crate) fn forget(&self, ctx: &mut Ctx, from: OsdId, target: Target, version: Version) {
        if !ctx.is_halted() && self.admits(ctx, from, target) {
            let object = target.object;
            ctx.ask(Request::Forget { object, version }, Wait::Forget(from, target, version));
        }
    }
}

/// What became of a mutation, or a whole object.
pub(crate) fn say_written(ctx: &mut Ctx, to: OsdId, target: Target, version: Version, result: Result<(), WriteError>) {
    let body = PeerBody::Written {
        object: target.object,
        version,
        result,
    };
    ctx.tell(to, target, body);
}

/// The whole object was read, as far as it can be.
pub(crate) fn salvaged(ctx: &mut Ctx, from: OsdId, target: Target, result: Result<Reply, StoreError>) {
    let object = target.object;
    let (whole, damaged) = whole_object(ctx, object, result);
    ctx.tell(from, target, PeerBody::Fetched { object, whole, damaged });
}

/// An object was read that is to be verified.
pub(crate) fn verified(ctx: &mut Ctx, from: OsdId, target: Target, result: &Result<Reply, StoreError>) {
    let object = target.object;
    let now_there = ctx.store.info(object).map(|info| info.version);
    let (version, damaged) = match result {
        Ok(Reply::Salvaged { version, damaged, .. }) if now_there == Some(*version) => (*version, *damaged),
        // It is not there, or changed meanwhile: the primary looks again.
        _ => (Version::NONE, UnitMask::EMPTY),
    };
    let body = PeerBody::Scrubbed {
        object,
        version,
        digest: ctx.store.digest(object),
        damaged,
    };
    ctx.tell(from, target, body);
}

/// A tombstone is forgotten, or the disk has failed.
pub(crate) fn say_forgotten(
    ctx: &mut Ctx,
    to: OsdId,
    target: Target,
    version: Version,
    result: &Result<Reply, StoreError>,
) {
    if result.is_ok() {
        let object = target.object;
        ctx.tell(to, target, PeerBody::Forgotten { object, version });
    }
}

/// An object that was read as a whole, as the mutation that makes it elsewhere, and the units of it that cannot be read.
/// None if it is not there, or changed meanwhile.
fn whole_object(ctx: &Ctx, object: ObjectId, result: Result<Reply, StoreError>) -> (Option<Mutation>, UnitMask) {
    let Ok(Reply::Salvaged {
        version,
        segments,
        damaged,
    }) = result
    else {
        return (None, UnitMask::EMPTY);
    };
    let Some(info) = ctx.store.info(object).filter(|info| info.version == version) else {
        return (None, UnitMask::EMPTY);
    };
    let damaged = if mutant!(ctx.options, RepairWithZeroes) {
        UnitMask::EMPTY
    } else {
        damaged
    };
    let patches = info.present.minus(damaged).runs().map(|(first, count)| {
        let data = slice_segments(&segments, first * UNIT_SIZE, count * UNIT_SIZE);
        Patch::seal(object, first, join(data))
    });
    let mut ops = ctx.store.ops(object);
    if mutant!(ctx.options, HealWithoutOps) {
        ops.clear();
    }
    let whole = Mutation {
        version,
        ops: Ops::Exactly(ops),
        zero: UnitMask::ALL,
        patches: patches.collect(),
        tombstone: info.tombstone,
    };
    (Some(whole), damaged)
}
