//! Asking for scrubs.

use std::collections::BTreeMap;

use trivet_api::{AdminAnswer, AdminError, AdminResult, CallId, ErrorKind, ScrubAsked};
use trivet_core::keys::{self, ScrubRequest};
use trivet_core::kv::{Change, Compare, News, Notice, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;

use crate::gateway::{Effect, Gateway};

/// Requests on their way to the metadata store.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    /// The commit that wrote the last request.
    written: Option<Revision>,
    /// By ticket: the number asked for, and who asked.
    asking: BTreeMap<u64, (u64, CallId)>,
}

impl Scrubs {
    /// Takes in what the metadata store says, of which everything up to `known` is known.
    pub(crate) fn apply(&mut self, notice: &Notice, known: Revision) {
        for news in notice.news(known) {
            match news {
                News::All(keys) => {
                    let last = keys.iter().find(|kv| kv.key == keys::SCRUB);
                    self.written = last.map(|kv| kv.mod_revision);
                }
                News::Put(kv) if kv.key == keys::SCRUB => self.written = Some(kv.mod_revision),
                News::Delete(keys::SCRUB) => self.written = None,
                News::Put(_) | News::Delete(_) => {}
            }
        }
    }

    /// A transaction of the gateway has ended; none if it was not about a scrub, else what is answered to whom.
    pub(crate) fn txn_ended(&mut self, ticket: u64, outcome: TxnOutcome) -> Option<(CallId, AdminResult)> {
        let (number, call) = self.asking.remove(&ticket)?;
        Some((call, answer(number, outcome)))
    }

    fn compare(&self) -> Compare {
        let key = keys::SCRUB.to_owned();
        match self.written {
            Some(revision) => Compare::ModRevision(key, revision),
            None => Compare::Absent(key),
        }
    }
}

fn answer(number: u64, outcome: TxnOutcome) -> AdminResult {
    match outcome {
        TxnOutcome::Committed(_) => Ok(AdminAnswer::Scrub(ScrubAsked { number })),
        TxnOutcome::Refused(_) => Err(AdminError::new(
            ErrorKind::Conflict,
            "somebody else has just asked for a scrub; 'trivet status' shows how far it is",
        )),
        TxnOutcome::Unknown => Err(AdminError::new(
            ErrorKind::Unavailable,
            "the metadata store did not answer; 'trivet status' shows whether the scrub was asked for",
        )),
    }
}

impl Gateway {
    /// Asks all PGs to scrub.
    pub(crate) fn ask_scrub(&mut self, call: CallId, out: &mut Vec<Effect>) {
        let map = self.client.map();
        // A request that was lost must not lower the number: PGs would not answer.
        let done = map.scrubs.values().map(|report| report.value.number);
        let asked = map.scrub.iter().map(|request| request.number);
        let number = done.chain(asked).max().unwrap_or(0).saturating_add(1);
        let at = u64::try_from(self.clock.wall.sec).unwrap_or(0);
        let txn = Txn {
            compare: vec![self.scrubs.compare()],
            changes: vec![Change::put(keys::SCRUB, encode(&ScrubRequest { number, at }))],
        };
        let ticket = self.number();
        self.scrubs.asking.insert(ticket, (number, call));
        out.push(Effect::Txn(ticket, txn));
    }
}
