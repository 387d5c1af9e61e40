//! Who may have operations executed: this gateway registers itself, and fences gateways that are dead.
//!
//! OSDs execute changes of clients that have a key `client/<id>` only. That a gateway's lease is gone does not prove that
//! it does nothing any more: it may be stopped, or cut off from the metadata store alone. So before its work is taken over
//! the key is deleted, and every PG asked whether it knows: then nothing of it will be executed, whenever it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_client::IoError;
use trivet_core::keys::{self, ClientState};
use trivet_core::kv::{Change, Compare, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{ClientId, Now};

use crate::gateway::{Effect, Gateway, Origin};
use crate::options::mutant;

/// The key of a gateway that has been dead for this long is deleted, though nobody has to know.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How far a fence is.
#[derive(Debug)]
enum Progress {
    /// The transaction that deletes the key.
    Deleting(u64),
    /// The barriers of pools that have not ended.
    Asking(BTreeSet<u64>),
}

/// A fence that is not complete.
#[derive(Debug)]
struct Fence {
    /// When it was begun.
    since: Now,
    progress: Progress,
}

/// This gateway's registration, and its fencing of gateways that are dead.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// The transaction that registers this gateway.
    registering: Option<u64>,
    registered: bool,
    /// It was registered and is not any more: others count on it that nothing of this id is executed, for ever.
    is_fenced: bool,
    under_way: BTreeMap<ClientId, Fence>,
    complete: BTreeSet<ClientId>,
    /// Since when clients that are registered are seen to be dead.
    dead: BTreeMap<ClientId, Now>,
}

impl Gateway {
    /// Has OSDs execute operations of this gateway, and says so if it is fenced: never again, then, under this id.
    pub(crate) fn enlist(&mut self, out: &mut Vec<Effect>) {
        let map = self.client.map();
        if map.revision == 0 || self.fences.is_fenced {
            return;
        }
        if map.clients.contains_key(&self.id) {
            self.fences.registered = true;
        } else if self.fences.registered {
            self.fences.is_fenced = true;
            out.push(Effect::Fenced);
        } else if self.fences.registering.is_none() {
            let key = keys::client(self.id);
            let txn = Txn {
                compare: vec![Compare::Absent(key.clone())],
                changes: vec![Change::put(key, encode(&ClientState {}))],
            };
            let ticket = self.number();
            self.fences.registering = Some(ticket);
            out.push(Effect::Txn(ticket, txn));
        }
    }

    /// Whether this gateway itself is fenced: its process ends, and another one begins under another id.
    pub(crate) fn is_over(&self) -> bool {
        self.fences.is_fenced
    }

    /// Whether nothing of a gateway is executed any more, for certain.
    pub(crate) fn is_fenced(&self, client: ClientId) -> bool {
        if mutant!(self.options, TrustLeases) {
            return !self.client.map().gateways.contains_key(&client);
        }
        self.fences.complete.contains(&client)
    }

    /// Fences a gateway, if it is dead as far as is known.
    pub(crate) fn fence(&mut self, client: ClientId, out: &mut Vec<Effect>) {
        let map = self.client.map();
        let is_known = self.is_fenced(client) || self.fences.under_way.contains_key(&client);
        if is_known || client == self.id || map.gateways.contains_key(&client) {
            return;
        }
        let Some(registered) = map.clients.get(&client) else {
            let revision = map.revision;
            return self.ask_everywhere(client, revision, out);
        };
        let key = keys::client(client);
        let txn = Txn {
            compare: vec![
                Compare::Absent(keys::gateway_state(client)),
                Compare::ModRevision(key.clone(), registered.revision),
            ],
            changes: vec![Change::Delete(key)],
        };
        let ticket = self.number();
        self.fence_goes_on(client, Progress::Deleting(ticket));
        out.push(Effect::Txn(ticket, txn));
    }

    /// The metadata store was put back: who was fenced may be registered again, and commits that PGs shall know of may not
    /// be there any more. What still counts is fenced again.
    pub(crate) fn fences_replaced(&mut self) {
        self.fences.under_way.clear();
        self.fences.complete.clear();
    }

