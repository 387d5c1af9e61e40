//! Users: what connects to gateways and speaks NBD, iSCSI or NFS to them, as real clients do.
//!
//! A user has one connection, or two to different gateways, and works on one image. When a connection ends it makes
//! another, to the same gateway or another one, and asks again what was not answered: that is the same operation, as the
//! history is told. An impatient user does not wait for the end of a connection that does not answer.

pub mod iscsi;
pub mod names;
mod namespace;
pub use namespace::SHARED;
pub mod nbd;
pub mod nfs;
pub(crate) mod operations;
pub mod session;
mod sizes;
pub use sizes::SIZED;

use std::collections::BTreeMap;
use std::time::Duration;

use trivet_core::Now;
use trivet_gateway::metrics::Protocol;

use crate::event::Event;
use crate::random::Random;
use crate::streams::{Leave, StreamId};
use crate::swarm::Swarm;
use crate::trouble::Trouble;
use crate::world::World;
use iscsi::IscsiInitiator;
use nbd::NbdClient;
use nfs::{Handles, NfsClient};
use operations::Pending;
use session::{Said, Session};

/// Users look at how long their operations take this often.
const LOOK: Duration = Duration::from_millis(500);
/// How long an impatient user waits for an answer, seconds: what hosts do.
const PATIENCE: (u64, u64) = (5, 8);
/// A user whose connection falls silent, because its link is cut or it is gone, asks nobody else for this time: nothing shows it
/// that earlier.
const SILENT: Duration = Duration::from_secs(2);
/// A user whose connection ended waits so long before it makes another one, milliseconds: many do so at once.
const RECONNECT: (u64, u64) = (1, 2_000);
/// A user is told of the end of its connection, or that none is made, within this time.
const CONNECT: Duration = Duration::from_secs(3);

/// Of the changes of names that a user gives up one in so many is never asked for again,
const ABANDON: u64 = 3;
/// and does not happen after this time: 3 s until its gateway knows, and what is then on its way to the metadata store, which
/// is tried for 5 s.
const FORGOTTEN: Duration = Duration::from_secs(12);

/// What a user does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// It thinks of an operation.
    Think,
    /// It makes this connection, if this is still its attempt.
    Connect(usize, u32),
    /// It looks at how long things take.
    Look,
    /// It writes the last block of the file whose size changes.
    Insist,
    /// It leaves the connection on which it writes to the file whose size changes.
    Leave,
    /// It leaves its connections to this gateway.
    Forsake(usize),
    /// As that, and it does not want what it has written to files beside its image.
    Disown(usize),
    /// This operation on names, which it gave up, cannot happen any more.
    Forget(u64),
}

/// What users did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Operations that were answered, by protocol: NBD, iSCSI, NFS.
    pub answered: [u64; 3],
    /// Of these, those about names.
    pub names: u64,
    /// Operations that were sent again.
    pub repeats: u64,
    /// Operations that another gateway answered than the one that was asked first.
    pub taken_over: u64,
    /// Connections that were made.
    pub connections: u64,
}

impl Traffic {
    /// Adds that of another run.
    pub fn merge(&mut self, other: &Traffic) {
        for (mine, theirs) in self.answered.iter_mut().zip(other.answered) {
            *mine += theirs;
        }
        self.names += other.names;
        self.repeats += other.repeats;
        self.taken_over += other.taken_over;
        self.connections += other.connections;
    }
}

/// One of a user's connections.
struct Path {
    gateway: usize,
    stream: Option<StreamId>,
    session: Option<Box<dyn Session>>,
    ready: bool,
    attempt: u32,
    since: Now,
}

/// A user.
pub struct UserSlot {
    protocol: Protocol,
    /// The number of its image.
    image: usize,
    writer: u32,
    paths: Vec<Path>,
    pending: BTreeMap<u64, Pending>,
    number: u64,
    handles: Handles,
    /// It works on the file whose size changes.
    resizes: bool,
    /// After this time without an answer it goes elsewhere.
    patience: Option<Duration>,
    random: Random,
}

