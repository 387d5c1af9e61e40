//! The OSD: one store, and the part it plays in each PG, as primary or member.
//!
//! A pure machine: messages, disk completions, metadata notices and time come in through [`Osd::step`]; messages,
//! disk operations and metadata transactions go out as [`Effect`]s. `docs/architecture.md` has the invariants.
//!
//! What it promises: an operation is answered `Changed` only when every member of the acting set has it durable; a
//! read is answered only with bytes for which that holds; nobody acts for a PG without having claimed a fresh epoch
//! and fenced the members of every acting set that may have acknowledged writes. Messages may be lost, late or
//! repeated; damaged copies are repaired from good ones.
//! What it does not do: choose who acts (the monitor's plan does), or move bytes (the runner does).

mod callers;
mod change;
mod decide;
mod full;
mod heal;
mod interview;
mod inventory;
mod lane;
mod late;
mod loss;
mod mark;
mod member;
mod options;
mod pg;
mod ping;
mod presence;
mod promise;
mod remember;
mod repeat;
mod scrub;
mod serve;
mod stray;
mod tally;
mod tombstone;
mod usage;
mod witness;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use trivet_core::disk::{DiskDone, DiskOp};
use trivet_core::kv::{LeaseId, Notice, Txn, TxnOutcome};
use trivet_core::map::ClusterMap;
use trivet_core::message::{Message, OpDone, OpError, OpValue, Peer, PeerBody, WriteError};
use trivet_core::pace::Pace;
use trivet_core::{ClientId, Epoch, Epochs, NodeId, Now, ObjectId, OpId, OsdId, PgId, Tick, Version};
use trivet_store::api::{ObjectInfo, Output, Reply, Request, StoreError, StoreStats, Ticket};
use trivet_store::{State, Store};

use callers::Callers;
use full::Full;
use inventory::Inventory;
use late::Recent;
use mark::Recognition;
#[cfg(feature = "mutants")]
pub use options::Mutant;
pub use options::Options;
use options::mutant;
use pg::Pg;
pub use pg::PgStatus;
use ping::Reach;
use presence::{DiskWatch, Presence};
use promise::Promises;
use stray::Strays;
use usage::Usage;
use witness::Testimony;

/// Who this OSD is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number.
    pub id: OsdId,
    /// Drawn at random at every start.
    pub boot: u64,
    /// Bytes of its disk.
    pub size: u64,
    /// Where it listens for other nodes; none within one process.
    pub address: Option<String>,
}

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
    /// The runner has a (new) lease for this OSD, or has none any more.
    Lease(Option<LeaseId>),
    /// The connection to another OSD broke, or could not be made.
    Lost {
        /// Which OSD.
        osd: OsdId,
        /// It was refused: nobody listens at its address.
        gone: bool,
    },
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

/// An object in an epoch of its PG: what answers must still be about when they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    pg: PgId,
    epoch: Epoch,
    object: ObjectId,
}

