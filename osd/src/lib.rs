//! The OSD: one store, and the part it plays in each PG, as primary or member.
//!
//! A pure machine: messages, disk completions, metadata notices and time come in through [`Osd::step`]; messages,
//! disk operations and metadata transactions go out as [`Effect`]s. `docs/architecture.md` has the invariants.
//!
//! What it promises: an operation is answered `Changed` only when every member of the acting set has it durable; a
//! read is answered only with bytes for which that holds; nobody acts for a PG without having claimed a fresh epoch
//! and fenced the members of every acting set that may have acknowledged writes.
//! What it does not do: choose who acts (the monitor's plan does), or move bytes (the runner does).

mod decide;
mod heal;
mod interview;
mod lane;
mod member;
mod pg;
mod recent;
mod serve;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use trivet_core::disk::{DiskDone, DiskOp};
use trivet_core::kv::{LeaseId, Notice, Txn, TxnOutcome};
use trivet_core::map::ClusterMap;
use trivet_core::message::{Message, OpDone, OpError, OpValue, Peer, PeerBody, WriteError};
use trivet_core::{ClientId, Epoch, NodeId, Now, ObjectId, OpId, OsdId, PgId, Version};
use trivet_store::api::{ObjectInfo, Output, Reply, Request, StoreError, StoreStats, Ticket};
use trivet_store::{State, Store};

use pg::Pg;
pub use pg::PgStatus;
use recent::Recent;

/// What the OSD hears.
#[derive(Debug)]
pub enum Event {
    /// A message from another node, or from itself.
    Message(NodeId, Message),
    /// A disk operation ended.
    Disk(DiskDone),
    /// The metadata store changed.
    Notice(Notice),
    /// A metadata transaction of this OSD ended.
    Txn(u64, TxnOutcome),
    /// Time passed; several times a second.
    Tick,
}

/// What the OSD wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a message; it may be addressed to this OSD itself.
    Send(NodeId, Message),
    /// Submit to the disk.
    Disk(DiskOp),
    /// Run a metadata transaction and report with [`Event::Txn`].
    Txn(u64, Txn),
}

/// Who waits for an answer of the store.
#[derive(Debug)]
enum Wait {
    Read {
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        op: OpId,
    },
    Merge {
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        op: OpId,
        first: usize,
    },
    OwnWrite {
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
        version: Version,
    },
    MemberWrite {
        pg: PgId,
        epoch: Epoch,
        from: OsdId,
        object: ObjectId,
        version: Version,
        op: OpId,
    },
    Fence {
        pg: PgId,
        epoch: Epoch,
        from: OsdId,
    },
    Fetch {
        pg: PgId,
        epoch: Epoch,
        from: OsdId,
        object: ObjectId,
    },
    HealRead {
        pg: PgId,
        epoch: Epoch,
        object: ObjectId,
    },
    Forget,
}

/// What a metadata transaction was for.
#[derive(Clone, Copy, Debug)]
enum TxnWait {
    Claim(PgId),
    Activate(PgId),
    Report(PgId),
}

/// The OSD machine.
pub struct Osd {
    id: OsdId,
    boot: u64,
    lease: LeaseId,
    store: Store,
    output: Output,
    map: ClusterMap,
    /// The highest epoch accepted per PG, durable or on its way.
    accepted: BTreeMap<PgId, Epoch>,
    /// The PGs that this OSD acts for, or tries to.
    pgs: BTreeMap<PgId, Pg>,
    recent: BTreeMap<PgId, Recent>,
    waits: HashMap<Ticket, Wait>,
    txns: BTreeMap<u64, TxnWait>,
    next: u64,
    loaded: bool,
    now: Now,
}

/// What one OSD has to tell about itself.
#[derive(Clone, Debug)]
pub struct OsdStatus {
    /// Which OSD.
    pub id: OsdId,
    /// Its store's space and activity.
    pub store: StoreStats,
    /// The PGs that it acts for.
    pub pgs: Vec<PgStatus>,
}

