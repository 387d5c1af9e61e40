//! What all parts of the OSD share: its identity, its store, its look at the cluster, the clock, and the ways out.
//!
//! A part that wants something done asks the store, runs a transaction of the metadata store or sends a message, all of it
//! here, and never waits: answers come back to [`crate::Osd::step`], which knows from [`Wait`] and [`TxnWait`] for whom
//! they are. Nothing is decided here.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use trivet_core::kv::{Compare, LeaseId, Revision, Txn};
use trivet_core::map::ClusterMap;
use trivet_core::message::{Message, OpDone, OpError, OpValue, Peer, PeerBody};
use trivet_core::pace::Pace;
use trivet_core::{ClientId, Epoch, NodeId, Now, ObjectId, OpId, OsdId, PgId, Tick, UnitMask, Version, keys};
use trivet_store::Store;
use trivet_store::api::{ObjectInfo, Output, Request, Ticket};

use crate::node::clients::ClientTable;
use crate::node::full::FullMembers;
use crate::node::inventory::Inventory;
use crate::node::reach::Reach;
use crate::node::recognition::Doubt;
use crate::node::usage::Usage;
use crate::options::Options;
use crate::primary::heal;
use crate::primary::late::Recent;
use crate::{Effect, Identity};

/// An object in an epoch of its PG: what answers must still be about when they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub pg: PgId,
    pub epoch: Epoch,
    pub object: ObjectId,
}

/// Who waits for an answer of the store.
#[derive(Debug)]
pub(crate) enum Wait {
    /// A client reads.
    Read(Target, OpId),
    /// A unit that an operation changes in part, and for which attempt.
    Merge(Target, OpId, u64, usize),
    /// This OSD, as primary, writes.
    OwnWrite(Target, Version),
    /// A primary has this OSD write.
    MemberWrite(OsdId, Target, Version),
    /// A primary's epoch.
    Fence(OsdId, PgId, Epoch),
    /// A primary wants the whole object.
    Fetch(OsdId, Target),
    /// A primary wants it verified.
    Scrub(OsdId, Target),
    /// A primary has this OSD forget a tombstone.
    Forget(OsdId, Target, Version),
    /// This OSD must not have the PG any more.
    Drop(PgId, Epoch),
    /// A part of it goes.
    Dropped,
    Nobody,
}

/// What a metadata transaction was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TxnWait {
    Claim(PgId),
    Activate(PgId),
    Report(PgId),
    Scrub(PgId),
    Presence,
    Halt,
    Testimony,
    Loss(OsdId),
    Usage,
}

/// What a PG found out that concerns the others, too: looked at when it has ended its step.
#[derive(Debug, Default)]
pub(crate) struct Concerns {
    /// Healing in the background may go on.
    pub healing: bool,
    /// Members that had no room, and do not owe a deletion to the PG that says so.
    pub no_room: Vec<OsdId>,
}

/// The shared part of the OSD.
pub(crate) struct Ctx {
    pub identity: Identity,
    pub options: Options,
    /// What this OSD's keys hang on.
    pub lease: Option<LeaseId>,
    pub store: Store,
    pub output: Output,
    pub map: ClusterMap,
    /// Why the metadata store cannot be the one that the data belongs to.
    pub doubt: Option<Doubt>,
    pub reach: Reach,
    pub full: FullMembers,
    pub clients: ClientTable,
    pub recent: Recent,
    pub pace: Pace,
    pub inventory: Inventory,
    pub usage: Usage,
    pub concerns: Concerns,
    /// With this tick some PG began a scrub.
    pub scrub_began: bool,
    pub now: Now,
    /// What goes out with this step.
    pub effects: Vec<Effect>,
    waits: HashMap<Ticket, Wait>,
    txns: BTreeMap<u64, TxnWait>,
    next: u64,
}

impl Ctx {
    pub(crate) fn new(identity: Identity, options: Options, store: Store, output: Output) -> Ctx {
        Ctx {
            identity,
            options,
            lease: None,
            store,
            output,
            map: ClusterMap::default(),
            doubt: None,
            reach: Reach::default(),
            full: FullMembers::default(),
            clients: ClientTable::default(),
            recent: Recent::default(),
            pace: Pace::new(heal::PACE),
            inventory: Inventory::default(),
            usage: Usage::default(),
            concerns: Concerns::default(),
            scrub_began: false,
            now: Now(0),
            effects: Vec::new(),
            waits: HashMap::new(),
            txns: BTreeMap::new(),
            next: 1,
        }
    }

    /// This OSD.
    pub(crate) fn id(&self) -> OsdId {
        self.identity.id
    }

