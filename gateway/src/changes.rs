//! Changes of the tree of names: plan on the mirror, run the transaction, wait until the mirror has it, answer.
//!
//! A transaction that was refused met a mirror that was behind: something that it compares was written by a commit which the
//! mirror did not have when it was planned. So it is planned again once the mirror has moved, be it by one commit: which
//! one it was the store does not say, and the last commit of the whole store, which may be shared, need not be one of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::kv::{Compare, Revision, TxnOutcome};
use trivet_core::{ImageId, Now, PoolId, keys};
use trivet_namespace::{CallId, Caller, Context, NsError, Numbers, Operation, Outcome, Plan, SetTime, Time};

use crate::callers::Wish;
use crate::gateway::{Effect, Gateway, Origin};
use crate::options::mutant;
use crate::outcomes::Attempt;
use crate::session::Finished;

/// Image numbers that a gateway takes at a time.
const NUMBERS: u64 = 256;

/// A change waits so long for an OSD's word that this gateway did not stand still.
const VOUCH: Duration = Duration::from_millis(500);

/// A change under way.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub origin: Origin,
    pub operation: Operation,
    pub caller: Caller,
    /// Where a new file is to go; none: to the default pool.
    pub pool: Option<PoolId>,
    /// The client's call that it is, if that may come again at another gateway.
    pub call: Option<CallId>,
    /// It sets a file's time of modification: when that was written last before, which counts again if this is not executed.
    pub written: Option<Time>,
}

/// Growths of one file: one is under way, the others wait and are merged.
#[derive(Debug, Default)]
struct Growth {
    /// The last truncation when what is under way was written.
    cut: Option<Time>,
    under_way: Vec<Origin>,
    waiting: Vec<Change>,
}

