//! What the world does for clients: their operations, and what the history is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use trivet_client::{Caller, Client, Effect, IoError, Presence};
use trivet_core::kv::Notice;
use trivet_core::message::Message;
use trivet_core::{ClientId, NodeId, Now, OsdId};

use crate::callers::{Fence, patience};
use crate::event::{Event, Life};
use crate::mutants;
use crate::network::Place;
use crate::register::OpRef;
use crate::stamp;
use crate::users::UserSlot;
use crate::workload::{Action, Step};
use crate::world::{Phase, World};

/// With the metadata store up and the OSDs reachable no operation takes longer (promise P4).
pub const PATIENCE: Duration = Duration::from_secs(30);
/// An obsessed client has so many more operations under way.
const EAGER: usize = 6;
/// Parts of operations that a client has under way at most: each has fewer than this many.
const MAX_PARTS: usize = 256;

/// An operation that a client has under way.
#[derive(Clone, Debug)]
pub struct Running {
    op: OpRef,
    pub(crate) step: (u64, u64, u64),
    pub(crate) action: Action,
    since: Now,
    /// When its caller gives up.
    until: Option<Now>,
    /// The operations that were asked for the same before, and this one.
    pub(crate) attempts: Vec<OpRef>,
    /// Nobody waits for it any more.
    left: bool,
}

/// A place for a client: one process after the other, each with an id of its own.
pub struct ClientSlot {
    /// Of the client that is there now.
    pub id: ClientId,
    /// Of all that there were.
    pub(crate) ids: BTreeSet<ClientId>,
    machine: Option<Client>,
    writer: u32,
    ticket: u64,
    running: BTreeMap<u64, Running>,
    fences: BTreeMap<u64, Fence>,
    /// OSDs execute nothing of it any more.
    pub(crate) is_fenced: bool,
}

impl ClientSlot {
    /// A place without a client.
    #[must_use]
    pub fn new() -> ClientSlot {
        ClientSlot {
            id: ClientId(0),
            ids: BTreeSet::new(),
            machine: None,
            writer: 0,
            ticket: 0,
            running: BTreeMap::new(),
            fences: BTreeMap::new(),
            is_fenced: false,
        }
    }

    /// Whether there is a client that knows of pools.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.machine
            .as_ref()
            .is_some_and(|client| !client.map().pools.is_empty())
    }

    /// Operations without an answer that somebody waits for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.running.values().filter(|running| !running.left).count()
    }

    /// Whether OSDs execute operations of the client that is there.
    pub(crate) fn is_registered(&self) -> bool {
        self.machine.is_some() && !self.is_fenced
    }

    /// The tickets of operations that somebody waits for.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = u64> + '_ {
        let wanted = self.running.iter().filter(|(_, running)| !running.left);
        wanted.map(|(&ticket, _)| ticket)
    }

    /// Who writes what the client at this index writes.
    pub(crate) fn writer(&self, index: usize) -> u32 {
        u32::try_from(index).expect("few clients") << 16 | self.writer
    }

    /// The operations whose callers give up now.
    pub(crate) fn impatient(&self, now: Now) -> Vec<u64> {
        let gives_up = |running: &Running| !running.left && running.until.is_some_and(|until| until <= now);
        let running = self.running.iter().filter(|(_, running)| gives_up(running));
        running.map(|(&ticket, _)| ticket).collect()
    }

    /// The caller of an operation leaves.
    pub(crate) fn leave(&mut self, ticket: u64) -> Running {
        let running = self.running.get_mut(&ticket).expect("an operation under way");
        running.left = true;
        running.clone()
    }

    /// Whether somebody waits for an operation.
    pub(crate) fn is_wanted(&self, ticket: u64) -> bool {
        self.running.get(&ticket).is_some_and(|running| !running.left)
    }

    /// The client will hear no more of an operation.
    pub(crate) fn forget(&mut self, ticket: u64) {
        self.running.remove(&ticket);
    }

    /// The ticket of a fence, in one pool.
    pub(crate) fn new_fence(&mut self, fence: Fence) -> u64 {
        self.ticket += 1;
        self.fences.insert(self.ticket, fence);
        self.ticket
    }

    /// All operations that somebody waits for, with those before them, which are forgotten.
    pub(crate) fn take_running(&mut self) -> Vec<OpRef> {
        let running = std::mem::take(&mut self.running).into_values();
        running.filter(|r| !r.left).flat_map(|r| r.attempts).collect()
    }
}

impl Default for ClientSlot {
    fn default() -> ClientSlot {
        ClientSlot::new()
    }
}

impl World {
    pub(crate) fn start_client(&mut self, index: usize) {
        let id = ClientId(self.random.draw());
        let slot = &mut self.clients[index];
        slot.id = id;
        slot.ids.insert(id);
        slot.is_fenced = false;
        slot.writer += 1;
        slot.machine = Some(mutants::client(self.mutant, id));
        self.register(index);
    }

