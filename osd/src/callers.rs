//! What this OSD knows of its clients: what they say is settled, and operations that ended without leaving a trace in
//! an object. A late copy of such an operation must not be executed: its client was answered long ago.
//!
//! What did leave a trace is remembered by the object. Copies that are meant for an earlier epoch are refused anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::message::{OpError, OpValue};
use trivet_core::{ClientId, Now, OpId};

/// Operations of one client that are remembered at most; beyond that, it is asked to try again.
const LIMIT: usize = 65_536;

/// A client that was not heard of for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Callers(BTreeMap<ClientId, Caller>);

#[derive(Debug, Default)]
struct Caller {
    /// Everything below was answered.
    settled: u64,
    /// What ended without a trace, and how.
    ended: BTreeMap<u64, Result<(), OpError>>,
    heard: Now,
}

/// What is to become of a copy of an operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing is known of it.
    No,
    /// Its client has the answer.
    Settled,
    /// It ended like this, but the client may not have heard of it.
    Ended(Result<OpValue, OpError>),
}

impl Callers {
    /// An operation arrived, with what its client says is settled.
    pub(crate) fn heard(&mut self, op: OpId, settled: u64, now: Now) -> Known {
        let caller = self.0.entry(op.client).or_default();
        caller.heard = now;
        if settled > caller.settled {
            caller.settled = settled;
            caller.ended = caller.ended.split_off(&settled);
        }
        if op.sequence < caller.settled {
            return Known::Settled;
        }
        match caller.ended.get(&op.sequence) {
            Some(result) => Known::Ended(result.map(|()| OpValue::Changed)),
            None => Known::No,
        }
    }

    /// An operation ends without a trace. False if that cannot be remembered: it must not end, then.
    pub(crate) fn ends(&mut self, op: OpId, result: Result<(), OpError>) -> bool {
        let caller = self.0.entry(op.client).or_default();
        if caller.ended.len() >= LIMIT {
            return false;
        }
        caller.ended.insert(op.sequence, result);
        true
    }

    /// Below this, a client has all answers; 0 if nothing is known of it.
    pub(crate) fn settled(&self, client: ClientId) -> u64 {
        self.0.get(&client).map_or(0, |caller| caller.settled)
    }

    /// Forgets clients that are gone.
    pub(crate) fn forget_silent(&mut self, now: Now) {
        self.0.retain(|_, caller| now.since(caller.heard) < FORGOTTEN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(sequence: u64) -> OpId {
        OpId {
            client: ClientId(1),
            sequence,
        }
    }

    #[test]
    fn late_copies_are_recognised() {
        let mut callers = Callers::default();
        assert_eq!(callers.heard(op(5), 5, Now(0)), Known::No);
        assert!(callers.ends(op(5), Ok(())) && callers.ends(op(6), Err(OpError::NoSpace)));
        // The answer may have been lost.
        assert_eq!(callers.heard(op(5), 5, Now(0)), Known::Ended(Ok(OpValue::Changed)));
        assert_eq!(callers.heard(op(6), 5, Now(0)), Known::Ended(Err(OpError::NoSpace)));
        // The client says that it was not.
        assert_eq!(callers.heard(op(8), 7, Now(0)), Known::No);
        assert_eq!(callers.heard(op(5), 5, Now(0)), Known::Settled);
        assert_eq!(callers.0[&ClientId(1)].ended.len(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut callers = Callers::default();
        (0..LIMIT as u64).for_each(|sequence| assert!(callers.ends(op(sequence), Ok(()))));
        assert!(!callers.ends(op(LIMIT as u64), Ok(())));
        callers.forget_silent(Now(0) + FORGOTTEN_AFTER);
        assert!(callers.0.is_empty());
    }
}
