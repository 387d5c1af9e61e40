//! The metadata store as the nodes of a run see it, from afar, and the monitors that live by it.
//!
//! The runner's part is played here as production plays it: leases are kept alive every second, a lease that was not
//! confirmed for its time to live counts as lost, and a new one is asked for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trivet_core::keys;
use trivet_core::kv::{Event as Change, LeaseId, Notice, Revision, Txn, TxnOutcome};
use trivet_core::{Now, PoolId};
use trivet_mon::Monitor;

use crate::event::{Answer, Ask, Event, Life};
use crate::mutants;
use crate::network::Place;
use crate::restore::Backup;
use crate::trouble::Trouble;
use crate::world::World;

/// A lease runs out if nobody keeps it alive for this long.
pub const LEASE: Duration = Duration::from_secs(5);
/// Leases are kept alive this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Nobody waits longer for the outcome of a transaction.
const GIVE_UP: Duration = Duration::from_secs(5);
/// A watch that reaches nobody tries again after this time.
const RETRY: Duration = Duration::from_millis(200);
/// Commits of which the time is remembered: those of some minutes.
const COMMITS: usize = 20_000;
/// Commits that the store remembers for watches.
const REMEMBERED: Revision = 200;

/// What is wrong with the metadata store.
#[derive(Debug, Default)]
pub struct Metadata {
    /// It answers nobody until then.
    pub away_until: Now,
    /// Leases do not run out until then.
    pub late_until: Now,
    /// Answers to transactions that get lost, per mille.
    pub unknown: u64,
    /// When the last commits were.
    pub commits: VecDeque<(Revision, Now)>,
    /// Counts the stores that took the place of the one before.
    pub era: u64,
    /// When the last one did.
    pub replaced: Now,
    /// It was wiped, and will be put back.
    pub is_empty: bool,
    /// A copy of it.
    pub backup: Option<Backup>,
}

impl Metadata {
    /// Everything works again.
    pub fn end_troubles(&mut self) {
        (self.away_until, self.late_until, self.unknown) = (Now(0), Now(0), 0);
    }

    /// Whether it answers nobody.
    #[must_use]
    pub fn is_away(&self, now: Now) -> bool {
        self.away_until > now
    }
}

/// A place for a monitor.
#[derive(Default)]
pub struct MonitorSlot {
    /// The machine, from the first lease of the process on.
    pub machine: Option<Monitor>,
    /// Which monitor it is.
    id: u64,
    /// Of its last transaction.
    ticket: u64,
    /// What it knew when it decided on that.
    knew: Revision,
    /// What it knows.
    knows: Revision,
}

impl MonitorSlot {
    /// The process has ended.
    pub fn end(&mut self) {
        self.machine = None;
    }
}

impl World {
    /// A process asks the metadata store.
    pub(crate) fn ask(&mut self, place: Place, ask: Ask) {
        let life = self.processes[place].life;
        let meta = self.meta();
        if let Some((when, connection)) = self.network.send(self.now, place, meta) {
            self.schedule
                .at(when, Event::Ask(place, life, connection, self.now, ask));
        }
    }

    /// A machine runs a transaction.
    pub(crate) fn transact(&mut self, place: Place, ticket: u64, txn: Txn) {
        self.trace
            .line(self.now, format_args!("place {place} transaction {ticket}: {txn:?}"));
        let process = &mut self.processes[place];
        process.txns.insert(ticket);
        let give_up = Event::GiveUp(place, process.life, ticket);
        self.schedule.at(self.now + GIVE_UP, give_up);
        self.ask(place, Ask::Txn(ticket, txn));
    }

