//! What became of the transactions of changes. A change whose outcome is not known is never planned again before it is:
//! planned on what it has brought about itself, it would remove the next image of that name, or find its own work and call
//! it somebody else's. See [`trivet_namespace::Author`] for the traces that tell.

use std::collections::BTreeMap;

use trivet_core::kv::{Revision, TxnOutcome};
use trivet_namespace::{Author, NsError, Outcome, Plan, Trace};

use crate::changes::Change;
use crate::gateway::{Effect, Gateway};

/// A transaction of a change, as it was sent.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub change: Change,
    /// What to answer if it is executed.
    pub outcome: Outcome,
    /// The commit on which it was planned.
    pub planned: Revision,
    author: Author,
    number: u64,
    /// Traces that it takes along.
    settled: Vec<u64>,
}

/// The numbers of this gateway's changes, and those whose outcome is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Of this gateway's changes.
    last_number: u64,
    /// Numbers of changes whose outcomes are known and whose traces are still there.
    settled: Vec<u64>,
    /// To be asked for with the next tick.
    unknown: Vec<Attempt>,
    /// Being asked for, by ticket.
    asking: BTreeMap<u64, Attempt>,
    /// The store has an answer; the mirror will show which.
    traced: Vec<Attempt>,
    /// The ticket of the transaction that sweeps.
    sweeping: Option<u64>,
}

impl Gateway {
    /// This gateway as a transaction may rest on it; none until it is shown and registered.
    pub(crate) fn author(&self) -> Option<Author> {
        let map = self.client.map();
        Some(Author {
            client: self.id,
            shown: map.gateways.get(&self.id)?.revision,
            registered: self.registered()?,
        })
    }

    /// The commit that registered this gateway.
    fn registered(&self) -> Option<Revision> {
        self.client.map().clients.get(&self.id).map(|state| state.revision)
    }

    /// Signs a plan and sends it; `planned` is the commit that it rests on.
    pub(crate) fn attempt(
        &mut self,
        change: Change,
        plan: Plan,
        author: Author,
        out: &mut Vec<Effect>,
    ) -> (u64, Attempt) {
        let mut txn = plan.txn;
        self.outcomes.last_number += 1;
        let number = self.outcomes.last_number;
        let taken = author.sign(&mut txn, number, &self.outcomes.settled);
        let attempt = Attempt {
            change,
            outcome: plan.outcome,
            planned: self.namespace.revision(),
            author,
            number,
            settled: self.outcomes.settled.drain(..taken).collect(),
        };
        let ticket = self.number();
        out.push(Effect::Txn(ticket, txn));
        (ticket, attempt)
    }

    /// An attempt was executed: its trace has served.
    pub(crate) fn attempt_executed(&mut self, attempt: &Attempt) {
        self.outcomes.settled.push(attempt.number);
    }

    /// An attempt was not executed, and never will be: what it should have taken along is still there.
    pub(crate) fn attempt_failed(&mut self, attempt: &mut Attempt) {
        self.outcomes.settled.append(&mut attempt.settled);
    }

    /// Nobody has said what became of an attempt: that is found out, with a pause.
    pub(crate) fn attempt_unknown(&mut self, attempt: Attempt) {
        self.outcomes.unknown.push(attempt);
    }

    /// Asks for the outcomes that are not known.
    pub(crate) fn ask_outcomes(&mut self, out: &mut Vec<Effect>) {
        for attempt in std::mem::take(&mut self.outcomes.unknown) {
            let ticket = self.number();
            out.push(Effect::Txn(ticket, attempt.author.void(attempt.number)));
            self.outcomes.asking.insert(ticket, attempt);
        }
    }

    /// Another metadata store took the place of the one that had answers.
    pub(crate) fn outcomes_replaced(&mut self) {
        let traced = std::mem::take(&mut self.outcomes.traced);
        self.outcomes.unknown.extend(traced);
    }

    /// A transaction has ended; false if it was none of these.
    pub(crate) fn outcome_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) -> bool {
        if self.outcomes.sweeping == Some(ticket) {
            self.outcomes.sweeping = None;
            return true;
        }
        let Some(attempt) = self.outcomes.asking.remove(&ticket) else {
            return false;
        };
        match outcome {
            TxnOutcome::Committed(_) => self.change_not_executed(attempt, out),
            TxnOutcome::Refused(_) => {
                self.outcomes.traced.push(attempt);
                self.look_for_traces(out);
            }
            TxnOutcome::Unknown => self.outcomes.unknown.push(attempt),
        }
        true
    }

    /// Ends what the mirror shows the outcome of.
    pub(crate) fn look_for_traces(&mut self, out: &mut Vec<Effect>) {
        for attempt in std::mem::take(&mut self.outcomes.traced) {
            match self.namespace.trace(self.id, attempt.number) {
                Some(Trace::Executed) => {
                    self.attempt_executed(&attempt);
                    self.applied(attempt.change, attempt.outcome, out);
                }
                // An earlier question was answered where nobody heard it.
                Some(Trace::Void) => self.change_not_executed(attempt, out),
                // Its trace may have gone with the fence.
                None if self.registered() != Some(attempt.author.registered) => {
                    self.finish_change(&attempt.change, Err(NsError::Unknown), out);
                }
                None => self.outcomes.traced.push(attempt),
            }
        }
    }

    /// Sweeps up what gateways have left that are fenced.
    pub(crate) fn sweep_authors(&mut self, out: &mut Vec<Effect>) {
        if self.outcomes.sweeping.is_some() {
            return;
        }
        let registered = &self.client.map().clients;
        let gone = self.namespace.authors().find(|id| !registered.contains_key(id));
        if let Some(txn) = gone.and_then(|id| self.namespace.sweep(id)) {
            let ticket = self.number();
            self.outcomes.sweeping = Some(ticket);
            out.push(Effect::Txn(ticket, txn));
        }
    }
}
