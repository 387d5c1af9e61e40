//! The gateway machine: sessions on one side, the cluster client and the metadata store on the other.
//!
//! Events come in as method calls, effects go out as [`Effect`]s. It owns every session and the tree of names, and
//! knows neither sockets nor clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use trivet_api::{AdminCall, AdminResult, CallId};
use trivet_client::{Client, ImageOp, IoError};
use trivet_core::kv::{Notice, Txn, TxnOutcome};
use trivet_core::message::Message;
use trivet_core::{ClientId, ImageId, Now, OsdId};
use trivet_namespace::{Namespace, Numbers, Time};

use crate::background::Background;
use crate::callers::Attendance;
use crate::changes::{Change, Changes};
use crate::cluster::Edits;
use crate::confirm::Confirmations;
use crate::fences::Fences;
use crate::fresh::Freshness;
use crate::iscsi::IscsiSession;
use crate::memory::{Account, Memory};
use crate::metrics::{ExportList, ExportMetrics, Metrics, Op, Protocol};
use crate::nbd::NbdSession;
use crate::nfs::{NfsServer, NfsSession};
use crate::opens::Opening;
use crate::options::{Options, mutant};
use crate::outcomes::Outcomes;
use crate::overview::unread;
use crate::scrub::Scrubs;
use crate::session::{Ending, Finished, InFlight, Request, Session, SessionContext, Space, Ticket};
use crate::status::OsdReport;
use crate::stops::Shown;
use crate::uses::{Begun, Uses};

/// A connection is not read from while it has more than this under way.
const MAX_IN_FLIGHT: InFlight = InFlight {
    requests: 512,
    bytes: 64 << 20,
};
/// Sessions hear of the time this often.
const SESSION_TICK: Duration = Duration::from_secs(1);

/// Names a connection; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey(pub u64);

/// Both clocks, as of one event.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic.
    pub now: Now,
    /// Wall clock.
    pub wall: Time,
}

/// What the gateway wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send bytes to a client.
    Send(ConnKey, Vec<Bytes>),
    /// Close a connection after what was sent to it has left. The gateway has forgotten it.
    Close(ConnKey, Ending),
    /// Stop or go on reading from a connection.
    Pause(ConnKey, bool),
    /// Offer the input that was left over again.
    Again(ConnKey),
    /// Say with [`Gateway::attended`] what is known of a client, until that is enough.
    Listen(ConnKey),
    /// This gateway is taken for dead, and nothing of it is executed any more: begin anew, with another id.
    Fenced,
    /// Send a message to an OSD.
    ToOsd(OsdId, Message),
    /// Run a metadata transaction and report with [`Gateway::txn_ended`].
    Txn(u64, Txn),
    /// Answer an administrator's call.
    Answered(CallId, AdminResult),
    /// Other exports are counted than before.
    Exports(ExportList),
}

/// One client connection.
pub(crate) struct Connection {
    pub(crate) session: Box<dyn Session>,
    protocol: Protocol,
    local: SocketAddr,
    pub(crate) paused: bool,
    pub(crate) attendance: Attendance,
    /// The image that its session has open.
    pub(crate) open: Option<ImageId>,
    /// Nothing that its client is to be told of that leaves yet.
    pub(crate) opening: Option<Opening>,
    /// What it has of the budget for clients' data.
    pub(crate) account: Account,
    /// Bytes that it has sent and the session has not taken.
    pub(crate) buffered: usize,
    /// Since when it waits, with what it sent, because it would open something and the mirror is too old.
    pub(crate) held: Option<Now>,
    /// The client is gone; the session stays until its requests are answered, so that what it keeps for repeated
    /// requests is complete.
    pub(crate) gone: bool,
}

impl Connection {
    /// The effect, if what it has under way and waits for means that it is to be read from no more, or again.
    pub(crate) fn pause_or_go_on(&mut self, conn: ConnKey) -> Option<Effect> {
        let under_way = self.session.in_flight();
        let full = under_way.requests >= MAX_IN_FLIGHT.requests || under_way.bytes >= MAX_IN_FLIGHT.bytes;
        let paused = full || self.held.is_some() || self.opening.is_some() || self.account.waits;
        if paused == self.paused || self.gone {
            return None;
        }
        self.paused = paused;
        Some(Effect::Pause(conn, paused))
    }
}

