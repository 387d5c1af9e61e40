//! Changes of the tree of names: plan on the mirror, run the transaction, wait until the mirror has it, answer. A
//! transaction that was refused met a mirror that was behind: it is planned again once the mirror has moved.

use std::collections::BTreeMap;

use trivet_core::kv::{Compare, Revision, TxnOutcome};
use trivet_core::{ImageId, PoolId, keys};
use trivet_namespace::{Caller, Context, NsError, Numbers, Operation, Outcome, SetTime};

use crate::gateway::{Effect, Gateway, Origin};
use crate::session::Finished;

/// Image numbers that a gateway takes at a time.
const NUMBERS: u64 = 256;

/// A change under way.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub origin: Origin,
    pub operation: Operation,
    pub caller: Caller,
    /// Where a new file is to go; none: to the default pool.
    pub pool: Option<PoolId>,
}

/// Growths of one file: one is under way, the others wait and are merged.
#[derive(Debug, Default)]
struct Growth {
    under_way: Vec<Origin>,
    waiting: Vec<Change>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Transactions under way, by ticket.
    txns: BTreeMap<u64, (Change, Outcome)>,
    /// Committed; the mirror does not have the commit yet.
    committed: Vec<(Revision, Change, Outcome)>,
    /// To be planned again when the mirror has this commit.
    refused: Vec<(Revision, Change)>,
    /// Truncations whose data is being removed before they are answered.
    pub trimming: BTreeMap<ImageId, Vec<(Change, Outcome)>>,
    /// To be planned again with the next tick, or when a truncation is over.
    held: Vec<Change>,
    /// To be planned when there are image numbers.
    numberless: Vec<Change>,
    growths: BTreeMap<ImageId, Growth>,
    reserving: bool,
}

impl Gateway {
    /// Starts a change; its answer goes to the origin.
    pub(crate) fn start_change(&mut self, origin: Origin, operation: Operation, caller: Caller, out: &mut Vec<Effect>) {
        let change = Change {
            origin,
            operation,
            caller,
            pool: None,
        };
        self.start(change, out);
    }

    /// The same, as it is given.
    pub(crate) fn start(&mut self, change: Change, out: &mut Vec<Effect>) {
        if let Operation::SetAttr { id, changes, .. } = &change.operation
            && changes.mtime != SetTime::Keep
        {
            // What was written before counts no more.
            self.background.touched.remove(id);
        }
        if let Operation::Grow { id, .. } = change.operation {
            let growth = self.changes.growths.entry(id).or_default();
            if !growth.under_way.is_empty() {
                growth.waiting.push(change);
                return;
            }
            growth.under_way.push(change.origin);
        }
        self.plan_change(change, out);
    }

    fn plan_change(&mut self, change: Change, out: &mut Vec<Effect>) {
        // What would be decided on are names of an earlier time.
        if self.client.map().halted.is_some() {
            return self.changes.held.push(change);
        }
        let wanted = change.pool.or_else(|| self.default_pool());
        let pool = wanted.filter(|&pool| self.takes_images(pool));
        let context = Context {
            caller: change.caller.clone(),
            now: self.clock.wall,
            pool,
            gateway: self.id,
        };
        match self.namespace.plan(&change.operation, &context, &mut self.numbers) {
            Ok(plan) if plan.is_nothing() => self.finish_change(&change, Ok(plan.outcome), out),
            Ok(mut plan) => {
                if let (Some(pool), Outcome::Node(id)) = (pool, &plan.outcome)
                    && id.pool() == pool
                    && self.namespace.inode(*id).is_none()
                {
                    plan.txn.compare.extend(Gateway::new_file_guard(pool));
                }
                if matches!(change.operation, Operation::Reserve { .. }) {
                    plan.txn.compare.push(Compare::Absent(keys::HALTED.to_owned()));
                }
                let ticket = self.number();
                self.changes.txns.insert(ticket, (change, plan.outcome));
                out.push(Effect::Txn(ticket, plan.txn));
            }
            Err(NsError::NeedNumbers) => {
                self.changes.numberless.push(change);
                self.reserve_numbers(out);
            }
            Err(NsError::Trimming(_)) => self.changes.held.push(change),
            Err(error) => self.finish_change(&change, Err(error), out),
        }
    }

    fn reserve_numbers(&mut self, out: &mut Vec<Effect>) {
        if !self.changes.reserving {
            self.changes.reserving = true;
            let operation = Operation::Reserve { count: NUMBERS };
            self.start_change(Origin::Numbers, operation, Caller::root(), out);
        }
    }