/// Who waits for an answer of the store.
#[derive(Debug)]
enum Wait {
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
enum TxnWait {
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

/// The OSD machine.
pub struct Osd {
    identity: Identity,
    options: Options,
    /// What this OSD's keys hang on.
    lease: Option<LeaseId>,
    presence: Presence,
    recognition: Recognition,
    testimony: Testimony,
    store: Store,
    output: Output,
    disk: DiskWatch,
    map: ClusterMap,
    /// The highest epoch accepted per PG, durable or on its way.
    accepted: Epochs,
    promises: Promises,
    reach: Reach,
    /// Members that had no room for what they lacked.
    full: BTreeMap<OsdId, Full>,
    callers: Callers,
    recent: Recent,
    pace: Pace,
    /// The PGs that this OSD acts for, or tries to.
    pgs: BTreeMap<PgId, Pg>,
    /// PGs whose objects are being dropped, in the epoch that said so.
    dropping: BTreeMap<PgId, Epoch>,
    /// How many listings were sent.
    listings: u32,
    strays: Strays,
    inventory: Inventory,
    usage: Usage,
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
    /// An OSD on an opening store. It takes part when it has a lease.
    #[must_use]
    pub fn new(identity: Identity, options: Options, store: Store, output: Output) -> Osd {
        Osd {
            identity,
            options,
            lease: None,
            presence: Presence::default(),
            recognition: Recognition::default(),
            testimony: Testimony::default(),
            store,
            output,
            disk: DiskWatch::default(),
            map: ClusterMap::default(),
            accepted: Epochs::default(),
            promises: Promises::default(),
            reach: Reach::default(),
            full: BTreeMap::new(),
            callers: Callers::default(),
            recent: Recent::default(),
            pace: Pace::new(heal::PACE),
            pgs: BTreeMap::new(),
            dropping: BTreeMap::new(),
            listings: 0,
            strays: Strays::default(),
            inventory: Inventory::default(),
            usage: Usage::default(),
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
        self.identity.id
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

    /// Its store, for checks from outside.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who acts for a PG with this OSD as primary, itself first; none unless it serves clients.
    #[must_use]
    pub fn acting(&self, pg: PgId) -> Option<&[OsdId]> {
        let pg = self.pgs.get(&pg).filter(|pg| pg.phase == pg::Phase::Active)?;
        Some(&pg.setting.acting)
    }

    /// For the administrator.
    #[must_use]
    pub fn status(&self) -> OsdStatus {
        let pgs = self.pgs.iter().map(|(&id, pg)| pg.status(id)).collect();
        OsdStatus {
            id: self.id(),
            store: self.store.stats(),
            pgs,
        }
    }

    /// Takes one event. Messages that arrive before the store is open are dropped: their senders repeat them.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.now = now;
        let first = out.len();
        match event {
            Event::Disk(done) => {
                self.disk.ended(now);
                self.store.completed(done, &mut self.output);
            }
            Event::Notice(notice) => {
                self.map.apply(&notice);
                self.recognise_notice(&notice, out);
                self.consider_all(out);
            }
            Event::Message(from, message) if self.is_ready() => self.message(from, message, out),
            Event::Message(..) => {}
            Event::Txn(ticket, outcome) => self.txn_ended(ticket, outcome, out),
            Event::Lease(lease) => self.leased(lease, out),
            Event::Lost { osd, gone } if self.is_ready() => self.lost(osd, gone, out),
            Event::Lost { .. } => {}
            Event::Tick => self.tick(out),
        }
        self.settle(out);
        self.date(&mut out[first..]);
    }

    /// Ends a batch of steps: what was gathered goes to the disk.
    pub fn flush(&mut self, out: &mut Vec<Effect>) {
        let first = out.len();
        self.store.pump(&mut self.output);
        self.settle(out);
        self.date(&mut out[first..]);
    }

    /// Every answer to a client says what the clock is.
    fn date(&self, out: &mut [Effect]) {
        let tick = self.tick_now();
        for effect in out {
            if let Effect::Send(_, Message::OpDone(done)) = effect {
                done.tick = tick;
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.loaded
    }

    /// Hands on the store's answers and disk operations until there are no more.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        if !self.loaded && self.map.revision > 0 && self.store.state() == State::Ready {
            self.load(out);
        }
        self.count_changes();
        while !self.output.done.is_empty() {
            for (ticket, result) in std::mem::take(&mut self.output.done) {
                self.answered(ticket, result, out);
            }
        }
        self.disk.began(self.output.disk.len(), self.now);
        out.extend(self.output.disk.drain(..).map(Effect::Disk));
    }

    /// Takes over what the store remembers from before the restart.
    fn load(&mut self, out: &mut Vec<Effect>) {
        self.loaded = true;
        self.accepted = self.store.accepted_epochs().collect();
        if !mutant!(self.options, ForgetAtRestart) {
            self.promises
                .restarted(self.accepted.iter().map(|(pg, _)| pg), self.now);
        }
        self.count_copies();
        self.begin_recognition(out);
        self.register(out);
        self.consider_all(out);
    }

    fn tick(&mut self, out: &mut Vec<Effect>) {
        if !self.is_ready() {
            return;
        }
        self.register(out);
        if self.is_halted() {
            self.recognise(out);
        }
        self.testify(out);
        self.callers.forget_silent(self.now);
        self.ping_all(out);
        self.report_silent(out);
        self.take_back();
        self.consider_all(out);
        self.repeat_fences(out);
        self.report_all(out);
        self.report_usage(out);
        self.drop_strays(out);
        let ids: Vec<PgId> = self.pgs.keys().copied().collect();
        for id in ids {
            self.repeat(id, out);
            self.ask_others(id, out);
            self.forget_due(id, out);
            self.scrub_more(id, out);
        }
        let healing = self.pgs.values().any(|pg| !pg.healing.is_empty());
        self.pace.tick(self.now, healing);
        self.heal_in_background(out);
    }

    fn message(&mut self, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        match (from, message) {
            (NodeId::Client(client), Message::Op(op)) => self.client_op(client, op, out),
            (NodeId::Client(_), Message::TickRequest { sent }) => {
                let (tick, mark) = (self.tick_now(), self.store.mark());
                out.push(Effect::Send(from, Message::Tick { sent, tick, mark }));
            }
            (NodeId::Osd(osd), Message::Peer(peer)) => self.peer(osd, peer, out),
            (NodeId::Osd(osd), Message::Ping { sent, pgs }) => self.pinged(osd, sent, &pgs, out),
            (NodeId::Osd(osd), Message::Pong { sent, free, refused }) => self.ponged(osd, sent, free, &refused, out),
            (
                _,
                Message::Op(_)
                | Message::OpDone(_)
                | Message::Peer(_)
                | Message::TickRequest { .. }
                | Message::Tick { .. },
            )
            | (NodeId::Client(_), Message::Ping { .. } | Message::Pong { .. }) => {}
        }
    }

    fn peer(&mut self, from: OsdId, peer: Peer, out: &mut Vec<Effect>) {
        let Peer { pg, epoch, body } = peer;
        let target = |object| Target { pg, epoch, object };
        match body {
            PeerBody::Fence => self.fence(from, pg, epoch, out),
            PeerBody::Write {
                object,
                after,
                mutation,
            } => self.member_write(from, target(object), after, mutation, out),
            PeerBody::Push { object, mutation } => self.member_push(from, target(object), mutation, out),
            PeerBody::Fetch { object } => self.member_fetch(from, target(object), out),
            PeerBody::Scrub { object } => self.member_scrub(from, target(object), out),
            PeerBody::Forget { object, version } => self.member_forget(from, target(object), version, out),
            PeerBody::Forgotten { object, version } => self.forgotten(from, target(object), version),
            PeerBody::Drop => self.member_drop(from, pg, epoch, out),
            PeerBody::Stray => self.stray(from, pg, epoch, out),
            PeerBody::Listing {
                part,
                parts,
                promise,
                objects,
            } => self.listing(from, pg, epoch, (part, parts), promise, objects, out),
            PeerBody::Refused { accepted } => self.refused(pg, epoch, accepted, out),
            PeerBody::Written {
                object,
                version,
                result,
            } => self.written(from, target(object), version, result, out),
            PeerBody::Fetched { object, whole, damaged } => self.fetched(from, target(object), whole, damaged, out),
            PeerBody::Scrubbed {
                object,
                version,
                digest,
                damaged,
            } => self.scrubbed(from, target(object), (version, digest, damaged), out),
        }
    }

    /// An answer of the store.
    fn answered(&mut self, ticket: Ticket, result: Result<Reply, StoreError>, out: &mut Vec<Effect>) {
        let Some(wait) = self.waits.remove(&ticket) else { return };
        match wait {
            Wait::Read(target, op) => self.read_done(target, op, result, out),
            Wait::Merge(target, op, attempt, unit) => self.merge_read(target, op, (attempt, unit), result, out),
            Wait::OwnWrite(target, version) => {
                self.written(self.id(), target, version, write_result(&result), out);
            }
            Wait::MemberWrite(from, target, version) => {
                self.say_written(from, target, version, write_result(&result), out);
            }
            Wait::Fence(from, pg, epoch) => self.fence_durable(from, pg, epoch, &result, out),
            Wait::Fetch(from, target) => self.salvaged(from, target, result, out),
            Wait::Scrub(from, target) => self.verified(from, target, &result, out),
            Wait::Forget(from, target, version) => self.say_forgotten(from, target, version, &result, out),
            Wait::Drop(pg, epoch) => self.may_drop(pg, epoch, &result),
            Wait::Dropped => self.strays.dropped(),
            Wait::Nobody => {}
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
            Some(TxnWait::Scrub(pg)) => self.scrub_reported(pg, ticket, outcome),
            Some(TxnWait::Presence) => self.presence.ended(ticket, outcome),
            Some(TxnWait::Testimony) => self.testified(ticket, outcome, out),
            Some(TxnWait::Halt) => self.recognition.ended(ticket),
            Some(TxnWait::Loss(osd)) => self.loss_told(osd, outcome),
            Some(TxnWait::Usage) => self.usage.ended(ticket, outcome, self.now),
            None => {}
        }
    }

    /// To another OSD, or to this one: its own answers come in by the same door.
    #[expect(clippy::unused_self, reason = "reads as the other senders do")]
    fn to_peer(&self, to: OsdId, pg: PgId, epoch: Epoch, body: PeerBody, out: &mut Vec<Effect>) {
        out.push(Effect::Send(NodeId::Osd(to), Message::Peer(Peer { pg, epoch, body })));
    }

    fn tell(&self, to: OsdId, target: Target, body: PeerBody, out: &mut Vec<Effect>) {
        self.to_peer(to, target.pg, target.epoch, body, out);
    }
}

/// Answers a client; [`Osd::date`] says when.
fn reply(client: ClientId, id: OpId, result: Result<OpValue, OpError>, out: &mut Vec<Effect>) {
    let tick = Tick::default();
    let done = Message::OpDone(OpDone { id, result, tick });
    out.push(Effect::Send(NodeId::Client(client), done));
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
        Err(StoreError::Damaged { .. } | StoreError::Failed(_)) => Err(WriteError::Failed),
    }
}