/// Who asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A session, under this ticket.
    Session(ConnKey, Ticket),
    /// An administrator, by the number of the call.
    Admin(u64),
    /// Removal of an image's data.
    Purge(ImageId),
    /// Removal of what a truncation cut off.
    Trim(ImageId),
    /// Times of modification.
    Touch,
    /// Reservation of image numbers.
    Numbers,
    /// The fence around a gateway.
    Fence(ClientId),
    /// The end of a use by a gateway that is gone.
    EndUse(ImageId, ClientId),
}

/// An operation of the cluster client under way.
struct Io {
    origin: Origin,
    started: Now,
    measured: Option<(Arc<ExportMetrics>, Op, u64)>,
    /// If it is a client's change.
    change: Option<Begun>,
}

/// A gateway: every session of its clients, the mirror of the tree of names, and the client of the OSDs.
pub struct Gateway {
    pub(crate) id: ClientId,
    pub(crate) options: Options,
    pub(crate) started: Now,
    pub(crate) namespace: Namespace,
    pub(crate) numbers: Numbers,
    pub(crate) client: Client,
    pub(crate) changes: Changes,
    pub(crate) outcomes: Outcomes,
    pub(crate) uses: Uses,
    pub(crate) confirmations: Confirmations,
    pub(crate) background: Background,
    pub(crate) calls: BTreeMap<u64, (AdminCall, CallId)>,
    /// Calls without an answer whose administrators have given up.
    pub(crate) forsaken_calls: BTreeSet<CallId>,
    pub(crate) scrubs: Scrubs,
    pub(crate) edits: Edits,
    pub(crate) freshness: Freshness,
    pub(crate) fences: Fences,
    pub(crate) memory: Memory,
    pub(crate) log_lines_lost: u64,
    pub(crate) osds: BTreeMap<OsdId, OsdReport>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    nfs: Rc<NfsServer>,
    /// The cluster's number: part of the identity of SCSI units.
    cluster: u64,
    pub(crate) connections: HashMap<ConnKey, Connection>,
    ios: HashMap<u64, Io>,
    /// When sessions asked for changes that are not answered.
    pub(crate) changing: BTreeMap<(ConnKey, Ticket), Now>,
    /// When this gateway went on after it was stopped for long.
    pub(crate) woke: Option<Now>,
    /// How it was shown last by a lease of its own, and whether it ever was.
    pub(crate) shown: Shown,
    /// Requests that sessions left and nobody has looked at yet.
    requests: Vec<(Ticket, Request)>,
    /// Answers that wait for their sessions.
    answers: VecDeque<(ConnKey, Ticket, Finished)>,
    /// Answers to administrators, which leave with what else is to be done.
    answered: Vec<(CallId, AdminResult)>,
    pub(crate) from_client: Vec<trivet_client::Effect>,
    next: u64,
    /// Smaller tickets are of transactions that went to a metadata store in whose place there is another one now.
    replaced: u64,
    last_tick: Now,
}

impl Gateway {
    /// A gateway without a map: operations wait for the first notice. `id` is drawn at random for every start.
    #[must_use]
    pub fn new(id: ClientId, clock: Clock, nfs: NfsServer, cluster: u64) -> Gateway {
        Gateway {
            id,
            options: Options::default(),
            started: clock.now,
            namespace: Namespace::default(),
            numbers: Numbers::default(),
            client: Client::new(id),
            changes: Changes::default(),
            outcomes: Outcomes::default(),
            uses: Uses::default(),
            confirmations: Confirmations::default(),
            background: Background::default(),
            calls: BTreeMap::new(),
            forsaken_calls: BTreeSet::new(),
            scrubs: Scrubs::default(),
            edits: Edits::default(),
            freshness: Freshness::default(),
            fences: Fences::default(),
            memory: Memory::default(),
            log_lines_lost: 0,
            osds: BTreeMap::new(),
            clock,
            metrics: Metrics::default(),
            nfs: Rc::new(nfs),
            cluster,
            connections: HashMap::new(),
            ios: HashMap::new(),
            changing: BTreeMap::new(),
            woke: None,
            shown: Shown::default(),
            requests: Vec::new(),
            answers: VecDeque::new(),
            answered: Vec::new(),
            from_client: Vec::new(),
            next: 1,
            replaced: 0,
            last_tick: clock.now,
        }
    }

