//! Scrub: every copy of every object is read, verified and compared with the others, one object at a time and paced;
//! what is damaged is repaired from a good copy. The outcome goes to the metadata store.

use std::collections::VecDeque;
use std::time::Duration;

use trivet_core::keys::{self, ScrubReport};
use trivet_core::kv::{Change, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::PeerBody;
use trivet_core::{Now, ObjectId, OsdId, UnitMask, Version};

use crate::ctx::{Ctx, TxnWait};
use crate::options::mutant;
use crate::primary::pg::{Active, Pg};
use crate::primary::queue::ObjectQueue;
use crate::redundancy::copies::{Copy, Verdict, judge};

/// Objects that a PG compares between two ticks at most: 80 in a second, 10 MiB/s.
const PER_TICK: usize = 8;

/// Members that have not answered are asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// An object whose copies have different versions is looked at again this often: it may just be changing.
const TRIES: u32 = 50;

/// The scrubs of a PG: the one under way, and the one that was asked for last.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    under_way: Option<Scrub>,
    /// The last request for a scrub that was answered.
    answered: u64,
}

/// A scrub that is under way.
#[derive(Debug)]
struct Scrub {
    todo: VecDeque<(ObjectId, u32)>,
    current: Option<Current>,
    budget: usize,
    /// The transaction that reports the end.
    reporting: Option<u64>,
    report: ScrubReport,
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

impl Scrubs {
    /// An object that was damaged is whole again.
    pub(crate) fn repaired(&mut self) {
        if let Some(scrub) = &mut self.under_way {
            scrub.report.repaired += 1;
        }
    }

    /// Of an object that was damaged, some units cannot be read anywhere.
    pub(crate) fn lost(&mut self) {
        if let Some(scrub) = &mut self.under_way {
            scrub.report.lost += 1;
        }
    }
}

impl Scrub {
    /// Of these objects, as asked for with this number.
    fn of(mut objects: Vec<ObjectId>, number: u64) -> Scrub {
        objects.sort_unstable();
        Scrub {
            todo: objects.into_iter().map(|object| (object, 0)).collect(),
            current: None,
            budget: PER_TICK,
            reporting: None,
            report: ScrubReport {
                number,
                ..ScrubReport::default()
            },
        }
    }
}

impl Active {
    /// Starts a scrub that is due, and goes on with one that is under way: while the whole up set takes part, for a copy
    /// that is away was not compared. With each tick one PG starts at most: it sorts its objects, and everybody waits.
    pub(crate) fn scrub_more(&mut self, ctx: &mut Ctx) {
        if let Some(scrub) = &mut self.scrubs.under_way {
            scrub.budget = PER_TICK;
        } else if let Some(number) = self.scrub_due(ctx).filter(|_| !ctx.scrub_began) {
            ctx.scrub_began = true;
            let objects = ctx.objects_of(self.id).map(|(object, _)| object);
            self.scrubs.under_way = Some(Scrub::of(objects.collect(), number));
        } else {
            return;
        }
        self.ask_copies_again(ctx);
        self.scrub_next(ctx);
    }

    /// The number of the request that the PG has not answered yet.
    fn scrub_due(&self, ctx: &Ctx) -> Option<u64> {
        let wanted = ctx.map.scrub.as_ref()?.number;
        let done = ctx.map.scrubs.get(&self.id).map_or(0, |report| report.value.number);
        (wanted > done.max(self.scrubs.answered)).then_some(wanted)
    }

    /// Asks all members for the next object, or reports when there are no more.
    fn scrub_next(&mut self, ctx: &mut Ctx) {
        let all = if mutant!(ctx.options, ScrubOnlyOwn) {
            1
        } else {
            self.acting.len()
        };
        let under_way = self.scrubs.under_way.as_mut();
        let Some(scrub) = under_way.filter(|s| s.current.is_none() && s.budget > 0) else {
            return;
        };
        let Some((object, tries)) = scrub.todo.pop_front() else {
            return self.report_scrub(ctx);
        };
        scrub.budget -= 1;
        let current = scrub.current.insert(Current {
            object,
            tries,
            awaited: self.acting[..all].to_vec(),
            copies: Vec::new(),
            sent: ctx.now,
        });
        for &osd in &current.awaited {
            ctx.tell_peer(osd, self.id, self.epoch, PeerBody::Scrub { object });
        }
    }