    pub(crate) fn client_died(&mut self, index: usize) {
        let slot = &mut self.clients[index];
        slot.machine = None;
        slot.fences.clear();
        self.copies.is_gone(slot.id);
        for running in std::mem::take(&mut slot.running).into_values() {
            self.lost_client(index, running);
        }
    }

    /// The connection breaks: some callers turn to another client at once.
    fn lost_client(&mut self, index: usize, running: Running) {
        if running.left {
            return;
        }
        let turns = self.swarm.callers_turn && self.phase == Phase::Safety && self.random.one_in(2);
        match self.another_client(index).filter(|_| turns) {
            Some(other) => self.repeat(other, running.action, running.step, running.attempts),
            None => running.attempts.into_iter().for_each(|op| self.history.end_unknown(op)),
        }
    }

    pub(crate) fn client_place(&self, index: usize) -> Place {
        self.osds.len() + index
    }

    /// One step of the machine, and what comes of it.
    pub(crate) fn client_step(&mut self, index: usize, step: impl FnOnce(&mut Client, Now, &mut Vec<Effect>)) {
        let now = self.local(self.client_place(index));
        let Some(machine) = self.clients[index].machine.as_mut() else {
            return;
        };
        let mut effects = std::mem::take(&mut self.client_effects);
        step(machine, now, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(osd, message) => {
                    if let Message::Op(op) = &message {
                        self.copies.asks(op);
                    }
                    let me = NodeId::Client(self.clients[index].id);
                    self.send(self.client_place(index), me, NodeId::Osd(osd), message);
                }
                Effect::Late(ticket, why) => self.came_late(index, ticket, why),
                Effect::Done(ticket, result) => self.ended(index, ticket, result),
                // What its callers say is true.
                Effect::Stood(_) => {}
            }
        }
        self.client_effects = effects;
    }

    pub(crate) fn client_tick(&mut self, index: usize) {
        self.client_step(index, |client, now, out| client.tick(now, out));
    }

    pub(crate) fn client_message(&mut self, index: usize, from: OsdId, message: Message) {
        self.client_step(index, |client, now, out| client.message(now, from, message, out));
    }

    pub(crate) fn client_lost(&mut self, index: usize, osd: OsdId) {
        self.client_step(index, |client, _, _| client.lost(osd));
    }

    pub(crate) fn client_notice(&mut self, index: usize, notice: &Notice) {
        self.client_step(index, |client, now, out| client.notice(now, notice, out));
    }

    /// A client thinks of its next operation.
    pub(crate) fn think(&mut self, place: Place, life: Life) {
        let Some(index) = self.client_at(place) else { return };
        if self.phase != Phase::Safety {
            return;
        }
        self.schedule
            .at(self.now + self.workload.pause(self.now), Event::Submit(place, life));
        if let Some(step) = self.next_step(index) {
            self.submit(index, step);
        }
    }

    /// What a client does next, if it has room for more.
    pub(crate) fn next_step(&mut self, index: usize) -> Option<Step> {
        let slot = &self.clients[index];
        let eager = if self.workload.is_obsessed(self.now) { EAGER } else { 0 };
        let room = slot.is_ready() && slot.running.len() < self.swarm.depth + eager;
        let client = u32::try_from(index).expect("few clients");
        let writer = slot.writer(index);
        room.then(|| self.workload.next(self.now, client, writer))
    }

    /// A client begins an operation.
    pub(crate) fn submit(&mut self, index: usize, step: Step) {
        self.submit_again(index, step, Vec::new());
    }

    /// The same, after so many attempts elsewhere.
    pub(crate) fn submit_again(&mut self, index: usize, step: Step, attempts: Vec<OpRef>) {
        let ticket = self.invoke(index, &step, attempts);
        let now = self.local(self.client_place(index));
        self.begin(index, ticket, step, now);
    }

    /// The machine hears of an operation whose caller was there after `seen`, by its clock.
    pub(crate) fn begin(&mut self, index: usize, ticket: u64, step: Step, seen: Now) {
        self.client_step(index, |client, now, out| {
            client.submit(
                now,
                ticket,
                step.image,
                step.op,
                Caller::Seen(Presence::heard(seen)),
                out,
            );
        });
    }

    /// A caller wants an operation: the history knows, the machine does not yet.
    pub(crate) fn invoke(&mut self, index: usize, step: &Step, mut attempts: Vec<OpRef>) -> u64 {
        let op = step.invoke(self.now, &mut self.history);
        let slot = &mut self.clients[index];
        slot.ticket += 1;
        let ticket = slot.ticket;
        let (image, first, sectors) = (step.image, step.first, step.sectors);
        self.trace.line(
            self.now,
            format_args!(
                "client {index} begins {ticket}: {:?} of {image} {first}+{sectors}",
                step.action
            ),
        );
        attempts.push(op);
        let until = patience(self.now, &mut self.random).filter(|_| self.swarm.callers_turn);
        let running = Running {
            op,
            step: (image.0, first, sectors),
            action: step.action,
            since: self.now,
            until,
            attempts,
            left: false,
        };
        self.clients[index].running.insert(ticket, running);
        ticket
    }

    /// An operation was answered.
    fn ended(&mut self, index: usize, ticket: u64, result: Result<Vec<Bytes>, IoError>) {
        let outcome = result.as_ref().map(|_| "ok");
        self.trace
            .line(self.now, format_args!("client {index} ends {ticket}: {outcome:?}"));
        if let Some(fence) = self.clients[index].fences.remove(&ticket) {
            // Another pool may still be asked.
            if !self.clients[index].fences.values().any(|other| *other == fence) {
                self.fenced(fence);
            }
            return;
        }
        let Some(mut running) = self.clients[index].running.remove(&ticket) else {
            return self.fail(format!("client {index}: operation {ticket} answered twice"));
        };
        if running.left {
            return;
        }
        running.attempts.pop();
        for before in std::mem::take(&mut running.attempts) {
            match result {
                Ok(_) => self.history.end_unknown_by(before, self.now),
                Err(_) => self.history.end_unknown(before),
            }
        }
        match result {
            Err(error) => self.refused(index, &running, error),
            Ok(segments) if running.action == Action::Read => self.was_read(&running, &segments),
            Ok(_) => self.history.end_ok(running.op, self.now),
        }
    }

    fn refused(&mut self, index: usize, running: &Running, error: IoError) {
        self.history.end_failed(running.op);
        if !self.may_fail(error, running.action, running.since) {
            let (image, first, sectors) = running.step;
            let action = running.action;
            self.fail(format!(
                "client {index}: {action:?} of {image:x} {first}+{sectors}: {error}"
            ));
        }
    }

    /// Whether an operation that was begun then may end with this error.
    pub(crate) fn may_fail(&self, error: IoError, action: Action, since: Now) -> bool {
        match error {
            IoError::NoSpace => self.swarm.tight && action != Action::Read,
            // While other faults keep copies away, a read that fails once may hit the only one there is.
            IoError::Damaged => {
                let kept_away = !self.nemesis.is_idle(since);
                self.swarm.hostile || (kept_away && self.atlas.was_hurt(since))
            }
            IoError::NoPool => false,
        }
    }

    fn was_read(&mut self, running: &Running, segments: &[Bytes]) {
        let (image, first, _) = running.step;
        match stamp::parse_all(segments, image, first) {
            Err((sector, lie)) => self.fail(format!("image {image:x} sector {sector}: {lie}")),
            Ok(contents) => {
                if let Err(violation) = self.history.end_read(running.op, self.now, &contents) {
                    self.fail(violation.to_string());
                }
            }
        }
    }

    /// The first operations without an answer, by client.
    pub(crate) fn who_waits(&self) -> String {
        let slots = (0..).zip(&self.clients);
        let waiting = slots.flat_map(|(index, slot): (usize, _)| slot.unanswered().map(move |ticket| (index, ticket)));
        let of_clients = waiting.map(|(index, ticket)| format!("{ticket} of client {index}"));
        let users = self.users.iter().enumerate();
        let of_users =
            users.flat_map(|(user, slot)| slot.asked().map(move |number| format!("{number} of user {user}")));
        let some: Vec<String> = of_clients.chain(of_users).take(8).collect();
        some.join(", ")
    }

    /// Operations without an answer, of all clients and users.
    pub(crate) fn waiting(&self) -> usize {
        let clients = self.clients.iter().map(ClientSlot::waiting);
        clients.chain(self.users.iter().map(UserSlot::waiting)).sum()
    }

    /// Nothing waits for too long, or too much at once.
    pub(crate) fn watch_clients(&mut self) {
        if !self.is_quiet() {
            self.quiet_since = self.now;
        }
        let parts = |slot: &ClientSlot| slot.machine.as_ref().map_or(0, Client::in_flight);
        let oldest = self
            .clients
            .iter()
            .flat_map(|slot| slot.running.values().filter(|running| !running.left));
        let users = self.users.iter().filter_map(UserSlot::oldest);
        let oldest = oldest.map(|running| (running.since, running.step)).chain(users).min();
        if let Some(slot) = self
            .clients
            .iter()
            .find(|slot| parts(slot) > (slot.running.len() + slot.fences.len()) * MAX_PARTS)
        {
            let parts = parts(slot);
            self.fail(format!("a client has {parts} parts of operations under way"));
        } else if let Some((since, step)) = oldest
            && self.phase == Phase::Safety
            && !(self.swarm.hostile || self.swarm.tight)
            && self.now.since(since.max(self.quiet_since)) > PATIENCE
        {
            let state = self.describe();
            self.fail(format!(
                "an operation on {step:x?} waits since {} s: {state}",
                since.0 / 1_000_000_000
            ));
        }
    }
}