    /// The same with a deliberate bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_mutant(mut self, mutant: crate::Mutant) -> Gateway {
        self.options.mutant = Some(mutant);
        self.freshness.options = self.options;
        self.memory.options = self.options;
        self
    }

    /// The same with a deliberate bug of its client.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_client_mutant(mut self, mutant: trivet_client::Mutant) -> Gateway {
        self.client = trivet_client::Client::with_mutant(self.id, mutant);
        self
    }

    /// It runs on this host.
    pub fn set_host(&mut self, host: String) {
        self.client.set_host(host);
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Whether the tree of names has been read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.namespace.inode(trivet_namespace::ROOT).is_some()
    }

    /// Whether there is a pool, as far as it knows.
    #[must_use]
    pub fn has_pools(&self) -> bool {
        !self.client.map().pools.is_empty()
    }

    /// Whether every PG serves clients; there is at least one.
    #[must_use]
    pub fn all_active(&self) -> bool {
        let map = self.client.map();
        let active = |pg| map.claims.get(&pg).is_some_and(|claim| claim.value.active);
        map.pgs().next().is_some() && map.pgs().all(active)
    }

    /// `peer` connected to `local`.
    pub fn accepted(
        &mut self,
        clock: Clock,
        conn: ConnKey,
        protocol: Protocol,
        local: SocketAddr,
        peer: SocketAddr,
        out: &mut Vec<Effect>,
    ) {
        self.at(clock);
        let session: Box<dyn Session> = match protocol {
            Protocol::Nbd => Box::new(NbdSession::new(clock.now)),
            Protocol::Iscsi => Box::new(IscsiSession::new(clock.now, conn.0, self.cluster)),
            Protocol::Nfs => Box::new(NfsSession::new(Rc::clone(&self.nfs), peer)),
        };
        let connection = Connection {
            session,
            protocol,
            local,
            paused: false,
            attendance: self.new_attendance(),
            open: None,
            opening: None,
            account: Account::default(),
            buffered: 0,
            held: None,
            gone: false,
        };
        self.connections.insert(conn, connection);
        self.with_session(conn, out, |session, context, bytes| {
            session.start(context, bytes);
            Ok(())
        });
        self.work(out);
    }

    /// Bytes came from a client. Returns how many more make its next message whole, if that is known.
    /// `quiet`: a time at which what is new of them was not here yet.
    pub fn received(
        &mut self,
        clock: Clock,
        conn: ConnKey,
        input: &mut BytesMut,
        quiet: Now,
        out: &mut Vec<Effect>,
    ) -> usize {
        self.at(clock);
        let quiet = if mutant!(self.options, ReadAfterStop) {
            clock.now
        } else {
            quiet
        };
        if self.holds_back(conn, input.len(), out) {
            self.settle(conn, Some(input.len()), out);
            // As much may follow: the room for it grows with what is there.
            return 2 * input.len();
        }
        let connection = self.connections.get_mut(&conn);
        let fresh = connection.map_or(0, |c| c.attendance.receives(input.len(), quiet));
        if !self.holds(conn, out) && !self.is_opening(conn) {
            self.with_session(conn, out, |session, context, bytes| {
                session.receive(input, context, bytes)
            });
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.attendance.received(input.len(), fresh, quiet);
        }
        self.settle(conn, Some(input.len()), out);
        self.work(out);
        self.connections
            .get(&conn)
            .map_or(0, |connection| connection.session.hint())
    }

    /// A client is gone.
    pub fn closed(&mut self, clock: Clock, conn: ConnKey, out: &mut Vec<Effect>) {
        self.at(clock);
        self.forsake(conn);
        self.work(out);
    }

    /// How many sessions there are, those whose clients are gone included.
    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.connections.len()
    }

    /// How many clients there are, by protocol.
    pub(crate) fn clients(&self, protocol: Protocol) -> u64 {
        self.connections
            .values()
            .filter(|c| c.protocol == protocol && !c.gone)
            .count() as u64
    }

    /// A message came from an OSD.
    pub fn message(&mut self, clock: Clock, from: OsdId, message: Message, out: &mut Vec<Effect>) {
        self.at(clock);
        let mut effects = std::mem::take(&mut self.from_client);
        let is_clock = matches!(message, Message::Tick { .. });
        self.client.message(clock.now, from, message, &mut effects);
        self.from_client = effects;
        self.work(out);
        if is_clock {
            self.plan_vouched(out);
        }
    }

    /// The connection to an OSD broke: what was sent there is sent again soon.
    pub fn lost(&mut self, osd: OsdId) {
        self.client.lost(osd);
    }

    /// The metadata store changed.
    pub fn notice(&mut self, clock: Clock, notice: &Notice, out: &mut Vec<Effect>) {
        self.at(clock);
        self.namespace.apply(notice);
        let known = self.client.map().revision;
        self.scrubs.apply(notice, known);
        self.edits.admin_keys.apply(notice, known);
        self.edits.witnesses.apply(notice, known);
        let mut effects = std::mem::take(&mut self.from_client);
        self.client.notice(clock.now, notice, &mut effects);
        self.from_client = effects;
        if !matches!(notice, Notice::Changes { .. }) {
            let names = &self.namespace;
            self.metrics.keep(|image| names.inode(image).is_some());
        }
        if matches!(notice, Notice::Replaced { .. }) {
            self.replaced = self.number();
            self.freshness.replaced();
            self.changes_replaced();
            self.outcomes_replaced();
            self.uses_replaced();
            self.edits_replaced();
            self.fences_replaced();
        }
        self.freshness.mirror_moved(self.namespace.revision());
        self.stir_uses(notice);
        self.enlist(out);
        self.look_for_own_lease();
        self.let_go(out);
        self.mirror_moved(out);
        self.edits_moved(out);
        self.tend_stirred(out);
        self.run_background(out);
        self.work(out);
    }

    /// A metadata transaction of this gateway ended.
    pub fn txn_ended(&mut self, clock: Clock, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        self.at(clock);
        // What became of it in the store before says nothing of this one, where its commits mean others.
        let outcome = if ticket < self.replaced {
            TxnOutcome::Unknown
        } else {
            outcome
        };
        if let Some((call, answer)) = self.scrubs.txn_ended(ticket, outcome) {
            self.answer_call(call, answer);
            return self.work(out);
        }
        let taken = self.fence_txn_ended(ticket, outcome, out)
            || self.edit_txn_ended(ticket, outcome, out)
            || self.outcome_txn_ended(ticket, outcome, out)
            || self.use_txn_ended(ticket, outcome, out)
            || self.confirm_txn_ended(ticket, outcome);
        if !taken {
            self.change_txn_ended(ticket, outcome, out);
        }
        self.work(out);
    }

    /// An administrator wants a change; [`Effect::Answered`] follows under the same `id`, now or later. What there is to see of
    /// it then is for an [`Overview`](crate::overview::Overview) to say, as are all questions.
    pub fn admin(&mut self, clock: Clock, id: CallId, call: AdminCall, out: &mut Vec<Effect>) {
        self.at(clock);
        match call {
            _ if self.namespace.revision() == 0 => self.answer_call(id, Err(unread())),
            AdminCall::Scrub => self.ask_scrub(id, out),
            AdminCall::Change(change) => self.change_cluster(id, change, out),
            call => self.admin_call(id, call, out),
        }
        self.work(out);
    }

    /// The administrator who asked for that is gone: what was not begun is not done.
    pub fn forsake_call(&mut self, id: CallId) {
        self.forsaken_calls.insert(id);
    }

    /// Call it several times a second.
    pub fn tick(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        self.at(clock);
        let mut effects = std::mem::take(&mut self.from_client);
        self.client.tick(clock.now, &mut effects);
        self.from_client = effects;
        self.ask_outcomes(out);
        self.retry_changes(out);
        self.confirm_again(out);
        self.retry_edits(out);
        self.end_forsaken();
        self.tend_waiting(out);
        self.run_background(out);
        self.look_at_memory(out);
        if clock.now.since(self.last_tick) >= SESSION_TICK {
            self.last_tick = clock.now;
            self.update_space();
            self.write_touched(out);
            self.look_at_held(out);
            self.look_at_opens(out);
            self.look_for_callers(out);
            self.enlist(out);
            self.fence_forgotten(out);
            self.tend_uses(out);
            self.sweep_authors(out);
            self.tick_sessions(out);
        }
        out.extend(self.metrics.take_changed().map(Effect::Exports));
        self.work(out);
        self.plan_vouched(out);
    }

    /// Sessions without a client are told too, for what they put off; then they go, if nothing of them is under way. Those
    /// whose input is held back are not: what they wait for may be in it.
    fn tick_sessions(&mut self, out: &mut Vec<Effect>) {
        let told = self.connections.iter().filter(|(_, c)| !c.attendance.is_doubted());
        let mut conns: Vec<ConnKey> = told.map(|(&conn, _)| conn).collect();
        conns.sort_unstable();
        for conn in conns {
            self.with_session(conn, out, |session, context, bytes| session.tick(context, bytes));
        }
        let gone = self.connections.iter().filter(|(_, c)| c.gone).map(|(&conn, _)| conn);
        let kept = mutant!(self.options, KeepForEnded);
        let done: Vec<ConnKey> = gone.filter(|conn| !kept && !self.is_changing(*conn)).collect();
        for conn in done {
            self.connections.remove(&conn);
        }
    }

    /// A fresh number.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The protocol of whoever asked for an operation, if it is a client that is still known.
    pub(crate) fn protocol_of(&self, origin: Origin) -> Option<Protocol> {
        match origin {
            Origin::Session(conn, _) => Some(self.connections.get(&conn)?.protocol),
            _ => None,
        }
    }

    /// Starts an operation on an image's bytes, under the ticket that comes back; `began`, of a client's change: the
    /// image's last truncation.
    pub(crate) fn start_io(&mut self, origin: Origin, image: ImageId, op: ImageOp, began: Option<Option<Time>>) -> u64 {
        let ticket = self.number();
        let measured = match origin {
            Origin::Session(conn, _) => {
                self.freshness.serve(self.clock.now, image);
                self.measure(conn, image, &op)
            }
            _ => None,
        };
        self.expect_io(ticket, origin);
        if let Some(io) = self.ios.get_mut(&ticket) {
            io.measured = measured;
            io.change = began.map(|cut| Begun::new(image, cut, &op));
        }
        if let Origin::Session(conn, _) = origin
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.attendance.ios.insert(ticket);
        }
        let (now, caller) = (self.clock.now, self.caller_of(origin));
        self.client
            .submit(now, ticket, image, op, caller, &mut self.from_client);
        ticket
    }

    /// An operation of the cluster client begins.
    pub(crate) fn expect_io(&mut self, ticket: u64, origin: Origin) {
        let io = Io {
            origin,
            started: self.clock.now,
            measured: None,
            change: None,
        };
        self.ios.insert(ticket, io);
    }

    /// When an operation began that has not ended.
    pub(crate) fn io_start(&self, io: u64) -> Option<Now> {
        self.ios.get(&io).map(|io| io.started)
    }

    /// Nobody waits for an operation any more; comes back if it is a change.
    pub(crate) fn forget_io(&mut self, io: u64) -> Option<Begun> {
        self.ios.remove(&io)?.change
    }

    fn measure(&mut self, conn: ConnKey, image: ImageId, op: &ImageOp) -> Option<(Arc<ExportMetrics>, Op, u64)> {
        let protocol = self.connections.get(&conn)?.protocol;
        let (op, bytes) = match op {
            ImageOp::Read { len, .. } => (Op::Read, *len),
            ImageOp::Write { data, .. } => (Op::Write, data.iter().map(|d| d.len() as u64).sum()),
            ImageOp::Zero { len, .. } => (Op::Trim, *len),
            ImageOp::Purge => return None,
        };
        // Removed files that somebody still has open are not counted.
        self.namespace.inode(image)?;
        Some((self.metrics.export(protocol, image), op, bytes))
    }

    /// Hands requests, effects and answers on until nothing is left.
    pub(crate) fn work(&mut self, out: &mut Vec<Effect>) {
        loop {
            for effect in std::mem::take(&mut self.from_client) {
                match effect {
                    trivet_client::Effect::Send(osd, message) => out.push(Effect::ToOsd(osd, message)),
                    trivet_client::Effect::Late(ticket, why) => {
                        if let Some(origin) = self.ios.get(&ticket).map(|io| io.origin) {
                            self.came_late(ticket, origin, why, out);
                        }
                    }
                    trivet_client::Effect::Done(ticket, result) => self.io_ended(ticket, result, out),
                    trivet_client::Effect::Stood(time) => self.stood_still(time),
                }
            }
            let Some((conn, ticket, finished)) = self.answers.pop_front() else {
                // What the answers led to has been asked for by now.
                self.tend_stirred(out);
                if self.from_client.is_empty() && self.answers.is_empty() {
                    break;
                }
                continue;
            };
            self.with_session(conn, out, |session, context, bytes| {
                session.finished(ticket, finished, context, bytes)
            });
            if self
                .connections
                .get(&conn)
                .is_some_and(|c| c.attendance.has_leftover() && !c.gone)
            {
                out.push(Effect::Again(conn));
            }
        }
        let answered = self.answered.drain(..);
        out.extend(answered.map(|(call, result)| Effect::Answered(call, result)));
    }

    fn io_ended(&mut self, ticket: u64, result: Result<Vec<Bytes>, IoError>, out: &mut Vec<Effect>) {
        let Some(io) = self.ios.remove(&ticket) else { return };
        if let Some((export, op, bytes)) = io.measured {
            export.record(op, bytes, self.clock.now.since(io.started), result.is_err());
        }
        if let Origin::Session(conn, _) = io.origin
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.attendance.ended(ticket);
        }
        if let Some(change) = io.change {
            self.change_ended(change);
        }
        match io.origin {
            Origin::Session(conn, ticket) => {
                let cut = io.change.and_then(|change| change.cut);
                self.answers.push_back((conn, ticket, Finished::Io(result, cut)));
            }
            Origin::Purge(image) => self.purge_io_ended(image, result.map(drop), out),
            Origin::Trim(image) => self.trim_io_ended(image, result.map(drop), out),
            Origin::Fence(client) => self.barrier_ended(client, ticket, result.map(drop), out),
            Origin::Admin(_) | Origin::Touch | Origin::Numbers | Origin::EndUse(..) => {}
        }
    }

    /// Leaves an answer for an administrator.
    pub(crate) fn answer_call(&mut self, call: CallId, result: AdminResult) {
        self.forsaken_calls.remove(&call);
        self.answered.push((call, result));
    }

    /// When the reads, writes and discards of clients began that are not answered.
    pub(crate) fn io_starts(&self) -> impl Iterator<Item = Now> {
        let of_clients = |io: &&Io| matches!(io.origin, Origin::Session(..));
        self.ios.values().filter(of_clients).map(|io| io.started)
    }

    /// When clients asked for changes of the tree of names that are not answered.
    pub fn change_starts(&self) -> impl Iterator<Item = Now> {
        self.changing.values().copied()
    }

    /// Leaves an answer for a session.
    pub(crate) fn answer(&mut self, conn: ConnKey, ticket: Ticket, finished: Finished) {
        self.changing.remove(&(conn, ticket));
        self.answers.push_back((conn, ticket, finished));
    }

    /// Runs one call of a session, then looks at what it left behind. A gateway that is fenced says nothing any more: what it
    /// knows may be of a metadata store that was emptied.
    fn with_session(
        &mut self,
        conn: ConnKey,
        out: &mut Vec<Effect>,
        call: impl FnOnce(&mut dyn Session, &mut SessionContext<'_>, &mut Vec<Bytes>) -> Result<(), Ending>,
    ) {
        let space = self.space();
        let is_over = self.is_over();
        let Some(connection) = self.connections.get_mut(&conn).filter(|_| !is_over) else {
            return;
        };
        let mut bytes = Vec::new();
        let mut context = SessionContext {
            now: self.clock.now,
            wall: self.clock.wall,
            namespace: &self.namespace,
            local: connection.local,
            space,
            touched: &self.background.touched,
            freshness: &self.freshness,
            options: self.options,
            requests: &mut self.requests,
            next_ticket: &mut self.next,
        };
        let result = call(connection.session.as_mut(), &mut context, &mut bytes);
        let was_gone = connection.gone;
        connection.settle(self.clock.now, &mut self.memory);
        self.note_open(conn);
        if !was_gone {
            self.say(conn, bytes, out);
        }
        let connection = self.connections.get_mut(&conn);
        out.extend(connection.and_then(|connection| connection.pause_or_go_on(conn)));
        for (ticket, request) in std::mem::take(&mut self.requests) {
            // What a client that is gone had asked for and was put off is not begun any more.
            if was_gone && !matches!(request, Request::Touch { .. }) {
                continue;
            }
            self.take_request(Origin::Session(conn, ticket), request, out);
        }
        if let Err(ending) = result
            && !was_gone
        {
            self.say_all(conn, out);
            self.end(conn, ending, out);
        }
    }

    fn take_request(&mut self, origin: Origin, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Io {
                image,
                op: op @ ImageOp::Read { .. },
            } => {
                self.start_io(origin, image, op, None);
            }
            Request::Io { image, op } => self.change_bytes(origin, image, op, out),
            Request::Confirm { call } => self.confirm(origin, call, out),
            Request::Change {
                operation,
                caller,
                call,
                asked,
            } => {
                if let Origin::Session(conn, ticket) = origin {
                    self.changing.insert((conn, ticket), asked);
                }
                let change = Change {
                    origin,
                    operation,
                    caller,
                    pool: None,
                    call,
                    written: None,
                };
                self.start(change, out);
            }
            Request::Touch { image } => {
                self.background.touched.insert(image, self.clock.wall);
            }
        }
    }

    /// Usable space of the default pool.
    pub(crate) fn space(&self) -> Space {
        self.background.space
    }
}