    /// A request arrives at the metadata store.
    pub(crate) fn asked(&mut self, place: Place, life: Life, connection: u32, asked: Now, ask: Ask) {
        let meta = self.meta();
        if !self.network.arrives(place, meta, connection) {
            return;
        }
        if self.metadata.is_away(self.now) {
            // What was received by somebody who cannot do it now may be done later, or never.
            if self.random.one_in(2) {
                let when = self.metadata.away_until + self.random.duration(Duration::ZERO..=RETRY);
                self.schedule.at(when, Event::Ask(place, life, connection, asked, ask));
            }
            return;
        }
        let before = self.plan_revisions();
        let answer = self.execute(ask);
        self.committed();
        if self.processes[place].life == life {
            self.check_plan(place, &before);
        }
        let lost = matches!(answer, Some(Answer::Txn(..))) && self.random.below(1000) < self.metadata.unknown;
        if let Some(answer) = answer
            && !lost
            && let Some((when, connection)) = self.network.send(self.now, meta, place)
        {
            self.schedule
                .at(when, Event::Answer(place, life, connection, asked, answer));
        }
    }

    /// Plans are written by the monitor that leads, in place of those that it knows.
    fn check_plan(&mut self, place: Place, before: &BTreeMap<PoolId, Revision>) {
        let now = self.plan_revisions();
        let mut replaced = before
            .iter()
            .filter(|(pool, revision)| now.get(*pool) != Some(*revision));
        let unknown = |(_, revision): (&PoolId, &Revision), knew: Revision| *revision > knew;
        let Some(monitor) = self.monitor_at(place).filter(|_| now != *before) else {
            return;
        };
        let slot = &self.monitors[monitor];
        let leads = self
            .truth
            .leader
            .as_ref()
            .is_some_and(|leader| leader.value.id == slot.id);
        if !leads {
            self.fail(format!("monitor {monitor} wrote a plan and does not lead"));
        } else if replaced.any(|plan| unknown(plan, slot.knew)) {
            self.fail(format!("monitor {monitor} replaced a plan that it did not know"));
        }
    }

    fn plan_revisions(&self) -> BTreeMap<PoolId, Revision> {
        let plans = self.truth.plans.iter();
        plans.map(|(pool, plan)| (*pool, plan.revision)).collect()
    }

    fn execute(&mut self, ask: Ask) -> Option<Answer> {
        match ask {
            Ask::Txn(ticket, txn) => {
                let outcome = self.kv.transact(self.now, &txn);
                self.trace
                    .line(self.now, format_args!("transaction {ticket}: {outcome:?}"));
                Some(Answer::Txn(ticket, outcome))
            }
            Ask::Grant => Some(Answer::Granted(self.kv.grant(self.now, LEASE))),
            Ask::Keep(lease) => Some(Answer::Kept(lease, self.kv.keep_alive(self.now, lease))),
            Ask::Last(asked) => Some(Answer::Last(asked, self.kv.revision())),
            Ask::Revoke(lease) => {
                self.kv.revoke(lease);
                None
            }
        }
    }

    /// Something may have been committed: everybody who watches will hear of it.
    pub(crate) fn committed(&mut self) {
        if self.kv.own_revision() <= self.truth.revision {
            return;
        }
        let notice = self
            .kv
            .changes_since(self.truth.revision)
            .unwrap_or_else(|| self.kv.snapshot());
        self.truth.apply(&notice);
        self.look_for_truncation(&notice);
        self.look_for_calls(&notice);
        self.metadata.commits.push_back((self.truth.revision, self.now));
        if self.metadata.commits.len() > COMMITS {
            self.metadata.commits.pop_front();
        }
        if self.trace.is_read() {
            self.print(&notice);
        }
        if let Err(what) = self.online.claims(&self.truth) {
            self.fail(what);
        }
        self.kv.compact(self.kv.revision().saturating_sub(REMEMBERED));
        self.look_for_ambush();
        for place in 0..self.meta() {
            self.wake(place);
        }
    }

    fn print(&mut self, notice: &Notice) {
        let Notice::Changes { revision, events } = notice else {
            return;
        };
        for event in events {
            match event {
                Change::Put(kv) => {
                    let value = String::from_utf8_lossy(&kv.value);
                    self.trace
                        .line(self.now, format_args!("commit {revision}: {} = {value}", kv.key));
                }
                Change::Delete { key, .. } => {
                    self.trace
                        .line(self.now, format_args!("commit {revision}: {key} deleted"));
                }
            }
        }
    }