impl UserSlot {
    /// The users of a run; each has an image of its own or shares it with others.
    #[must_use]
    pub fn make(swarm: &Swarm, images: usize, root: &Random) -> Vec<UserSlot> {
        let mut random = root.fork("users");
        let resizers = UserSlot::make_sized(swarm, swarm.users, &root.fork("resizers"));
        let users = (0..swarm.users).map(|index| {
            let paths = if swarm.gateways > 1 && random.one_in(3) { 2 } else { 1 };
            let first = random.index(swarm.gateways);
            let patience = Duration::from_millis(random.range(PATIENCE.0 * 1000..=PATIENCE.1 * 1000));
            UserSlot {
                protocol: *random
                    .pick(&[Protocol::Nbd, Protocol::Iscsi, Protocol::Nfs])
                    .unwrap_or(&Protocol::Nbd),
                image: random.index(images),
                writer: writer_of(index),
                paths: (0..paths)
                    .map(|path| Path::new((first + path) % swarm.gateways))
                    .collect(),
                pending: BTreeMap::new(),
                number: 0,
                handles: Handles::default(),
                resizes: false,
                patience: swarm.has(Trouble::GiveUp).then_some(patience),
                random: random.fork(&format!("user {index}")),
            }
        });
        users.collect::<Vec<_>>().into_iter().chain(resizers).collect()
    }

    /// A user of this protocol, with one connection.
    fn make_one(swarm: &Swarm, index: usize, protocol: Protocol, random: &Random) -> UserSlot {
        UserSlot {
            protocol,
            image: 0,
            writer: writer_of(index),
            paths: vec![Path::new(0)],
            pending: BTreeMap::new(),
            number: 0,
            handles: Handles::default(),
            resizes: false,
            patience: swarm.has(Trouble::GiveUp).then_some(Duration::from_secs(PATIENCE.0)),
            random: random.fork(&format!("user {index}")),
        }
    }

    /// The name that it knows its image by.
    fn image_name(&self) -> String {
        if self.resizes {
            SIZED.to_owned()
        } else {
            image_name(self.image + 1)
        }
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// One of its connections.
    #[must_use]
    pub fn stream(&self, path: usize) -> Option<StreamId> {
        self.paths[path].stream
    }

    /// Any of its connections.
    pub fn draw_path(&self, random: &mut Random) -> usize {
        random.index(self.paths.len())
    }

    /// When the oldest operation without an answer was begun, and where it is.
    #[must_use]
    pub fn oldest(&self) -> Option<(Now, (u64, u64, u64))> {
        let pending = self.pending.values();
        pending.map(Pending::began).min()
    }

    /// Where one of its connections goes.
    pub(crate) fn gateway_of(&self, path: usize) -> usize {
        self.paths[path].gateway
    }

    /// Its connections to this gateway.
    pub(crate) fn paths_to(&self, gateway: usize) -> Vec<usize> {
        let all = 0..self.paths.len();
        all.filter(|path| self.paths[*path].gateway == gateway).collect()
    }

    /// Its next connection goes to this gateway, if it has no other.
    pub(crate) fn turn_to(&mut self, path: usize, gateway: usize) {
        if self.paths.len() == 1 {
            self.paths[path].gateway = gateway;
        }
    }

    /// An operation without an answer is asked again from this time on.
    pub(crate) fn asks_not_before(&mut self, number: u64, later: Now) {
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.not_before = later;
        }
    }

    /// The connection on which an operation on names was asked for that is not answered.
    #[must_use]
    pub fn path_of_names(&self) -> Option<usize> {
        let names = self.pending.values().find(|pending| pending.tree.is_some());
        names.and_then(|pending| pending.path)
    }

    /// The connection on which it writes to the file whose size changes, if that is not answered.
    #[must_use]
    pub fn path_of_sized(&self) -> Option<usize> {
        let mut pending = self.pending.values();
        pending.find_map(|pending| pending.path.filter(|_| pending.writes_sized()))
    }

    /// Whether it writes to the file whose size changes, and has no answer.
    #[must_use]
    pub fn writes_sized(&self) -> bool {
        self.pending.values().any(Pending::writes_sized)
    }

    /// Writes to files beside its image that nobody was asked for, or nobody who is still there, are not asked for again.
    pub(crate) fn drop_puts(&mut self) {
        self.pending
            .retain(|_, pending| pending.path.is_some() || !pending.is_put());
    }

    /// Whether it works on the file whose size changes.
    #[must_use]
    pub fn resizes(&self) -> bool {
        self.resizes
    }

    /// The numbers of the operations without an answer.
    pub fn asked(&self) -> impl Iterator<Item = u64> {
        self.pending.keys().copied()
    }

