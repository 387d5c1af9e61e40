//! Refusals that hold. What a call over NFS is refused for is read from the mirror, which may be behind; or it was refused
//! here long ago. Another gateway may have executed the same call since, for a client that has heard of neither. So the
//! metadata store is asked, before a refusal is given, whether there is a trace of the call. A transaction asks that changes
//! nothing.

use std::collections::BTreeMap;

use trivet_core::kv::TxnOutcome;
use trivet_namespace::{CallId, NsError, Outcome};

use crate::gateway::{Effect, Gateway, Origin};
use crate::session::Finished;

/// The refusals that wait for the metadata store to say that their call was executed nowhere.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    /// Transactions under way, by ticket.
    asked: BTreeMap<u64, (Origin, CallId)>,
    /// To be asked again with the next tick, since the store did not answer.
    again: Vec<(Origin, CallId)>,
}

impl Gateway {
    /// A client's call is refused if no gateway has executed it.
    pub(crate) fn confirm(&mut self, origin: Origin, call: CallId, out: &mut Vec<Effect>) {
        let ticket = self.number();
        out.push(Effect::Txn(ticket, call.ask_undone()));
        self.confirmations.asked.insert(ticket, (origin, call));
    }

    /// A transaction has ended; false if it did not ask that.
    pub(crate) fn confirm_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome) -> bool {
        let Some((origin, call)) = self.confirmations.asked.remove(&ticket) else {
            return false;
        };
        let Origin::Session(conn, request) = origin else {
            unreachable!("sessions ask for confirmations")
        };
        match outcome {
            TxnOutcome::Committed(_) => self.answer(conn, request, Finished::Change(Ok(Outcome::Done))),
            TxnOutcome::Refused(_) => self.answer(conn, request, Finished::Change(Err(NsError::Exists))),
            TxnOutcome::Unknown => self.confirmations.again.push((origin, call)),
        }
        true
    }

    /// Asks again what has no answer.
    pub(crate) fn confirm_again(&mut self, out: &mut Vec<Effect>) {
        for (origin, call) in std::mem::take(&mut self.confirmations.again) {
            self.confirm(origin, call, out);
        }
    }
}
