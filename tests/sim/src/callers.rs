//! Who asks clients for operations, as the users of gateways do: they give up after a while, or at once when their client
//! dies, and ask another client for the same; their client hears a little later that they have left. While they are there,
//! it can see that. A client may also be fenced by another one.
//!
//! A repeated write is one of its own for the history, with a value of its own; when it is acknowledged, the first one must
//! have happened, or never will.

use std::time::Duration;

use trivet_client::{Late, Presence};
use trivet_core::kv::{Change, Compare, Txn};
use trivet_core::map::encode;
use trivet_core::{Now, PoolId, keys};

use crate::event::{Event, Life};
use crate::network::Place;
use crate::random::Random;
use crate::register::OpRef;
use crate::workload::{Action, Step};
use crate::world::{Phase, World};

/// The shortest and the longest that a caller waits who does not wait for ever.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// A client hears within this time that a caller has left, or that it is still there.
const HEARSAY: Duration = Duration::from_millis(30);
/// A fenced client that did not hear of it ends after this time at most.
const FENCED: Duration = Duration::from_secs(8);

/// Changes of one transaction at most.
const AT_ONCE: usize = 100;

/// A fence that a client puts up around another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Where the fenced one is.
    victim: usize,
    life: Life,
}

/// When a caller who begins to wait now gives up; never, for most.
pub fn patience(now: Now, random: &mut Random) -> Option<Now> {
    let (least, most) = PATIENCE;
    random.one_in(3).then(|| now + random.duration(least..=most))
}

impl World {
    /// Callers who waited long enough turn to other clients.
    pub(crate) fn lose_patience(&mut self) {
        if self.phase != Phase::Safety {
            return;
        }
        for index in 0..self.clients.len() {
            for ticket in self.clients[index].impatient(self.now) {
                self.turn_away(index, ticket, HEARSAY);
            }
        }
    }

    /// A caller leaves a client, which hears of it within some time, and asks another one for the same, if there is one.
    pub(crate) fn turn_away(&mut self, index: usize, ticket: u64, hearsay: Duration) {
        let Some(other) = self.another_client(index) else {
            return;
        };
        let place = self.client_place(index);
        let life = self.processes[place].life;
        let heard = self.now + self.random.duration(Duration::ZERO..=hearsay);
        self.schedule.at(heard, Event::Left(place, life, ticket));
        let slot = &mut self.clients[index];
        let running = slot.leave(ticket);
        self.repeat(other, running.action, running.step, running.attempts);
    }

    /// The same again through another client; `attempts` are those before.
    pub(crate) fn repeat(&mut self, index: usize, action: Action, step: (u64, u64, u64), attempts: Vec<OpRef>) {
        if !matches!(action, Action::Write(_)) {
            return attempts.into_iter().for_each(|op| self.history.end_unknown(op));
        }
        let writer = self.clients[index].writer(index);
        let step = self.workload.write_again(writer, step);
        self.submit_again(index, step, attempts);
    }

    /// A caller sends a request to a client that is stopped.
    pub(crate) fn ask_stopped(&mut self, place: Place) {
        let life = self.processes[place].life;
        let Some(index) = self.client_at(place).filter(|_| self.phase == Phase::Safety) else {
            return;
        };
        let pause = self.workload.pause(self.now);
        self.schedule.at(self.now + pause, Event::Submit(place, life));
        if let Some(step) = self.next_step(index) {
            let ticket = self.invoke(index, &step, Vec::new());
            let found = Event::Request(place, life, ticket, Box::new(step));
            self.processes[place].backlog.push(found);
        }
    }

    /// It goes on, and all that it knows of the caller is that it was not there yet before it was stopped.
    pub(crate) fn request_found(&mut self, place: Place, ticket: u64, step: Step) {
        let Some(index) = self.client_at(place) else { return };
        let stopped = self.processes[place].clock.local(self.processes[place].paused_at);
        self.begin(index, ticket, step, stopped);
    }

    /// A client that runs and knows of pools, other than this one.
    pub(crate) fn another_client(&mut self, index: usize) -> Option<usize> {
        let serves = |&other: &usize| {
            let process = &self.processes[self.client_place(other)];
            other != index && process.alive && !process.paused && self.clients[other].is_ready()
        };
        let others: Vec<usize> = (0..self.clients.len()).filter(serves).collect();
        (!others.is_empty()).then(|| others[self.random.index(others.len())])
    }