    fn ask_copies_again(&mut self, ctx: &mut Ctx) {
        let under_way = self.scrubs.under_way.as_mut();
        let current = under_way.and_then(|scrub| scrub.current.as_mut());
        let Some(current) = current.filter(|current| ctx.now.since(current.sent) >= ASK_AGAIN) else {
            return;
        };
        current.sent = ctx.now;
        let object = current.object;
        for &osd in &current.awaited {
            ctx.tell_peer(osd, self.id, self.epoch, PeerBody::Scrub { object });
        }
    }

    /// A member's copy.
    pub(crate) fn scrubbed(
        &mut self,
        ctx: &mut Ctx,
        from: OsdId,
        object: ObjectId,
        (version, digest, damaged): (Version, u64, UnitMask),
    ) {
        // Who is asked twice answers twice.
        let under_way = self.scrubs.under_way.as_mut();
        let Some(current) = under_way.and_then(|scrub| scrub.current.as_mut()) else {
            return;
        };
        if current.object != object || !current.awaited.contains(&from) {
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
            self.compare_copies(ctx);
            self.scrub_next(ctx);
        }
    }

    /// All copies of the object are known.
    fn compare_copies(&mut self, ctx: &mut Ctx) {
        let scrub = self.scrubs.under_way.as_mut().expect("copies were asked for");
        let Current {
            object, tries, copies, ..
        } = scrub.current.take().expect("copies were asked for");
        let is_busy = self.queues.contains_key(&object) || self.recovery.missing.contains_key(&object);
        let verdict = judge(&copies);
        if is_busy || verdict == Verdict::Changing && tries < TRIES {
            scrub.todo.push_back((object, tries + u32::from(!is_busy)));
            scrub.budget = scrub.budget.min(1);
            return;
        }
        let is_gone = copies.iter().all(|copy| copy.version == Version::NONE);
        scrub.report.objects += u64::from(!is_gone);
        match verdict {
            Verdict::Equal => {}
            Verdict::Changing | Verdict::Inconsistent => scrub.report.inconsistent += 1,
            Verdict::Damaged(osds) => {
                let mut queue = ObjectQueue::of(&ctx.store, object);
                queue.damaged = osds;
                self.queues.insert(object, queue);
                self.make_equal(ctx, object);
            }
        }
    }

    fn report_scrub(&mut self, ctx: &mut Ctx) {
        let compare = self.same_history(ctx);
        let waits = self.report.is_under_way() || !self.is_clean();
        let under_way = self.scrubs.under_way.as_mut();
        let Some(scrub) = under_way.filter(|s| s.reporting.is_none() && !waits) else {
            return;
        };
        let changes = vec![Change::put(keys::scrub(self.id), encode(&scrub.report))];
        let ticket = ctx.run_txn(Txn { compare, changes }, TxnWait::Scrub(self.id));
        scrub.reporting = Some(ticket);
    }
}

impl Pg {
    pub(crate) fn scrub_reported(&mut self, ticket: u64, outcome: TxnOutcome) {
        // The PG started over meanwhile.
        let Some(active) = self.active_mut() else { return };
        let under_way = &mut active.scrubs.under_way;
        let Some(scrub) = under_way.as_mut().filter(|scrub| scrub.reporting == Some(ticket)) else {
            return;
        };
        scrub.reporting = None;
        if matches!(outcome, TxnOutcome::Committed(_)) {
            active.scrubs.answered = scrub.report.number;
            *under_way = None;
        }
    }
}