/// The changes of the tree of names that this gateway is about to make, or waits for.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Transactions under way, by ticket.
    txns: BTreeMap<u64, Attempt>,
    /// Committed; the mirror does not have the commit yet.
    committed: Vec<(Revision, Change, Outcome)>,
    /// To be planned again when the mirror has more than this commit, on which they were planned.
    refused: Vec<(Revision, Change)>,
    /// To be planned when the gateway is registered.
    unregistered: Vec<Change>,
    /// Truncations whose data is being removed before they are answered.
    pub trimming: BTreeMap<ImageId, Vec<(Change, Outcome)>>,
    /// To be planned again with the next tick: when a truncation is over, or something is heard of a client.
    held: Vec<Change>,
    /// To be planned when there are image numbers.
    numberless: Vec<Change>,
    /// Clients' changes to be planned when an OSD has told that this gateway's clock went on until they were due.
    unvouched: Vec<(Now, Change)>,
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
            call: None,
            written: None,
        };
        self.start(change, out);
    }

    /// The same, as it is given.
    pub(crate) fn start(&mut self, mut change: Change, out: &mut Vec<Effect>) {
        if let Operation::SetAttr { id, changes, .. } = &change.operation
            && changes.mtime != SetTime::Keep
        {
            change.written = self.background.touched.remove(id);
        }
        if let Operation::Grow { id, cut, .. } = change.operation {
            let growth = self.changes.growths.entry(id).or_default();
            if !growth.under_way.is_empty() {
                growth.waiting.push(change);
                return;
            }
            growth.cut = cut;
            growth.under_way.push(change.origin);
        }
        self.plan_change(change, out);
    }

    /// Plans a change, a client's as soon as it is known that this gateway did not stand still.
    fn plan_change(&mut self, change: Change, out: &mut Vec<Effect>) {
        let of_client = matches!(change.origin, Origin::Session(..) | Origin::Admin(_));
        if of_client && !matches!(change.operation, Operation::Grow { .. }) && self.awaits_vouching() {
            let now = self.clock.now;
            return self.changes.unvouched.push((now, change));
        }
        self.plan_now(change, out);
    }

    /// Plans what waited until an OSD had told that this gateway did not stand still. After [`VOUCH`] the OSDs are away. What
    /// the client has to say of that is taken in before.
    pub(crate) fn plan_vouched(&mut self, out: &mut Vec<Effect>) {
        if self.changes.unvouched.is_empty() {
            return;
        }
        let (now, went_on) = (self.clock.now, self.client.went_on());
        let are_away = |due: Now| now.since(due) >= VOUCH && !self.client.has_doubts();
        let is_known = |due: Now| went_on.is_none_or(|until| due <= until) || are_away(due);
        let waiting = std::mem::take(&mut self.changes.unvouched).into_iter();
        let (vouched, rest) = waiting.partition(|(due, _)| is_known(*due));
        self.changes.unvouched = rest;
        for (_, change) in Vec::from_iter::<Vec<_>>(vouched) {
            self.plan_now(change, out);
        }
        if !self.changes.unvouched.is_empty() {
            self.awaits_vouching();
        }
        self.work(out);
    }

    fn plan_now(&mut self, mut change: Change, out: &mut Vec<Effect>) {
        // What would be decided on are names of an earlier time.
        if self.client.map().halted.is_some() {
            return self.changes.held.push(change);
        }
        if self.author().is_none() {
            self.changes.unregistered.push(change);
            return;
        }
        // A backup that was put back has given numbers already that it does not know of.
        if matches!(change.operation, Operation::Reserve { .. }) && !self.client.knows_store() {
            return self.changes.held.push(change);
        }
        let known = change.call.as_ref().and_then(|call| self.namespace.reply(call));
        if let Some(outcome) = known.filter(|_| !mutant!(self.options, ForgetReplies)) {
            // It was executed before.
            self.write_counts_again(&change);
            change.written = None;
            return match self.is_trimmed_by_another(&change, &outcome) {
                true => self.changes.held.push(change),
                false => self.applied(change, outcome, out),
            };
        }
        // The size of a file that is written has a guard of its own: its last truncation.
        if !matches!(change.operation, Operation::Grow { .. }) {
            match self.wish(change.origin) {
                Wish::Stands => {}
                Wish::Unsure => return self.changes.held.push(change),
                Wish::Over => return self.finish_change(&change, Err(NsError::Forsaken), out),
            }
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
                if let Some(call) = change.call.as_ref().filter(|_| !mutant!(self.options, ForgetReplies)) {
                    self.namespace
                        .sign_call(&mut plan.txn, call, &plan.outcome, context.now);
                }
                self.send_change(change, plan, out);
            }
            Err(NsError::NeedNumbers) => {
                self.changes.numberless.push(change);
                self.reserve_numbers(out);
            }
            Err(NsError::Trimming(_)) => self.changes.held.push(change),
            Err(error) => self.finish_change(&change, Err(error), out),
        }
    }

    fn send_change(&mut self, change: Change, plan: Plan, out: &mut Vec<Effect>) {
        let author = self.author().expect("what is planned has an author");
        let (ticket, attempt) = self.attempt(change, plan, author, out);
        self.changes.txns.insert(ticket, attempt);
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
        let Some(mut attempt) = self.changes.txns.remove(&ticket) else {
            return;
        };
        match outcome {
            TxnOutcome::Committed(revision) => {
                self.attempt_executed(&attempt);
                self.changes.committed.push((revision, attempt.change, attempt.outcome));
            }
            TxnOutcome::Refused(_) => {
                self.attempt_failed(&mut attempt);
                self.change_refused(attempt, out);
            }
            TxnOutcome::Unknown if mutant!(self.options, PlanAgain) => {
                // The reply that it left would tell, too.
                attempt.change.call = None;
                self.change_not_executed(attempt, out);
            }
            TxnOutcome::Unknown => self.attempt_unknown(attempt),
        }
        self.mirror_moved(out);
    }

    fn change_refused(&mut self, attempt: Attempt, out: &mut Vec<Effect>) {
        let Attempt { change, planned, .. } = attempt;
        // A time of modification is written with a later tick, if it still counts.
        if is_touch(&change) {
            self.finish_change(&change, Err(NsError::NotSync), out);
        } else {
            self.changes.refused.push((planned, change));
        }
    }

    /// It is known that a change was not executed and never will be.
    pub(crate) fn change_not_executed(&mut self, mut attempt: Attempt, out: &mut Vec<Effect>) {
        self.attempt_failed(&mut attempt);
        if is_touch(&attempt.change) {
            self.finish_change(&attempt.change, Err(NsError::NotSync), out);
        } else {
            self.plan_change(attempt.change, out);
        }
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
        self.look_for_traces(out);
        let (again, rest) = std::mem::take(&mut self.changes.refused)
            .into_iter()
            .partition(|(planned, _)| *planned < revision);
        self.changes.refused = rest;
        for (_, change) in Vec::from_iter::<Vec<_>>(again) {
            self.plan_change(change, out);
        }
        if self.author().is_some() {
            for change in std::mem::take(&mut self.changes.unregistered) {
                self.plan_change(change, out);
            }
        }
    }

    /// Plans again what is held.
    pub(crate) fn retry_changes(&mut self, out: &mut Vec<Effect>) {
        for change in std::mem::take(&mut self.changes.held) {
            self.plan_change(change, out);
        }
    }

    /// Whether a change that is done has cut off data, or another one has since, which is still to be removed by another gateway.
    fn is_trimmed_by_another(&self, change: &Change, outcome: &Outcome) -> bool {
        let inode = sized_by(change, outcome).and_then(|id| self.namespace.inode(id));
        let trimming = inode.and_then(|inode| inode.trimming);
        trimming.is_some_and(|trimming| trimming.by != self.id)
    }

    /// The mirror has the change: a truncation's data goes before it is answered.
    pub(crate) fn applied(&mut self, change: Change, outcome: Outcome, out: &mut Vec<Effect>) {
        let id = sized_by(&change, &outcome);
        let trimming = id.filter(|id| self.is_trimming(*id));
        match trimming {
            Some(id) => {
                self.changes.trimming.entry(id).or_default().push((change, outcome));
                self.start_trim(id);
            }
            None => self.finish_change(&change, Ok(outcome), out),
        }
    }

    /// A change that was to set the time of modification does not.
    fn write_counts_again(&mut self, change: &Change) {
        if let (Operation::SetAttr { id, .. }, Some(written)) = (&change.operation, change.written) {
            self.background.touched.entry(*id).or_insert(written);
        }
    }

    /// Answers a change.
    pub(crate) fn finish_change(&mut self, change: &Change, result: Result<Outcome, NsError>, out: &mut Vec<Effect>) {
        if result.is_err() {
            self.write_counts_again(change);
        }
        match change.origin {
            Origin::Numbers => self.numbers_reserved(&result, out),
            Origin::Purge(image) => self.purge_done(image),
            Origin::Trim(image) => self.trim_done(image, result.is_ok(), out),
            _ => {}
        }
        if let Operation::Grow { id, .. } = change.operation {
            return self.growth_done(id, &change.operation, &result, out);
        }
        self.answer_origin(change.origin, result);
    }

    fn answer_origin(&mut self, origin: Origin, result: Result<Outcome, NsError>) {
        match origin {
            Origin::Session(conn, ticket) => self.answer(conn, ticket, Finished::Change(result)),
            Origin::Admin(call) => self.admin_change_ended(call, result),
            Origin::Touch => self.touches_done(result.is_ok()),
            Origin::EndUse(image, client) => self.use_ended(image, client),
            Origin::Purge(_) | Origin::Trim(_) | Origin::Numbers | Origin::Fence(_) => {}
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

    /// Whether a file is being made larger.
    pub(crate) fn is_growing(&self, id: ImageId) -> bool {
        self.changes.growths.contains_key(&id)
    }

    /// Whether a file is being made larger for what was written before its last truncation, which is `cut`.
    pub(crate) fn is_growing_from(&self, id: ImageId, cut: Option<Time>) -> bool {
        let waits_since = |change: &Change| !matches!(change.operation, Operation::Grow { cut: c, .. } if c == cut);
        let growth = self.changes.growths.get(&id);
        growth.is_some_and(|growth| growth.cut != cut || growth.waiting.iter().any(waits_since))
    }

    /// Answers everybody who waited for this growth, and starts the next for all who came meanwhile.
    fn growth_done(
        &mut self,
        id: ImageId,
        operation: &Operation,
        result: &Result<Outcome, NsError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(growth) = self.changes.growths.remove(&id) else {
            return;
        };
        self.stir_use(id);
        if let (Err(NsError::Cut), Operation::Grow { size, .. }) = (result, operation) {
            self.written_before_cut(id, *size);
        }
        for origin in growth.under_way {
            self.answer_origin(origin, result.clone());
        }
        let cut = self.namespace.inode(id).and_then(|inode| inode.cut);
        let (mut next, mut size, mut mtime) = (Vec::new(), 0, Time::default());
        for change in growth.waiting {
            match change.operation {
                Operation::Grow {
                    size: s,
                    mtime: m,
                    cut: c,
                    ..
                } if c == cut => {
                    (size, mtime) = (size.max(s), mtime.max(m));
                    next.push(change);
                }
                // What was written before a truncation is not what makes the file grow after it.
                Operation::Grow { size, .. } => {
                    self.written_before_cut(id, size);
                    self.answer_origin(change.origin, Err(NsError::Cut));
                }
                _ => unreachable!("only growths wait for a growth"),
            }
        }
        let Some(model) = next.first().cloned() else { return };
        let growth = Growth {
            cut,
            under_way: next.iter().map(|change| change.origin).collect(),
            waiting: Vec::new(),
        };
        self.changes.growths.insert(id, growth);
        let operation = Operation::Grow { id, size, mtime, cut };
        self.plan_change(Change { operation, ..model }, out);
    }
}

/// The file whose size a change has set, with this outcome.
fn sized_by(change: &Change, outcome: &Outcome) -> Option<ImageId> {
    match (&change.operation, outcome) {
        (Operation::SetAttr { id, .. } | Operation::Resize { id, .. }, _) => Some(*id),
        (Operation::CreateFile { .. }, Outcome::Node(id)) => Some(*id),
        _ => None,
    }
}

/// Whether nobody but the gateway itself waits for it.
fn is_touch(change: &Change) -> bool {
    change.origin == Origin::Touch
}
