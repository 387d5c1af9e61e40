//! The gateway machine: sessions on one side, the cluster client and the metadata store on the other.
//!
//! Events come in as method calls, effects go out as [`Effect`]s. It owns every session and the tree of names, and
//! knows neither sockets nor clocks.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use trivet_client::{Client, ImageOp, IoError};
use trivet_core::kv::{Notice, Txn, TxnOutcome};
use trivet_core::message::Message;
use trivet_core::{ClientId, ImageId, Now, OsdId};
use trivet_namespace::{Namespace, Numbers, Time};

use crate::admin::metrics::{ExportMetrics, Metrics, Op, Protocol};
use crate::admin::{AdminCall, AdminReply};
use crate::background::Background;
use crate::changes::Changes;
use crate::cluster::{Edits, Progress, Usages};
use crate::iscsi::IscsiSession;
use crate::nbd::NbdSession;
use crate::nfs::{NfsServer, NfsSession};
use crate::scrub::Scrubs;
use crate::session::{Desk, Ending, Finished, InFlight, Request, Session, Space, Ticket};
use crate::status::OsdReport;

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
    /// Send a message to an OSD.
    ToOsd(OsdId, Message),
    /// Run a metadata transaction and report with [`Gateway::txn_ended`].
    Txn(u64, Txn),
}

/// One client connection.
struct Connection {
    session: Box<dyn Session>,
    protocol: Protocol,
    local: SocketAddr,
    paused: bool,
    leftover: bool,
    /// The client is gone; the session stays until its requests are answered, so that what it keeps for repeated
    /// requests is complete.
    gone: bool,
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
    /// A time of modification.
    Touch(ImageId),
    /// Reservation of image numbers.
    Numbers,
}

/// An operation of the cluster client under way.
struct Io {
    origin: Origin,
    started: Now,
    measured: Option<(Arc<ExportMetrics>, Op, u64)>,
}

/// See the module.
pub struct Gateway {
    pub(crate) id: ClientId,
    pub(crate) started: Now,
    pub(crate) namespace: Namespace,
    pub(crate) numbers: Numbers,
    pub(crate) client: Client,
    pub(crate) changes: Changes,
    pub(crate) background: Background,
    pub(crate) calls: BTreeMap<u64, (AdminCall, AdminReply)>,
    pub(crate) scrubs: Scrubs,
    pub(crate) edits: Edits,
    pub(crate) progress: Progress,
    pub(crate) usages: Usages,
    pub(crate) osds: BTreeMap<OsdId, OsdReport>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    nfs: Rc<NfsServer>,
    /// The cluster's number: part of the identity of SCSI units.
    cluster: u64,
    connections: HashMap<ConnKey, Connection>,
    exports: HashMap<(u8, ImageId), Arc<ExportMetrics>>,
    ios: HashMap<u64, Io>,
    /// Requests that sessions left and nobody has looked at yet.
    requests: Vec<(Ticket, Request)>,
    /// Answers that wait for their sessions.
    answers: VecDeque<(ConnKey, Ticket, Finished)>,
    from_client: Vec<trivet_client::Effect>,
    next: u64,
    last_tick: Now,
}