    /// The watch of a process will tell it what is new.
    pub(crate) fn wake(&mut self, place: Place) {
        let process = &mut self.processes[place];
        if !process.alive || process.watching {
            return;
        }
        process.watching = true;
        let life = process.life;
        let sent = self.network.send(self.now, self.processes.len(), place);
        let when = sent.map_or(self.now + RETRY, |(when, _)| when);
        self.schedule.at(when, Event::Watch(place, life));
    }

    /// A watch has something to say, if it can.
    pub(crate) fn watch(&mut self, place: Place, life: Life) {
        let meta = self.meta();
        let late = self.processes[place].watch_late;
        if self.network.is_blocked(meta, place) || self.metadata.is_away(self.now) {
            return self.schedule.at(self.now + RETRY, Event::Watch(place, life));
        }
        if late > self.now {
            return self.schedule.at(late, Event::Watch(place, life));
        }
        if let Some(notice) = self.news_of_store(place) {
            return self.notify(place, &notice);
        }
        let notice = match self.processes[place].watch {
            None if self.swarm.has(Trouble::StaleRead) && self.random.one_in(4) => {
                self.counts.add(Trouble::StaleRead);
                self.kv.stale_snapshot(&mut self.random)
            }
            None => self.kv.snapshot(),
            Some(revision) => self.kv.changes_since(revision).unwrap_or_else(|| self.kv.snapshot()),
        };
        self.notify(place, &notice);
    }

    /// A process hears what the metadata store says.
    pub(crate) fn notify(&mut self, place: Place, notice: &Notice) {
        let revision = notice.revision();
        let process = &mut self.processes[place];
        process.watch = Some(revision);
        process.watching = false;
        if revision < self.kv.own_revision() {
            self.wake(place);
        }
        if let Some(index) = self.gateway_at(place) {
            self.gateway_notice(index, notice);
        } else if let Some(notice) = before(keys::FOR_GATEWAYS, notice) {
            self.notify_of_cluster(place, &notice);
        }
    }

    /// A process that runs no gateway hears what it watches.
    fn notify_of_cluster(&mut self, place: Place, notice: &Notice) {
        if place < self.osds.len() {
            self.osd_step(place, trivet_osd::Event::Notice(notice.clone()));
        } else if let Some(index) = self.client_at(place) {
            self.client_notice(index, notice);
        } else if let Some(index) = self.monitor_at(place) {
            let slot = &mut self.monitors[index];
            if let Some(monitor) = &mut slot.machine {
                monitor.notice(notice);
                slot.knows = notice.known_after(slot.knows);
            }
            self.monitor_next(place, index);
        }
    }

    /// An answer of the metadata store arrives.
    pub(crate) fn answered(&mut self, place: Place, life: Life, connection: u32, asked: Now, answer: Answer) {
        let meta = self.meta();
        if !self.network.arrives(meta, place, connection) {
            return;
        }
        match answer {
            Answer::Txn(ticket, outcome) => self.outcome(place, ticket, outcome),
            Answer::Last(asked, revision) => {
                if let Some(index) = self.gateway_at(place) {
                    self.gateway_hears(index, asked, revision);
                    self.beat(index, revision);
                }
            }
            Answer::Granted(lease) if self.processes[place].lease.is_none() => {
                self.processes[place].kept = asked;
                self.has_lease(place, Some(lease));
            }
            Answer::Kept(lease, alive) if self.processes[place].lease == Some(lease) => {
                if alive {
                    let process = &mut self.processes[place];
                    process.kept = process.kept.max(asked);
                } else {
                    self.has_lease(place, None);
                    self.ask_for_lease(place, life);
                }
            }
            Answer::Granted(_) | Answer::Kept(..) => {}
        }
    }

    fn ask_for_lease(&mut self, place: Place, life: Life) {
        if self.processes[place].life == life {
            self.ask(place, Ask::Grant);
        }
    }

    /// Nobody waits for the outcome of a transaction any more.
    pub(crate) fn give_up(&mut self, place: Place, ticket: u64) {
        self.outcome(place, ticket, TxnOutcome::Unknown);
    }