    /// A client asks whether the caller of an operation is still there: it is, or the client will hear that it is not.
    pub(crate) fn came_late(&mut self, index: usize, ticket: u64, why: Late) {
        let place = self.client_place(index);
        self.trace
            .line(self.now, format_args!("client {index}: {ticket} came late: {why:?}"));
        let life = self.processes[place].life;
        let heard = self.now + self.random.duration(Duration::from_nanos(1)..=HEARSAY);
        self.schedule.at(heard, Event::Seen(place, life, ticket));
    }

    /// A caller was still there a moment ago.
    pub(crate) fn caller_seen(&mut self, place: Place, ticket: u64) {
        let Some(index) = self.client_at(place) else { return };
        if self.clients[index].is_wanted(ticket) {
            self.client_step(index, |client, now, out| {
                client.seen(now, &[ticket], Presence::heard(now), out)
            });
        }
    }

    /// A client hears that a caller has left.
    pub(crate) fn caller_left(&mut self, place: Place, ticket: u64) {
        let Some(index) = self.client_at(place) else { return };
        self.clients[index].forget(ticket);
        self.client_step(index, |client, now, out| client.forsake(now, &[ticket], out));
    }

    /// OSDs execute operations of the client from now on.
    pub(crate) fn register(&mut self, index: usize) {
        let key = keys::client(self.clients[index].id);
        let change = Change::put(key, encode(&keys::ClientState {}));
        self.commit(vec![change]);
    }

    /// In a store that was put back, those clients are registered that were so before, and no others. Gateways see to
    /// themselves.
    pub(crate) fn register_anew(&mut self) {
        let living = self.clients.iter().filter(|slot| slot.is_registered());
        let living: Vec<String> = living.map(|slot| keys::client(slot.id)).collect();
        let known = self.clients.iter().flat_map(|slot| &slot.ids);
        let old = known.map(|id| keys::client(*id)).filter(|key| !living.contains(key));
        let deleted = old.filter(|key| self.kv.get(key).is_some()).map(Change::Delete);
        let put = |key| Change::put(key, encode(&keys::ClientState {}));
        let changes: Vec<Change> = living.iter().cloned().map(put).chain(deleted).collect();
        for some in changes.chunks(AT_ONCE) {
            self.commit(some.to_vec());
        }
    }

    /// Another client takes this one for dead and fences it: nothing of it is executed when that is done.
    pub(crate) fn fence(&mut self, victim: usize) -> Option<Duration> {
        let other = self.another_client(victim)?;
        let place = self.client_place(victim);
        let (life, key) = (self.processes[place].life, keys::client(self.clients[victim].id));
        self.clients[victim].is_fenced = true;
        self.commit(vec![Change::Delete(key)]);
        let revision = self.kv.revision();
        let fence = Fence { victim, life };
        self.trace.line(
            self.now,
            format_args!("client {other} fences client {victim} as of {revision}"),
        );
        let pools: Vec<PoolId> = self.truth.pools.keys().copied().collect();
        for pool in pools {
            let ticket = self.clients[other].new_fence(fence);
            self.client_step(other, |client, now, out| {
                client.barrier(now, ticket, pool, revision, out)
            });
        }
        let end = self.random.duration(Duration::from_secs(1)..=FENCED);
        self.schedule.at(self.now + end, Event::Kill(place, Duration::ZERO));
        Some(end)
    }

    /// The fence is complete: nothing of the fenced client happens any more.
    pub(crate) fn fenced(&mut self, fence: Fence) {
        let place = self.client_place(fence.victim);
        if self.processes[place].life != fence.life {
            return;
        }
        self.trace
            .line(self.now, format_args!("client {} is fenced", fence.victim));
        for op in self.clients[fence.victim].take_running() {
            self.history.end_unknown_by(op, self.now);
        }
        self.kill(place, Duration::ZERO);
    }

    pub(crate) fn commit(&mut self, changes: Vec<Change>) {
        let compare: Vec<Compare> = Vec::new();
        self.kv.transact(self.now, &Txn { compare, changes });
        self.committed();
    }
}
