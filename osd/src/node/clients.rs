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

/// What is known of each client that was heard of lately.
#[derive(Debug, Default)]
pub(crate) struct ClientTable(BTreeMap<ClientId, Client>);

#[derive(Debug, Default)]
struct Client {
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

impl ClientTable {
    /// An operation arrived, with what its client says is settled.
    pub(crate) fn heard(&mut self, op: OpId, settled: u64, now: Now) -> Known {
        let client = self.0.entry(op.client).or_default();
        client.heard = now;
        if settled > client.settled {
            client.settled = settled;
            client.ended = client.ended.split_off(&settled);
        }
        if op.sequence < client.settled {
            return Known::Settled;
        }
        match client.ended.get(&op.sequence) {
            Some(result) => Known::Ended(result.map(|()| OpValue::Changed)),
            None => Known::No,
        }
    }

    /// An operation ends without a trace. False if that cannot be remembered: it must not end, then.
    pub(crate) fn ends(&mut self, op: OpId, result: Result<(), OpError>) -> bool {
        let client = self.0.entry(op.client).or_default();
        if client.ended.len() >= LIMIT {
            return false;
        }
        client.ended.insert(op.sequence, result);
        true
    }

    /// Below this, a client has all answers; 0 if nothing is known of it.
    pub(crate) fn settled(&self, client: ClientId) -> u64 {
        self.0.get(&client).map_or(0, |client| client.settled)
    }

    /// Forgets clients that are gone.
    pub(crate) fn forget_silent(&mut self, now: Now) {
        self.0.retain(|_, client| now.since(client.heard) < FORGOTTEN_AFTER);
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
        let mut clients = ClientTable::default();
        assert_eq!(clients.heard(op(5), 5, Now(0)), Known::No);
        assert!(clients.ends(op(5), Ok(())) && clients.ends(op(6), Err(OpError::NoSpace)));
        // The answer may have been lost.
        assert_eq!(clients.heard(op(5), 5, Now(0)), Known::Ended(Ok(OpValue::Changed)));
        assert_eq!(clients.heard(op(6), 5, Now(0)), Known::Ended(Err(OpError::NoSpace)));
        // The client says that it was not.
        assert_eq!(clients.heard(op(8), 7, Now(0)), Known::No);
        assert_eq!(clients.heard(op(5), 5, Now(0)), Known::Settled);
        assert_eq!(clients.0[&ClientId(1)].ended.len(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut clients = ClientTable::default();
        (0..LIMIT as u64).for_each(|sequence| assert!(clients.ends(op(sequence), Ok(()))));
        assert!(!clients.ends(op(LIMIT as u64), Ok(())));
        clients.forget_silent(Now(0) + FORGOTTEN_AFTER);
        assert!(clients.0.is_empty());
    }
}