    /// For how long a client that is registered has been seen to be dead.
    pub(crate) fn dead_for(&self, client: ClientId) -> Duration {
        let since = self.fences.dead.get(&client);
        since.map_or(Duration::ZERO, |&since| self.clock.now.since(since))
    }

    /// When the fences were begun that are not complete.
    pub(crate) fn fence_starts(&self) -> impl Iterator<Item = Now> {
        self.fences.under_way.values().map(|fence| fence.since)
    }

    /// Fences those that have been dead for long.
    pub(crate) fn fence_forgotten(&mut self, out: &mut Vec<Effect>) {
        let (now, map) = (self.clock.now, self.client.map());
        let registered = map.clients.keys().filter(|id| !map.gateways.contains_key(*id));
        let dead: Vec<ClientId> = registered.copied().collect();
        self.fences.dead.retain(|id, _| dead.contains(id));
        for id in dead {
            let since = *self.fences.dead.entry(id).or_insert(now);
            if now.since(since) >= FORGOTTEN_AFTER {
                self.fence(id, out);
            }
        }
    }

    /// A transaction ended; false if it is none of the fences'.
    pub(crate) fn fence_txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) -> bool {
        if self.fences.registering == Some(ticket) {
            // Whatever became of it, the mirror will tell.
            self.fences.registering = None;
            return true;
        }
        let mut fences = self.fences.under_way.iter();
        let found = fences.find(|(_, fence)| matches!(fence.progress, Progress::Deleting(t) if t == ticket));
        let Some(client) = found.map(|(&client, _)| client) else {
            return false;
        };
        match outcome {
            TxnOutcome::Committed(revision) => self.ask_everywhere(client, revision, out),
            // It is there again, or somebody else fences it; or it is begun again, if somebody still waits for it.
            TxnOutcome::Refused(_) | TxnOutcome::Unknown => {
                self.fences.under_way.remove(&client);
            }
        }
        true
    }

    /// A fence is begun, or comes so far.
    fn fence_goes_on(&mut self, client: ClientId, progress: Progress) {
        let since = self.fences.under_way.get(&client).map(|fence| fence.since);
        let since = since.unwrap_or(self.clock.now);
        self.fences.under_way.insert(client, Fence { since, progress });
    }

    /// Asks every PG to know what was committed.
    fn ask_everywhere(&mut self, client: ClientId, revision: Revision, out: &mut Vec<Effect>) {
        let pools: Vec<_> = self.client.map().pools.keys().copied().collect();
        let pools = if mutant!(self.options, FenceWithoutBarrier) {
            Vec::new()
        } else {
            pools
        };
        let asked = pools.iter().map(|_| self.number()).collect::<Vec<u64>>();
        let progress = Progress::Asking(asked.iter().copied().collect());
        self.fence_goes_on(client, progress);
        let now = self.clock.now;
        for (pool, ticket) in pools.into_iter().zip(asked) {
            self.expect_io(ticket, Origin::Fence(client));
            self.client.barrier(now, ticket, pool, revision, &mut self.from_client);
        }
        self.fence_moved(client, out);
    }

    /// All PGs of a pool have passed a barrier, or the pool is gone.
    pub(crate) fn barrier_ended(
        &mut self,
        client: ClientId,
        ticket: u64,
        result: Result<(), IoError>,
        out: &mut Vec<Effect>,
    ) {
        assert!(
            matches!(result, Ok(()) | Err(IoError::NoPool)),
            "a barrier reads and writes nothing: {result:?}"
        );
        let fence = self.fences.under_way.get_mut(&client);
        if let Some(Progress::Asking(asked)) = fence.map(|fence| &mut fence.progress) {
            asked.remove(&ticket);
        }
        self.fence_moved(client, out);
    }

    fn fence_moved(&mut self, client: ClientId, out: &mut Vec<Effect>) {
        let progress = self.fences.under_way.get(&client).map(|fence| &fence.progress);
        if matches!(progress, Some(Progress::Asking(asked)) if asked.is_empty()) {
            self.fences.under_way.remove(&client);
            self.fences.complete.insert(client);
            self.run_background(out);
        }
    }
}