impl Gateway {
    /// A gateway without a map: operations wait for the first notice. `id` is drawn at random for every start.
    #[must_use]
    pub fn new(id: ClientId, clock: Clock, metrics: Arc<Metrics>, nfs: NfsServer, cluster: u64) -> Gateway {
        Gateway {
            id,
            started: clock.now,
            namespace: Namespace::default(),
            numbers: Numbers::default(),
            client: Client::new(id),
            changes: Changes::default(),
            background: Background::default(),
            calls: BTreeMap::new(),
            scrubs: Scrubs::default(),
            edits: Edits::default(),
            progress: Progress::default(),
            usages: Usages::default(),
            osds: BTreeMap::new(),
            clock,
            metrics,
            nfs: Rc::new(nfs),
            cluster,
            connections: HashMap::new(),
            exports: HashMap::new(),
            ios: HashMap::new(),
            requests: Vec::new(),
            answers: VecDeque::new(),
            from_client: Vec::new(),
            next: 1,
            last_tick: clock.now,
        }
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
        self.clock = clock;
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
            leftover: false,
            gone: false,
        };
        self.connections.insert(conn, connection);
        self.with_session(conn, out, |session, desk, bytes| {
            session.start(desk, bytes);
            Ok(())
        });
        self.work(out);
    }

    /// Bytes came from a client. Returns how many more make its next message whole, if that is known.
    pub fn received(&mut self, clock: Clock, conn: ConnKey, input: &mut BytesMut, out: &mut Vec<Effect>) -> usize {
        self.clock = clock;
        self.with_session(conn, out, |session, desk, bytes| session.receive(input, desk, bytes));
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.leftover = !input.is_empty();
        }
        self.work(out);
        self.connections
            .get(&conn)
            .map_or(0, |connection| connection.session.hint())
    }

    /// A client is gone. Its session goes with the first tick of sessions that finds nothing of it under way.
    pub fn closed(&mut self, conn: ConnKey) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.gone = true;
        }
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
        self.clock = clock;
        let mut effects = std::mem::take(&mut self.from_client);
        self.client.message(clock.now, from, message, &mut effects);
        self.from_client = effects;
        self.work(out);
    }

    /// The connection to an OSD broke: what was sent there is sent again soon.
    pub fn lost(&mut self, osd: OsdId) {
        self.client.lost(osd);
    }

    /// The metadata store changed.
    pub fn notice(&mut self, clock: Clock, notice: &Notice, out: &mut Vec<Effect>) {
        self.clock = clock;
        self.namespace.apply(notice);
        let known = self.client.map().revision;
        self.scrubs.apply(notice, known);
        self.edits.marks.apply(notice, known);
        self.edits.witnesses.apply(notice, known);
        self.usages.apply(notice, known);
        let mut effects = std::mem::take(&mut self.from_client);
        self.client.notice(clock.now, notice, &mut effects);
        self.from_client = effects;
        if matches!(notice, Notice::Replaced { .. }) {
            self.changes_replaced();
            self.edits_replaced();
        }
        self.mirror_moved(out);
        self.edits_moved(out);
        self.run_background(out);
        self.work(out);
    }

    /// A metadata transaction of this gateway ended.
    pub fn txn_ended(&mut self, clock: Clock, ticket: u64, outcome: TxnOutcome, out: &mut Vec<Effect>) {
        self.clock = clock;
        if !self.scrubs.txn_ended(ticket, outcome) && !self.edit_txn_ended(ticket, outcome, out) {
            self.change_txn_ended(ticket, outcome, out);
        }
        self.work(out);
    }

    /// An administrator calls.
    pub fn admin(&mut self, clock: Clock, call: AdminCall, reply: AdminReply, out: &mut Vec<Effect>) {
        self.clock = clock;
        match call {
            AdminCall::Scrub => self.ask_scrub(reply, out),
            AdminCall::Change(change) => self.change_cluster(change, reply, out),
            call => self.admin_call(call, reply, out),
        }
        self.work(out);
    }

    /// Call it several times a second.
    pub fn tick(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        self.clock = clock;
        let mut effects = std::mem::take(&mut self.from_client);
        self.client.tick(clock.now, &mut effects);
        self.from_client = effects;
        self.retry_changes(out);
        self.run_background(out);
        if clock.now.since(self.last_tick) >= SESSION_TICK {
            self.last_tick = clock.now;
            self.progress.sample(clock.now, self.objects_missing());
            self.update_space();
            self.write_touched(out);
            self.tick_sessions(out);
        }
        self.work(out);
    }

    /// Sessions without a client are told too, for what they put off; then they go, if nothing of them is under way.
    fn tick_sessions(&mut self, out: &mut Vec<Effect>) {
        let mut conns: Vec<ConnKey> = self.connections.keys().copied().collect();
        conns.sort_unstable();
        for conn in conns {
            self.with_session(conn, out, |session, desk, bytes| session.tick(desk, bytes));
        }
        self.connections
            .retain(|_, c| !c.gone || c.session.in_flight().requests > 0);
    }

    /// A fresh number.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Starts an operation on an image's bytes.
    pub(crate) fn start_io(&mut self, origin: Origin, image: ImageId, op: ImageOp) {
        let ticket = self.number();
        let measured = match origin {
            Origin::Session(conn, _) => self.measure(conn, image, &op),
            _ => None,
        };
        self.ios.insert(
            ticket,
            Io {
                origin,
                started: self.clock.now,
                measured,
            },
        );
        self.client
            .submit(self.clock.now, ticket, image, op, &mut self.from_client);
    }

    fn measure(&mut self, conn: ConnKey, image: ImageId, op: &ImageOp) -> Option<(Arc<ExportMetrics>, Op, u64)> {
        let protocol = self.connections.get(&conn)?.protocol;
        let (op, bytes) = match op {
            ImageOp::Read { len, .. } => (Op::Read, *len),
            ImageOp::Write { data, .. } => (Op::Write, data.iter().map(|d| d.len() as u64).sum()),
            ImageOp::Zero { len, .. } => (Op::Trim, *len),
            ImageOp::Purge => return None,
        };
        let key = (protocol as u8, image);
        if !self.exports.contains_key(&key) {
            let path = self.namespace.path_of(image)?;
            let export = self.metrics.export(protocol, &String::from_utf8_lossy(&path));
            self.exports.insert(key, export);
        }
        self.exports.get(&key).map(|export| (Arc::clone(export), op, bytes))
    }

    /// Forgets the metrics of a removed image.
    pub(crate) fn forget_metrics(&mut self, image: ImageId) {
        self.exports.retain(|(_, id), _| *id != image);
    }

    /// Hands requests, effects and answers on until nothing is left.
    fn work(&mut self, out: &mut Vec<Effect>) {
        loop {
            for effect in std::mem::take(&mut self.from_client) {
                match effect {
                    trivet_client::Effect::Send(osd, message) => out.push(Effect::ToOsd(osd, message)),
                    trivet_client::Effect::Done(ticket, result) => self.io_ended(ticket, result, out),
                }
            }
            let Some((conn, ticket, finished)) = self.answers.pop_front() else {
                if self.from_client.is_empty() {
                    return;
                }
                continue;
            };
            self.with_session(conn, out, |session, desk, bytes| {
                session.finished(ticket, finished, desk, bytes)
            });
            if self.connections.get(&conn).is_some_and(|c| c.leftover && !c.gone) {
                out.push(Effect::Again(conn));
            }
        }
    }

    fn io_ended(&mut self, ticket: u64, result: Result<Vec<Bytes>, IoError>, out: &mut Vec<Effect>) {
        let Some(io) = self.ios.remove(&ticket) else { return };
        if let Some((export, op, bytes)) = io.measured {
            export.record(op, bytes, self.clock.now.since(io.started), result.is_err());
        }
        match io.origin {
            Origin::Session(conn, ticket) => self.answers.push_back((conn, ticket, Finished::Io(result))),
            Origin::Purge(image) => self.purge_io_ended(image, result.is_ok(), out),
            Origin::Trim(image) => self.trim_io_ended(image, result.is_ok(), out),
            Origin::Admin(_) | Origin::Touch(_) | Origin::Numbers => {}
        }
    }

    /// Leaves an answer for a session.
    pub(crate) fn answer(&mut self, conn: ConnKey, ticket: Ticket, finished: Finished) {
        self.answers.push_back((conn, ticket, finished));
    }

    /// Runs one call of a session, then looks at what it left behind.
    fn with_session(
        &mut self,
        conn: ConnKey,
        out: &mut Vec<Effect>,
        call: impl FnOnce(&mut dyn Session, &mut Desk<'_>, &mut Vec<Bytes>) -> Result<(), Ending>,
    ) {
        let space = self.space();
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let mut bytes = Vec::new();
        let mut desk = Desk {
            now: self.clock.now,
            wall: self.clock.wall,
            namespace: &self.namespace,
            local: connection.local,
            space,
            touched: &self.background.touched,
            requests: &mut self.requests,
            next_ticket: &mut self.next,
        };
        let result = call(connection.session.as_mut(), &mut desk, &mut bytes);
        let in_flight = connection.session.in_flight();
        let was_gone = connection.gone;
        if !was_gone {
            if !bytes.is_empty() {
                out.push(Effect::Send(conn, bytes));
            }
            let paused = in_flight.requests >= MAX_IN_FLIGHT.requests || in_flight.bytes >= MAX_IN_FLIGHT.bytes;
            if paused != connection.paused {
                connection.paused = paused;
                out.push(Effect::Pause(conn, paused));
            }
        }
        for (ticket, request) in std::mem::take(&mut self.requests) {
            self.take_request(Origin::Session(conn, ticket), request, out);
        }
        if let Err(ending) = result
            && !was_gone
        {
            out.push(Effect::Close(conn, ending));
            self.closed(conn);
        }
    }

    fn take_request(&mut self, origin: Origin, request: Request, out: &mut Vec<Effect>) {
        match request {
            Request::Io { image, op } => self.start_io(origin, image, op),
            Request::Change { operation, caller } => self.start_change(origin, operation, caller, out),
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