    /// A transaction has ended for its machine, or its outcome will never be known.
    pub(crate) fn outcome(&mut self, place: Place, ticket: u64, outcome: TxnOutcome) {
        if !self.processes[place].txns.remove(&ticket) {
            return;
        }
        if place < self.osds.len() {
            self.osd_step(place, trivet_osd::Event::Txn(ticket, outcome));
        } else if let Some(index) = self.gateway_at(place) {
            self.gateway_outcome(index, ticket, outcome);
        } else if let Some(index) = self.monitor_at(place) {
            let slot = &mut self.monitors[index];
            if let Some(monitor) = &mut slot.machine
                && slot.ticket == ticket
            {
                monitor.ended(outcome);
            }
            self.monitor_next(place, index);
        }
    }

    /// A process got a lease, or has to believe that it lost it.
    fn has_lease(&mut self, place: Place, lease: Option<LeaseId>) {
        self.trace.line(self.now, format_args!("place {place} has {lease:?}"));
        self.processes[place].lease = lease;
        if place < self.osds.len() {
            return self.osd_step(place, trivet_osd::Event::Lease(lease));
        }
        if let Some((index, lease)) = self.gateway_at(place).zip(lease) {
            return self.show_gateway(index, lease);
        }
        let Some(index) = self.monitor_at(place) else { return };
        match (&mut self.monitors[index].machine, lease) {
            (Some(monitor), lease) => monitor.lease(lease),
            (None, None) => {}
            (None, Some(lease)) => {
                let id = self.random.draw();
                self.monitors[index].machine = Some(mutants::monitor(self.mutant, id, lease));
                self.monitors[index].id = id;
                self.monitors[index].knows = 0;
                self.processes[place].watch = None;
                self.wake(place);
            }
        }
    }

    /// Every second a process looks after its lease.
    pub(crate) fn renew(&mut self, place: Place, life: Life) {
        self.schedule.at(self.now + KEEP_ALIVE, Event::Renew(place, life));
        if self.processes[place].doubts_lease(self.now, LEASE) {
            self.has_lease(place, None);
        }
        match self.processes[place].lease {
            Some(lease) => self.ask(place, Ask::Keep(lease)),
            None => self.ask(place, Ask::Grant),
        }
        if let Some(index) = self.monitor_at(place) {
            self.monitor_next(place, index);
        }
        if self.gateway_at(place).is_some() {
            let asked = self.local(place);
            self.ask(place, Ask::Last(asked));
        }
    }

    fn monitor_next(&mut self, place: Place, index: usize) {
        let now = self.local(place);
        let slot = &mut self.monitors[index];
        let Some(txn) = slot.machine.as_mut().and_then(|monitor| monitor.next(now)) else {
            return;
        };
        slot.ticket += 1;
        slot.knew = slot.knows;
        let ticket = slot.ticket;
        self.transact(place, ticket, txn);
    }

    /// Leases run out, or do not.
    pub(crate) fn expire_leases(&mut self) {
        if self.metadata.is_away(self.now) || self.metadata.late_until > self.now {
            self.kv.extend_all(self.now);
        } else {
            self.kv.expire(self.now);
        }
        self.committed();
    }

    /// The lease of a process ends before its time.
    pub(crate) fn end_lease(&mut self, place: Place) {
        if let Some(lease) = self.processes[place].lease {
            self.kv.revoke(lease);
            self.committed();
        }
    }
}

/// What a notice says of the keys that sort before this one, to who watches only those; changes of others are not heard of.
fn before(end: &str, notice: &Notice) -> Option<Notice> {
    let mut notice = notice.clone();
    match &mut notice {
        Notice::Snapshot { keys, .. } | Notice::Replaced { keys, .. } => keys.retain(|kv| *kv.key < *end),
        Notice::Changes { events, .. } => {
            events.retain(|event| match event {
                Change::Put(kv) => *kv.key < *end,
                Change::Delete { key, .. } => **key < *end,
            });
            if events.is_empty() {
                return None;
            }
        }
    }
    Some(notice)
}
