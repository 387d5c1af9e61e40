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

mod ctx;
mod member;
mod node;
mod options;
mod primary;
mod redundancy;

use std::collections::BTreeMap;

use trivet_core::disk::{DiskDone, DiskOp};
use trivet_core::kv::{LeaseId, Notice, Txn, TxnOutcome};
use trivet_core::message::{Message, Peer, PeerBody, WriteError};
use trivet_core::{NodeId, Now, ObjectId, OsdId, PgId, Version};
use trivet_store::api::{ObjectInfo, Output, Reply, StoreError, StoreStats, Ticket};
use trivet_store::{State, Store};

use ctx::{Ctx, Target, TxnWait, Wait};
use member::Member;
use node::presence::Presence;
use node::recognition::Recognition;
use node::testimony::Testimony;
#[cfg(feature = "mutants")]
pub use options::Mutant;
pub use options::Options;
pub use primary::pg::PgStatus;
use primary::pg::{Active, Pg, StartOver};

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

/// The OSD machine.
pub struct Osd {
    ctx: Ctx,
    presence: Presence,
    recognition: Recognition,
    testimony: Testimony,
    /// Its part in PGs of which others are the primaries, too.
    member: Member,
    /// The PGs that this OSD acts for, or tries to.
    pgs: BTreeMap<PgId, Pg>,
    /// The store and the metadata store were read.
    loaded: bool,
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
            ctx: Ctx::new(identity, options, store, output),
            presence: Presence::default(),
            recognition: Recognition::default(),
            testimony: Testimony::default(),
            member: Member::default(),
            pgs: BTreeMap::new(),
            loaded: false,
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> OsdId {
        self.ctx.id()
    }

    /// The state of its store.
    #[must_use]
    pub fn state(&self) -> State {
        self.ctx.store.state()
    }