    /// Bytes of the operations without an answer.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.pending.values().map(Pending::bytes).sum()
    }

    /// Operations without an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }
}

impl Path {
    fn new(gateway: usize) -> Path {
        Path {
            gateway,
            stream: None,
            session: None,
            ready: false,
            attempt: 0,
            since: Now(0),
        }
    }
}

fn writer_of(user: usize) -> u32 {
    u32::try_from(1 << 24 | user).expect("few users")
}

/// The name of an image in the tree.
#[must_use]
pub fn image_name(number: usize) -> String {
    format!("disk{number}")
}

impl World {
    /// Users begin.
    pub(crate) fn start_users(&mut self) {
        for user in 0..self.users.len() {
            let later = self.random.duration(Duration::ZERO..=Duration::from_secs(5));
            self.schedule.at(self.now + later, Event::User(user, UserEvent::Think));
            self.schedule.at(self.now + later, Event::User(user, UserEvent::Look));
            for path in 0..self.users[user].paths.len() {
                self.schedule
                    .at(self.now + later, Event::User(user, UserEvent::Connect(path, 0)));
            }
        }
    }

    /// A user does something by itself.
    pub(crate) fn user_acts(&mut self, user: usize, event: UserEvent) {
        match event {
            UserEvent::Think => self.user_thinks(user),
            UserEvent::Connect(path, attempt) => self.user_dials(user, path, attempt),
            UserEvent::Insist => self.insist(user),
            UserEvent::Leave => self.leave_unseen(user),
            UserEvent::Forsake(gateway) => self.user_forsakes(user, gateway),
            UserEvent::Disown(gateway) => self.user_disowns(user, gateway),
            UserEvent::Forget(number) => self.user_forgot(user, number),
            UserEvent::Look => {
                self.schedule.at(self.now + LOOK, Event::User(user, UserEvent::Look));
                self.user_looks(user);
            }
        }
    }

    fn user_dials(&mut self, user: usize, path: usize, attempt: u32) {
        let slot = &self.users[user].paths[path];
        if slot.attempt != attempt || slot.stream.is_some() {
            return;
        }
        let gateway = slot.gateway;
        let stream = self.connect(user, path, gateway);
        let slot = &mut self.users[user].paths[path];
        (slot.stream, slot.since) = (Some(stream), self.now);
        self.traffic.connections += 1;
    }

    /// A gateway has accepted the connection.
    pub(crate) fn user_connected(&mut self, user: usize, path: usize) {
        let slot = &mut self.users[user];
        let name = slot.image_name();
        let mut session: Box<dyn Session> = match slot.protocol {
            Protocol::Nbd => Box::new(NbdClient::new(&name)),
            Protocol::Iscsi => Box::new(IscsiInitiator::new(&name, user)),
            Protocol::Nfs => Box::new(NfsClient::new(user, &name, slot.handles.clone())),
        };
        let mut out = Vec::new();
        session.hello(&mut out);
        slot.paths[path].session = Some(session);
        self.user_sends(user, path, out);
    }

    /// Bytes came from a gateway.
    pub(crate) fn user_received(&mut self, user: usize, path: usize, bytes: &[u8]) {
        let Some(session) = &mut self.users[user].paths[path].session else {
            return;
        };
        let (mut out, mut said) = (Vec::new(), Vec::new());
        let result = session.receive(bytes, &mut out, &mut said);
        self.user_sends(user, path, out);
        for said in said {
            match said {
                Said::Ready => self.user_may_ask(user, path),
                Said::NotNow => self.user_gives_up(user, path, Leave::End),
                Said::Answer(number, answer) => self.user_answered(user, path, number, answer),
            }
        }
        if let Err(what) = result {
            self.fail(format!(
                "user {user} of gateway {}: {what}",
                self.users[user].paths[path].gateway
            ));
        }
    }

    fn user_may_ask(&mut self, user: usize, path: usize) {
        let slot = &mut self.users[user];
        slot.paths[path].ready = true;
        if let Some(handles) = slot.paths[path].session.as_ref().and_then(|session| session.handles()) {
            slot.handles = handles;
        }
        self.ask_again(user);
    }