    /// This OSD's clock, as clients hear of it.
    pub(crate) fn tick_now(&self) -> Tick {
        Tick::of(self.identity.boot, self.now)
    }

    /// The number that the next request to the store, or transaction, will have: a number that nothing else has.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Asks the store; the answer comes back to `wait`.
    pub(crate) fn ask(&mut self, request: Request, wait: Wait) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waits.insert(ticket, wait);
        self.store.submit(ticket, request, &mut self.output);
    }

    /// Who waits for this answer of the store.
    pub(crate) fn take_wait(&mut self, ticket: Ticket) -> Wait {
        self.waits
            .remove(&ticket)
            .expect("the store answers each request once, and nothing else")
    }

    /// Runs a transaction; its outcome comes back to `wait`, with the number that is returned.
    pub(crate) fn run_txn(&mut self, txn: Txn, wait: TxnWait) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.txns.insert(ticket, wait);
        self.effects.push(Effect::Txn(ticket, txn));
        ticket
    }

    /// What a transaction was for that ended.
    pub(crate) fn take_txn(&mut self, ticket: u64) -> TxnWait {
        self.txns
            .remove(&ticket)
            .expect("the runner reports each transaction once, and no other")
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send(to, message));
    }

    /// To another OSD, or to this one: its own answers come in by the same door.
    pub(crate) fn tell_peer(&mut self, to: OsdId, pg: PgId, epoch: Epoch, body: PeerBody) {
        self.send(NodeId::Osd(to), Message::Peer(Peer { pg, epoch, body }));
    }

    pub(crate) fn tell(&mut self, to: OsdId, target: Target, body: PeerBody) {
        self.tell_peer(to, target.pg, target.epoch, body);
    }

    /// Answers a client, and says what this OSD's clock is.
    pub(crate) fn reply(&mut self, client: ClientId, id: OpId, result: Result<OpValue, OpError>) {
        let tick = self.tick_now();
        let done = OpDone { id, result, tick };
        self.send(NodeId::Client(client), Message::OpDone(done));
    }

    /// Sends a client on: it looks at its map and asks again.
    pub(crate) fn send_on(&mut self, client: ClientId, op: OpId) {
        self.reply(client, op, Err(OpError::NotPrimary));
    }

    /// An operation ends with an error; a late copy of it must not be executed when it could be.
    pub(crate) fn fail(&mut self, client: ClientId, op: OpId, error: OpError) {
        if error != OpError::NotPrimary && self.clients.ends(op, Err(error)) {
            self.reply(client, op, Err(error));
        } else {
            self.send_on(client, op);
        }
    }

    /// Whether nothing of a client is executed any more. Who is not registered was: what an object remembers was executed
    /// while its client was, and this OSD serves only when it knows of all that was committed before its claim.
    pub(crate) fn is_fenced(&self, client: ClientId) -> bool {
        !self.map.clients.contains_key(&client)
    }

    /// Whether the metadata store is, or may be, another one than this OSD's data belongs to.
    pub(crate) fn is_halted(&self) -> bool {
        self.map.halted.is_some() || self.doubt.is_some()
    }

    /// The pool is as this OSD knows it: its PGs are still of the same generation. Every transaction that writes a
    /// history compares this, so that histories of an earlier generation do not change any more.
    pub(crate) fn same_generation(&self, id: PgId) -> Compare {
        match self.map.pools.get(&id.pool).filter(|_| self.map.is_current(id)) {
            Some(pool) => Compare::ModRevision(keys::pool(id.pool), pool.revision),
            // Never so: whoever acts for a PG knows its pool, and a pool that was removed refuses everything.
            None => Compare::ModRevision(keys::pool(id.pool), Revision::MAX),
        }
    }

    /// The objects of a PG that the store has, in no particular order; none if the PG is not of its pool's present
    /// generation.
    pub(crate) fn objects_of(&self, pg: PgId) -> impl Iterator<Item = (ObjectId, ObjectInfo)> + '_ {
        self.store.objects_of(pg)
    }

    /// The store learns how the PGs of each pool are numbered.
    pub(crate) fn number_pgs(&mut self) {
        for (&pool, config) in &self.map.pools {
            let numbering = config.value.numbering();
            if self.store.numbering(pool) != Some(numbering) {
                self.store.renumber(pool, numbering);
            }
        }
    }

    /// The units of an object that are written.
    pub(crate) fn present(&self, object: ObjectId) -> UnitMask {
        self.store.info(object).map_or(UnitMask::EMPTY, |info| info.present)
    }

    /// The version of an object that is durable here.
    pub(crate) fn durable(&self, object: ObjectId) -> Version {
        self.store.info(object).map_or(Version::NONE, |info| info.version)
    }
}