    /// What its store holds, for checks from outside.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, ObjectInfo)> {
        self.ctx.store.objects()
    }

    /// Its store, for checks from outside.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.ctx.store
    }

    /// Who acts for a PG with this OSD as primary, itself first; none unless it serves clients.
    #[must_use]
    pub fn acting(&self, pg: PgId) -> Option<&[OsdId]> {
        let active = self.pgs.get(&pg)?.active()?;
        Some(&active.acting)
    }

    /// For the administrator.
    #[must_use]
    pub fn status(&self) -> OsdStatus {
        OsdStatus {
            id: self.id(),
            store: self.ctx.store.stats(),
            pgs: self.pgs.values().map(Pg::status).collect(),
        }
    }

    /// Takes one event. Messages that arrive before the store is open are dropped: their senders repeat them.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.ctx.now = now;
        std::mem::swap(&mut self.ctx.effects, out);
        match event {
            Event::Disk(done) => {
                self.presence.disk.ended(now);
                self.ctx.store.completed(done, &mut self.ctx.output);
            }
            Event::Notice(notice) => self.notice(&notice),
            Event::Message(from, message) if self.loaded => self.message(from, message),
            Event::Message(..) => {}
            Event::Txn(ticket, outcome) => self.txn_ended(ticket, outcome),
            Event::Lease(lease) => self.leased(lease),
            Event::Lost { osd, gone } if self.loaded => self.lost(osd, gone),
            Event::Lost { .. } => {}
            Event::Tick => self.tick(),
        }
        self.settle();
        std::mem::swap(&mut self.ctx.effects, out);
    }

    /// Ends a batch of steps: what was gathered goes to the disk.
    pub fn flush(&mut self, out: &mut Vec<Effect>) {
        std::mem::swap(&mut self.ctx.effects, out);
        self.ctx.store.pump(&mut self.ctx.output);
        self.settle();
        std::mem::swap(&mut self.ctx.effects, out);
    }

    /// Hands on the store's answers and disk operations until there are no more.
    fn settle(&mut self) {
        if !self.loaded && self.ctx.map.revision > 0 && self.ctx.store.state() == State::Ready {
            self.load();
        }
        self.ctx.count_changes();
        while !self.ctx.output.done.is_empty() {
            for (ticket, result) in std::mem::take(&mut self.ctx.output.done) {
                self.answered(ticket, result);
            }
        }
        self.presence.disk.began(self.ctx.output.disk.len(), self.ctx.now);
        let disk = self.ctx.output.disk.drain(..);
        self.ctx.effects.extend(disk.map(Effect::Disk));
    }

    /// Takes over what the store remembers from before the restart.
    fn load(&mut self) {
        self.loaded = true;
        self.ctx.number_pgs();
        self.member.load(&self.ctx);
        self.ctx.count_copies();
        self.recognition.begin(&mut self.ctx, &self.member.accepted);
        self.presence.register(&mut self.ctx);
        self.consider_all();
    }

    /// The metadata store changed.
    fn notice(&mut self, notice: &Notice) {
        self.ctx.map.apply(notice);
        if self.loaded {
            self.ctx.number_pgs();
            if matches!(notice, Notice::Replaced { .. }) {
                // Commits of the store before mean nothing in this one.
                self.depose_all();
                self.recognition.replaced(&mut self.ctx, &self.member.accepted);
            }
            self.recognition.recognise(&mut self.ctx);
        }
        self.consider_all();
    }

    /// The runner's lease came, went or was replaced.
    fn leased(&mut self, lease: Option<LeaseId>) {
        self.ctx.lease = lease;
        self.presence.try_at_once();
        if self.loaded {
            self.presence.register(&mut self.ctx);
        }
    }

    /// The connection to an OSD broke. `gone`: nobody listens at its address.
    fn lost(&mut self, osd: OsdId, gone: bool) {
        if gone && self.ctx.is_gone(osd) {
            self.consider_all();
        }
    }

    fn tick(&mut self) {
        if !self.loaded {
            return;
        }
        self.presence.register(&mut self.ctx);
        if self.ctx.is_halted() {
            self.recognition.recognise(&mut self.ctx);
        }
        self.testimony.testify(&mut self.ctx, &self.member.accepted);
        self.ctx.clients.forget_silent(self.ctx.now);
        self.ping_all();
        self.ctx.report_silent();
        self.ctx.take_back_members();
        self.consider_all();
        self.repeat_fences();
        for pg in self.pgs.values_mut() {
            pg.report_if_due(&mut self.ctx);
        }
        self.report_usage();
        self.member.drop_strays(&mut self.ctx);
        self.tick_pgs();
        let healing = self.pgs.values().any(Pg::is_healing);
        self.ctx.pace.tick(self.ctx.now, healing);
        self.heal_in_background();
    }

    fn tick_pgs(&mut self) {
        self.ctx.scrub_began = false;
        let ids: Vec<PgId> = self.pgs.keys().copied().collect();
        for id in ids {
            if let Some(pg) = self.pgs.get_mut(&id) {
                pg.tick(&mut self.ctx);
            }
            self.look_at_concerns();
        }
    }

    fn report_usage(&mut self) {
        let pgs = &self.pgs;
        let serves = |id: &PgId| pgs.get(id).is_some_and(|pg| pg.active().is_some());
        self.ctx.forget_pgs(serves);
        self.ctx.report_usage();
    }

    fn message(&mut self, from: NodeId, message: Message) {
        match (from, message) {
            (NodeId::Client(client), Message::Op(op)) => match self.pgs.get_mut(&op.pg).and_then(Pg::active_mut) {
                Some(active) => {
                    active.client_op(&mut self.ctx, client, op);
                    self.look_at_concerns();
                }
                None => self.ctx.send_on(client, op.id),
            },
            (NodeId::Client(_), Message::TickRequest { sent }) => {
                let (tick, mark) = (self.ctx.tick_now(), self.ctx.store.mark());
                self.ctx.send(from, Message::Tick { sent, tick, mark });
            }
            (NodeId::Osd(osd), Message::Peer(peer)) => self.peer(osd, peer),
            (NodeId::Osd(osd), Message::Ping { sent, pgs }) => self.member.pinged(&mut self.ctx, osd, sent, &pgs),
            (NodeId::Osd(osd), Message::Pong { sent, free, refused }) => self.ponged(osd, sent, free, &refused),
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

    /// A message of another OSD, or of this one: what a primary wants of a member, and what members answer.
    fn peer(&mut self, from: OsdId, peer: Peer) {
        let Peer { pg, epoch, body } = peer;
        let target = |object| Target { pg, epoch, object };
        let (member, ctx) = (&mut self.member, &mut self.ctx);
        match body {
            PeerBody::Fence => self.fence(from, pg, epoch),
            PeerBody::Drop => self.member_drop(from, pg, epoch),
            PeerBody::Write {
                object,
                after,
                mutation,
            } => member.write(ctx, from, target(object), after, mutation),
            PeerBody::Push { object, mutation } => member.push(ctx, from, target(object), mutation),
            PeerBody::Fetch { object } => member.fetch(ctx, from, target(object)),
            PeerBody::Scrub { object } => member.scrub(ctx, from, target(object)),
            PeerBody::Forget { object, version } => member.forget(ctx, from, target(object), version),
            PeerBody::Listing {
                part,
                parts,
                promise,
                objects,
            } => self.listing(from, (pg, epoch), (part, parts), promise, objects),
            PeerBody::Refused { accepted } => self.refused(pg, epoch, accepted),
            PeerBody::Stray => self.stray(from, pg, epoch),
            PeerBody::Written {
                object,
                version,
                result,
            } => self.written(from, target(object), version, result),
            PeerBody::Fetched { object, whole, damaged } => self.active_in(target(object), |active, ctx| {
                active.fetched(ctx, from, object, whole, damaged);
            }),
            PeerBody::Forgotten { object, version } => self.active_in(target(object), |active, ctx| {
                active.forgotten(ctx, from, object, version);
            }),
            PeerBody::Scrubbed {
                object,
                version,
                digest,
                damaged,
            } => self.active_in(target(object), |active, ctx| {
                active.scrubbed(ctx, from, object, (version, digest, damaged));
            }),
        }
    }

    /// An answer of the store.
    fn answered(&mut self, ticket: Ticket, result: Result<Reply, StoreError>) {
        let ctx = &mut self.ctx;
        match ctx.take_wait(ticket) {
            Wait::Read(target, op) => self.active_in(target, |active, ctx| {
                active.read_done(ctx, target.object, op, result);
            }),
            Wait::Merge(target, op, attempt, unit) => self.active_in(target, |active, ctx| {
                active.merge_read(ctx, target.object, op, (attempt, unit), result);
            }),
            Wait::OwnWrite(target, version) => self.written(self.id(), target, version, write_result(&result)),
            Wait::MemberWrite(from, target, version) => {
                member::say_written(ctx, from, target, version, write_result(&result));
            }
            Wait::Fence(from, pg, epoch) => self.member.fence_durable(ctx, from, (pg, epoch), &result),
            Wait::Fetch(from, target) => member::salvaged(ctx, from, target, result),
            Wait::Scrub(from, target) => member::verified(ctx, from, target, &result),
            Wait::Forget(from, target, version) => member::say_forgotten(ctx, from, target, version, &result),
            Wait::Drop(pg, epoch) => self.member.may_drop(ctx, (pg, epoch), &result),
            Wait::Dropped => self.member.strays.dropped(),
            Wait::Nobody => {}
        }
    }

    fn txn_ended(&mut self, ticket: u64, outcome: TxnOutcome) {
        let ctx = &mut self.ctx;
        match ctx.take_txn(ticket) {
            TxnWait::Claim(pg) => self.with_pg(pg, |pg, ctx| pg.claim_ended(ctx, ticket, outcome)),
            TxnWait::Activate(pg) => self.with_pg(pg, |pg, ctx| pg.activate_ended(ctx, ticket, outcome)),
            TxnWait::Report(pg) => self.with_pg(pg, |pg, _| pg.report_ended(ticket, outcome)),
            TxnWait::Scrub(pg) => self.with_pg(pg, |pg, _| pg.scrub_reported(ticket, outcome)),
            TxnWait::Presence => self.presence.ended(ticket, outcome),
            TxnWait::Testimony => self.testimony.ended(ctx, &self.member.accepted, ticket, outcome),
            TxnWait::Halt => self.recognition.ended(ticket),
            TxnWait::Loss(osd) => ctx.loss_told(osd, outcome),
            TxnWait::Usage => ctx.usage.ended(ticket, outcome, ctx.now),
        }
    }

    /// Hands something to a PG, if this OSD still acts for it.
    fn with_pg(&mut self, id: PgId, act: impl FnOnce(&mut Pg, &mut Ctx)) {
        if let Some(pg) = self.pgs.get_mut(&id) {
            act(pg, &mut self.ctx);
            self.look_at_concerns();
        }
    }

    /// Hands something to a PG that is active in the epoch that it is about. What is about another one is over.
    fn active_in(&mut self, target: Target, act: impl FnOnce(&mut Active, &mut Ctx)) {
        let pg = self.pgs.get_mut(&target.pg).and_then(Pg::active_mut);
        if let Some(active) = pg.filter(|active| active.epoch == target.epoch) {
            act(active, &mut self.ctx);
            self.look_at_concerns();
        }
    }

    /// A member (or this OSD's own store) has ended a mutation.
    fn written(&mut self, from: OsdId, target: Target, version: Version, result: Result<(), WriteError>) {
        let Some(pg) = self.pgs.get_mut(&target.pg).filter(|pg| pg.epoch == target.epoch) else {
            return;
        };
        let Some(active) = pg.active_mut() else { return };
        match active.written(&mut self.ctx, from, target.object, version, result) {
            Ok(()) => {}
            Err(StartOver) => pg.start_over(&mut self.ctx),
        }
        self.look_at_concerns();
    }

    /// Does what a PG found to be done beyond itself.
    fn look_at_concerns(&mut self) {
        for osd in std::mem::take(&mut self.ctx.concerns.no_room) {
            if !self.pgs.values().any(|pg| pg.may_delete_on(osd)) {
                self.ctx.leave_out(osd);
            }
        }
        if self.ctx.concerns.healing {
            self.heal_in_background();
        }
    }
}

fn write_result(result: &Result<Reply, StoreError>) -> Result<(), WriteError> {
    match result {
        Ok(_) => Ok(()),
        Err(StoreError::NoSpace) => Err(WriteError::NoSpace),
        Err(StoreError::StaleVersion { .. }) => Err(WriteError::Stale),
        Err(StoreError::Damaged { .. } | StoreError::Failed(_)) => Err(WriteError::Failed),
    }
}