    /// A connection is no more: what was asked on it is asked again elsewhere.
    pub(crate) fn user_lost(&mut self, user: usize, path: usize) {
        let gateways = self.gateways.len();
        let slot = &mut self.users[user];
        for pending in slot.pending.values_mut().filter(|pending| pending.path == Some(path)) {
            pending.path = None;
        }
        let elsewhere = gateways > slot.paths.len() && slot.random.one_in(2);
        let others: Vec<usize> = (0..gateways)
            .filter(|gateway| slot.paths.iter().all(|path| path.gateway != *gateway))
            .collect();
        let next = slot.random.pick(&others).copied().filter(|_| elsewhere);
        let later = Duration::from_millis(slot.random.range(RECONNECT.0..=RECONNECT.1));
        let lost = &mut slot.paths[path];
        lost.gateway = next.unwrap_or(lost.gateway);
        (lost.stream, lost.session, lost.ready) = (None, None, false);
        lost.attempt += 1;
        let event = UserEvent::Connect(path, lost.attempt);
        self.schedule.at(self.now + later, Event::User(user, event));
        self.ask_again(user);
    }

    /// A user gives a connection up.
    pub(crate) fn user_gives_up(&mut self, user: usize, path: usize, how: Leave) {
        if let Some(stream) = self.users[user].paths[path].stream {
            let is_cut = self
                .streams
                .is_cut(user, self.users[user].paths[path].gateway, self.now);
            self.user_leaves(stream, how);
            self.user_abandons(user, path);
            if how == Leave::Silence || is_cut {
                let mine = self.users[user].pending.values_mut();
                let mine = mine.filter(|pending| pending.path == Some(path));
                mine.for_each(|pending| pending.not_before = self.now + SILENT);
            }
            self.user_lost(user, path);
        }
    }

    /// A user that gives a connection up may not want what it asked for there any more.
    fn user_abandons(&mut self, user: usize, path: usize) {
        let slot = &mut self.users[user];
        let mut names = slot.pending.iter().filter(|(_, pending)| pending.path == Some(path));
        let Some((number, tree)) = names.find_map(|(number, pending)| Some((*number, pending.tree?))) else {
            return;
        };
        if slot.random.one_in(ABANDON) && self.tree.abandon(tree) {
            slot.pending.remove(&number);
            self.user_forgets(user, tree);
        }
    }

    /// Nobody asks for an operation any more: after a time it does not happen, either.
    pub(crate) fn user_forgets(&mut self, user: usize, number: u64) {
        self.schedule
            .at(self.now + FORGOTTEN, Event::User(user, UserEvent::Forget(number)));
    }

    /// That time is over. What the metadata store received while it was away it may do afterwards, and what a gateway had begun
    /// when its machine was paused it goes on with, if its lease lives on as well.
    fn user_forgot(&mut self, user: usize, number: u64) {
        let from = match self.any_gateway_stands_midway() {
            true => self.now,
            false => self.metadata.away_until,
        };
        let end = from + FORGOTTEN;
        if end > self.now {
            self.schedule.at(end, Event::User(user, UserEvent::Forget(number)));
        } else {
            self.tree.forget(number);
        }
    }

    /// Whether the machine of any gateway is paused, and its clock stands still, in the midst of changes of names.
    pub(crate) fn any_gateway_stands_midway(&self) -> bool {
        (0..self.gateways.len()).any(|number| {
            let stands = self.processes[self.gateway_place(number)].stands_since.is_some();
            stands && self.gateways[number].is_changing_names()
        })
    }

    /// Connections that are not made in time are tried again; impatient users give up those that do not answer.
    fn user_looks(&mut self, user: usize) {
        for path in 0..self.users[user].paths.len() {
            let slot = &self.users[user];
            let connection = &slot.paths[path];
            let dialing = connection.stream.is_some() && connection.session.is_none();
            let stuck = dialing && self.now.since(connection.since) > CONNECT;
            let mine = slot.pending.values().filter(|pending| pending.path == Some(path));
            let oldest = mine.map(|pending| pending.sent).min();
            let late = slot
                .patience
                .zip(oldest)
                .is_some_and(|(patience, sent)| self.now.since(sent) > patience);
            if late {
                self.counts.add(Trouble::GiveUp);
            }
            if stuck || late {
                let how = self.how_to_leave(user);
                self.user_gives_up(user, path, how);
            }
        }
        self.ask_again(user);
    }

    pub(crate) fn how_to_leave(&mut self, user: usize) -> Leave {
        let random = &mut self.users[user].random;
        *random
            .pick(&[Leave::End, Leave::Reset, Leave::Reset, Leave::Silence])
            .unwrap_or(&Leave::Reset)
    }
}