impl Osd {
    /// An OSD on an opening store. `boot` is drawn at random at every start; the claims hang on `lease`.
    #[must_use]
    pub fn new(id: OsdId, boot: u64, lease: LeaseId, store: Store, output: Output) -> Osd {
        Osd {
            id,
            boot,
            lease,
            store,
            output,
            map: ClusterMap::default(),
            accepted: BTreeMap::new(),
            pgs: BTreeMap::new(),
            recent: BTreeMap::new(),
            waits: HashMap::new(),
            txns: BTreeMap::new(),
            next: 1,
            loaded: false,
            now: Now(0),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> OsdId {
        self.id
    }

    /// The state of its store.
    #[must_use]
    pub fn state(&self) -> State {
        self.store.state()
    }

    /// What its store holds, for checks from outside.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, ObjectInfo)> {
        self.store.objects()
    }

    /// For the administrator.
    #[must_use]
    pub fn status(&self) -> OsdStatus {
        let pgs = self.pgs.iter().map(|(&id, pg)| pg.status(id)).collect();
        OsdStatus {
            id: self.id,
            store: self.store.stats(),
            pgs,
        }
    }

    /// Takes one event. Messages that arrive before the store is open are dropped: their senders repeat them.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::Disk(done) => self.store.completed(done, &mut self.output),
            Event::Notice(notice) => {
                self.map.apply(&notice);
                self.consider_all(out);
            }
            Event::Message(from, message) if self.is_ready() => self.message(from, message, out),
            Event::Message(..) => {}
            Event::Txn(ticket, outcome) => self.txn_ended(ticket, outcome, out),
            Event::Tick => self.tick(out),
        }
        self.settle(out);
    }

    /// Ends a batch of steps: what was gathered goes to the disk.
    pub fn flush(&mut self, out: &mut Vec<Effect>) {
        self.store.pump(&mut self.output);
        self.settle(out);
    }

    fn is_ready(&self) -> bool {
        self.loaded
    }

    /// Hands on the store's answers and disk operations until there are no more.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        if !self.loaded && self.map.revision > 0 && self.store.state() == State::Ready {
            self.load();
            self.consider_all(out);
        }
        while !self.output.done.is_empty() {
            for (ticket, result) in std::mem::take(&mut self.output.done) {
                self.answered(ticket, result, out);
            }
        }
        out.extend(self.output.disk.drain(..).map(Effect::Disk));
    }

    /// Takes over what the store remembers from before the restart.
    fn load(&mut self) {
        self.loaded = true;
        self.accepted = self.store.accepted_epochs().collect();
        let remembered: Vec<_> = self.store.recent_ops().collect();
        for (object, op, version) in remembered {
            if let Some(pg) = self.pg_of(object) {
                self.recent.entry(pg).or_default().insert(op, version);
            }
        }
    }

    fn pg_of(&self, object: ObjectId) -> Option<PgId> {
        let pool = self.map.pools.get(&object.image.pool())?;
        Some(object.pg(pool.value.pg_count))
    }

    fn tick(&mut self, out: &mut Vec<Effect>) {
        if self.is_ready() {
            self.consider_all(out);
            self.repeat_fences(out);
            self.report_all(out);
            let ids: Vec<PgId> = self.pgs.keys().copied().collect();
            for id in ids {
                self.heal_more(id, out);
            }
        }
    }

    fn message(&mut self, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        match (from, message) {
            (NodeId::Client(client), Message::Op(op)) => self.client_op(client, op, out),
            (NodeId::Osd(osd), Message::Peer(peer)) => self.peer(osd, peer, out),
            (_, Message::Op(_) | Message::OpDone(_) | Message::Peer(_)) => {}
        }
    }

    fn peer(&mut self, from: OsdId, peer: Peer, out: &mut Vec<Effect>) {
        let Peer { pg, epoch, body } = peer;
        match body {
            PeerBody::Fence => self.fence(from, pg, epoch, out),
            PeerBody::Write { object, mutation } => self.member_write(from, pg, epoch, object, mutation, out),
            PeerBody::Fetch { object } => self.member_fetch(from, pg, epoch, object, out),
            PeerBody::Forget { object, version } => self.member_forget(from, pg, epoch, object, version, out),
            PeerBody::Listing { objects, recent, last } => {
                self.listing(from, pg, epoch, objects, &recent, last, out);
            }
            PeerBody::Refused { accepted } => self.refused(pg, epoch, accepted, out),
            PeerBody::Written {
                object,
                version,
                result,
            } => {
                self.written(from, pg, epoch, object, version, result, out);
            }
            PeerBody::Fetched { object, whole } => self.fetched(pg, epoch, object, whole, out),
        }
    }

    /// An answer of the store.
    fn answered(&mut self, ticket: Ticket, result: Result<Reply, StoreError>, out: &mut Vec<Effect>) {
        let Some(wait) = self.waits.remove(&ticket) else { return };
        match wait {
            Wait::Read { pg, epoch, object, op } => self.read_done(pg, epoch, object, op, result, out),
            Wait::Merge {
                pg,
                epoch,
                object,
                op,
                first,
            } => {
                self.merge_read(pg, epoch, object, op, first, result, out);
            }
            Wait::OwnWrite {
                pg,
                epoch,
                object,
                version,
            } => {
                self.written(self.id, pg, epoch, object, version, write_result(&result), out);
            }
            Wait::MemberWrite {
                pg,
                epoch,
                from,
                object,
                version,
                op,
            } => {
                let result = write_result(&result);
                if result.is_ok() {
                    self.recent.entry(pg).or_default().insert(op, version);
                }
                self.to_peer(
                    from,
                    pg,
                    epoch,
                    PeerBody::Written {
                        object,
                        version,
                        result,
                    },
                    out,
                );
            }
            Wait::Fence { pg, epoch, from } => self.fence_durable(from, pg, epoch, &result, out),
            Wait::Fetch {
                pg,
                epoch,
                from,
                object,
            } => {
                let whole = self.whole_object(object, result);
                self.to_peer(from, pg, epoch, PeerBody::Fetched { object, whole }, out);
            }
            Wait::HealRead { pg, epoch, object } => {
                let whole = self.whole_object(object, result);
                self.fetched(pg, epoch, object, whole, out);
            }
            Wait::Forget => {}
        }
    }

    /// Asks the store; the answer comes back to `wait`.
    fn ask(&mut self, request: Request, wait: Wait) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waits.insert(ticket, wait);
        self.store.submit(ticket, request, &mut self.output);
    }

    fn run_txn(&mut self, txn: Txn, wait: TxnWait, out: &mut Vec<Effect>) {
        let ticket = self.next;
        self.next += 1;
        self.txns.insert(ticket, wait);
        out.push(Effect::Txn(ticket, txn));
    }

    fn txn_ended(&mut self, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        match self.txns.remove(&ticket) {
            Some(TxnWait::Claim(pg)) => self.claim_ended(pg, ticket, outcome, out),
            Some(TxnWait::Activate(pg)) => self.activate_ended(pg, ticket, outcome, out),
            Some(TxnWait::Report(pg)) => self.report_ended(pg, ticket, outcome),
            None => {}
        }
    }

    #[expect(clippy::unused_self, reason = "reads as the other senders do")]
    fn to_peer(&self, to: OsdId, pg: PgId, epoch: Epoch, body: PeerBody, out: &mut Vec<Effect>) {
        out.push(Effect::Send(NodeId::Osd(to), Message::Peer(Peer { pg, epoch, body })));
    }
}

/// Answers a client.
fn reply(client: ClientId, id: OpId, result: Result<OpValue, OpError>, out: &mut Vec<Effect>) {
    out.push(Effect::Send(
        NodeId::Client(client),
        Message::OpDone(OpDone { id, result }),
    ));
}

/// Sends a client on: it looks at its map and asks again.
fn send_on(client: ClientId, op: OpId, out: &mut Vec<Effect>) {
    reply(client, op, Err(OpError::NotPrimary), out);
}

fn write_result(result: &Result<Reply, StoreError>) -> Result<(), WriteError> {
    match result {
        Ok(_) => Ok(()),
        Err(StoreError::NoSpace) => Err(WriteError::NoSpace),
        Err(StoreError::StaleVersion { .. }) => Err(WriteError::Stale),
        Err(StoreError::Damaged { .. } | StoreError::Failed(_) | StoreError::ReadFailed(_)) => Err(WriteError::Failed),
    }
}
