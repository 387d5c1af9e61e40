//! Tombstones are kept until no member can bring the object back, and a while longer: an operation on the object that
//! was executed before its deletion may still be repeated, and the tombstone remembers it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trivet_core::message::PeerBody;
use trivet_core::{Now, ObjectId, OsdId, PgId, Version};
use trivet_store::api::Request;

use crate::ctx::{Ctx, Wait};
use crate::primary::pg::Active;

/// How long a tombstone is kept after every member has it. Far longer than clients take to repeat an operation.
const KEPT: Duration = Duration::from_secs(60);

/// Tombstones of a PG that are being forgotten at the same time, at most.
const AT_ONCE: usize = 1024;

/// A member that has not confirmed is told again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A tombstone that members are to forget.
#[derive(Debug)]
struct Forgetting {
    version: Version,
    /// Who has not confirmed.
    awaited: Vec<OsdId>,
    sent: Option<Now>,
}

/// The tombstones of a PG.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    /// Those that every member has, oldest first, and since when.
    kept: VecDeque<(Now, ObjectId, Version)>,
    /// Those that members are just forgetting.
    forgetting: BTreeMap<ObjectId, Forgetting>,
}

impl Tombstones {
    /// Remembers the tombstones that there are when the PG becomes active.
    pub(crate) fn begin(&mut self, ctx: &Ctx, pg: PgId) {
        let tombstones = ctx.objects_of(pg).filter(|(_, info)| info.tombstone);
        let mut found: Vec<(ObjectId, Version)> = tombstones.map(|(object, info)| (object, info.version)).collect();
        found.sort_unstable();
        let kept = found.into_iter().map(|(object, version)| (ctx.now, object, version));
        self.kept = kept.collect();
    }

    /// Every member has the tombstone.
    pub(crate) fn note(&mut self, now: Now, object: ObjectId, version: Version) {
        self.kept.push_back((now, object, version));
    }

    /// The oldest one, if it was kept for long enough.
    fn take_due(&mut self, now: Now) -> Option<(ObjectId, Version)> {
        if self.forgetting.len() >= AT_ONCE {
            return None;
        }
        let (_, object, version) = self.kept.pop_front_if(|first| now.since(first.0) >= KEPT)?;
        Some((object, version))
    }
}

impl Active {
    /// Drops old tombstones on all members, while the PG is clean on its whole up set.
    pub(crate) fn forget_due(&mut self, ctx: &mut Ctx) {
        let others: Vec<OsdId> = self.others().collect();
        while let Some((object, version)) = self.tombstones.take_due(ctx.now) {
            if self.queues.contains_key(&object) {
                // Whatever is under way on it counts on it.
                self.tombstones.note(ctx.now, object, version);
                continue;
            }
            if version.epoch == self.epoch {
                self.floor_counter = self.floor_counter.max(version.counter);
            }
            let forgetting = Forgetting {
                version,
                awaited: others.clone(),
                sent: None,
            };
            self.tombstones.forgetting.insert(object, forgetting);
        }
        self.send_forget(ctx);
    }

    /// Tells members that have not confirmed, and may not have heard, to forget.
    fn send_forget(&mut self, ctx: &mut Ctx) {
        let mut over: Vec<(ObjectId, Version)> = Vec::new();
        for (&object, forgetting) in &mut self.tombstones.forgetting {
            let version = forgetting.version;
            if forgetting.awaited.is_empty() {
                over.push((object, version));
            } else if forgetting.sent.is_none_or(|at| ctx.now.since(at) >= AGAIN) {
                forgetting.sent = Some(ctx.now);
                for &osd in &forgetting.awaited {
                    ctx.tell_peer(osd, self.id, self.epoch, PeerBody::Forget { object, version });
                }
            }
        }
        for (object, version) in over {
            self.forget_own(ctx, object, version);
        }
    }

    /// A member has forgotten a tombstone; this OSD does so last, so that it knows of all that are left.
    pub(crate) fn forgotten(&mut self, ctx: &mut Ctx, from: OsdId, object: ObjectId, version: Version) {
        // Who is told twice answers twice.
        let forgetting = self.tombstones.forgetting.get_mut(&object);
        let Some(forgetting) = forgetting.filter(|f| f.version == version) else {
            return;
        };
        forgetting.awaited.retain(|&osd| osd != from);
        if forgetting.awaited.is_empty() {
            self.forget_own(ctx, object, version);
        }
    }

    fn forget_own(&mut self, ctx: &mut Ctx, object: ObjectId, version: Version) {
        self.tombstones.forgetting.remove(&object);
        ctx.ask(Request::Forget { object, version }, Wait::Nobody);
    }
}