    /// A transaction of a change has ended.
    pub(crate) fn change_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        let Some((change, result)) = self.changes.txns.remove(&ticket) else {
            return;
        };
        match outcome {
            TxnOutcome::Committed(revision) => self.changes.committed.push((revision, change, result)),
            // A time of modification is written with a later tick, if it still counts.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown if is_touch(&change) => {
                self.finish_change(&change, Err(NsError::NotSync), out);
            }
            TxnOutcome::Refused(revision) => self.changes.refused.push((revision, change)),
            TxnOutcome::Unknown => self.changes.held.push(change),
        }
        self.mirror_moved(out);
    }

    /// The metadata store was put back: what was committed may be undone, and its commits mean nothing any more. All of it
    /// is planned again.
    pub(crate) fn changes_replaced(&mut self) {
        // Numbers that were reserved in the store before may be reserved by somebody else in this one.
        self.numbers = Numbers::default();
        let committed = std::mem::take(&mut self.changes.committed).into_iter();
        let refused = std::mem::take(&mut self.changes.refused).into_iter();
        self.changes.held.extend(committed.map(|(_, change, _)| change));
        self.changes.held.extend(refused.map(|(_, change)| change));
    }

    /// Answers what the mirror has by now, and plans again what was refused.
    pub(crate) fn mirror_moved(&mut self, out: &mut Vec<Effect>) {
        let revision = self.namespace.revision();
        let (seen, rest) = std::mem::take(&mut self.changes.committed)
            .into_iter()
            .partition(|(at, ..)| *at <= revision);
        self.changes.committed = rest;
        for (_, change, outcome) in Vec::from_iter::<Vec<_>>(seen) {
            self.applied(change, outcome, out);
        }
        let (again, rest) = std::mem::take(&mut self.changes.refused)
            .into_iter()
            .partition(|(at, _)| *at <= revision);
        self.changes.refused = rest;
        for (_, change) in Vec::from_iter::<Vec<_>>(again) {
            self.plan_change(change, out);
        }
    }

    /// Plans again what waits for a truncation or for the metadata store.
    pub(crate) fn retry_changes(&mut self, out: &mut Vec<Effect>) {
        for change in std::mem::take(&mut self.changes.held) {
            self.plan_change(change, out);
        }
    }

    /// The mirror has the change: a truncation's data goes before it is answered.
    fn applied(&mut self, change: Change, outcome: Outcome, out: &mut Vec<Effect>) {
        let id = match (&change.operation, &outcome) {
            (Operation::SetAttr { id, .. } | Operation::Resize { id, .. }, _) => Some(*id),
            (Operation::CreateFile { .. }, Outcome::Node(id)) => Some(*id),
            _ => None,
        };
        let trimming = id.filter(|id| self.is_trimming(*id));
        match trimming {
            Some(id) => {
                self.changes.trimming.entry(id).or_default().push((change, outcome));
                self.start_trim(id);
            }
            None => self.finish_change(&change, Ok(outcome), out),
        }
    }

    /// Answers a change.
    pub(crate) fn finish_change(&mut self, change: &Change, result: Result<Outcome, NsError>, out: &mut Vec<Effect>) {
        match change.origin {
            Origin::Numbers => self.numbers_reserved(&result, out),
            Origin::Purge(image) => self.purge_done(image),
            Origin::Trim(image) => self.trim_done(image, result.is_ok(), out),
            _ => {}
        }
        if let Operation::Grow { id, .. } = change.operation {
            return self.growth_done(id, &result, out);
        }
        self.answer_origin(change.origin, result);
    }

    fn answer_origin(&mut self, origin: Origin, result: Result<Outcome, NsError>) {
        match origin {
            Origin::Session(conn, ticket) => self.answer(conn, ticket, Finished::Change(result)),
            Origin::Admin(call) => self.admin_change_ended(call, result),
            Origin::Touch(image) => self.touch_done(image, result.is_ok()),
            Origin::Purge(_) | Origin::Trim(_) | Origin::Numbers => {}
        }
    }

    /// Goes on with what waited for numbers; if there are none, that is its answer.
    fn numbers_reserved(&mut self, result: &Result<Outcome, NsError>, out: &mut Vec<Effect>) {
        self.changes.reserving = false;
        if let Ok(Outcome::Numbers(first, end)) = result {
            self.numbers.add(*first, *end);
        }
        for change in std::mem::take(&mut self.changes.numberless) {
            match result {
                Ok(_) => self.plan_change(change, out),
                Err(error) => self.finish_change(&change, Err(error.clone()), out),
            }
        }
    }

    /// Answers everybody who waited for this growth, and starts the next for all who came meanwhile.
    fn growth_done(&mut self, id: ImageId, result: &Result<Outcome, NsError>, out: &mut Vec<Effect>) {
        let Some(growth) = self.changes.growths.remove(&id) else {
            return;
        };
        for origin in growth.under_way {
            self.answer_origin(origin, result.clone());
        }
        // A session's growth lends its origin rather than a touch: it must not be given up when it is refused.
        let Some(model) = growth.waiting.iter().max_by_key(|change| !is_touch(change)).cloned() else {
            return;
        };
        let (mut size, mut mtime) = (0, trivet_namespace::Time::default());
        for change in &growth.waiting {
            if let Operation::Grow { size: s, mtime: m, .. } = change.operation {
                size = size.max(s);
                mtime = mtime.max(m);
            }
        }
        let under_way = growth.waiting.iter().map(|change| change.origin).collect();
        self.changes.growths.insert(
            id,
            Growth {
                under_way,
                waiting: Vec::new(),
            },
        );
        let operation = Operation::Grow { id, size, mtime };
        self.plan_change(Change { operation, ..model }, out);
    }
}

/// Whether nobody but the gateway itself waits for it.
fn is_touch(change: &Change) -> bool {
    matches!(change.origin, Origin::Touch(_))
}
