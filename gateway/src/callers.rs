//! Whether those who ask are still there.
//!
//! A gateway that was stopped, or cut off, goes on with requests whose clients may have turned to another gateway long ago.
//! So each change goes to the OSDs with what is known of its caller ([`Caller`]): it was there after the last time at which
//! its connection had nothing unread and no end. A change that comes too late all the same is kept, and sent again when its
//! connection shows that the client is still there; of a connection that has ended nothing is sent any more. Changes of names
//! have no stamps: one that waited for long is begun only while something is heard of its client.
//!
//! What comes when this gateway was stopped for long waits for such a sign before it is looked at ([`crate::stops`]).
//! Decision 0012 has the reasons, and what is not promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_api::CallId;
use trivet_client::{Caller, Late, Presence};
use trivet_core::Now;

use crate::gateway::{Clock, ConnKey, Effect, Gateway, Origin};
use crate::options::mutant;
use crate::session::{Ending, Ticket};
use crate::stops::Doubt;

/// Callers of operations that take longer are looked for before their operations come late, and those in doubt.
const LONG: Duration = Duration::from_secs(1);
/// A connection is ended if one of its operations came late, or its input is doubted, and nothing was heard of its client
/// for this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the client of a connection.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// It was there after this: what is being received was not here yet.
    seen: Now,
    /// Something was heard of it after this.
    heard: Now,
    /// The bytes that it sent and that no request was made of.
    leftover: usize,
    /// They, and what is under way, may be of a client that is gone.
    doubt: Option<Doubt>,
    /// Its operations that are under way.
    pub ios: BTreeSet<u64>,
    /// Those that came late, why, and when that was known.
    late: BTreeMap<u64, (Late, Now)>,
}

impl Attendance {
    /// Of a client that connects.
    pub(crate) fn new(now: Now) -> Attendance {
        Attendance {
            seen: now,
            heard: now,
            leftover: 0,
            doubt: None,
            ios: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    /// There are `len` bytes that no request was made of, those beyond the leftover all later than `quiet`: the first
    /// request may have begun before.
    pub(crate) fn receives(&mut self, len: usize, quiet: Now) -> usize {
        if self.leftover == 0 {
            self.seen = quiet;
        }
        len.saturating_sub(self.leftover)
    }

    /// So many are left of them, where `fresh` were new: what is left began among the new ones unless it is more.
    pub(crate) fn received(&mut self, left: usize, fresh: usize, quiet: Now) {
        self.leftover = left;
        if left <= fresh {
            self.seen = self.seen.max(quiet);
        }
    }

    pub(crate) fn has_leftover(&self) -> bool {
        self.leftover > 0
    }

    /// It may be gone, and bytes of it still come.
    pub(crate) fn doubt(&mut self, now: Now) {
        match &mut self.doubt {
            Some(doubt) => doubt.grows(now),
            None => self.doubt = Some(Doubt::new(now)),
        }
    }

    /// Whether no request is made of the `len` bytes that there are.
    pub(crate) fn holds_back(&mut self, now: Now, len: usize) -> bool {
        let Some(doubt) = &mut self.doubt else { return false };
        if len > self.leftover {
            doubt.grows(now);
        }
        self.leftover = len;
        true
    }

    /// Whether a change of names that it asked for then may be done now. One that waited for long could come out after what
    /// it asked for elsewhere since.
    fn may_wish(&self, asked: Now, now: Now) -> bool {
        let heard = self.heard.max(self.seen);
        !self.is_doubted() && (now.since(asked) < LONG || Presence { heard, stood: now }.stands())
    }

    /// Whether bytes that it sends are held back.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Ends the doubt if its host acknowledged something after `heard` that says enough. All that is here was sent before
    /// the time that this returns.
    fn settle_doubt(&mut self, heard: Option<Now>) -> Option<Now> {
        let there = self.doubt.and_then(|doubt| doubt.resolved(heard))?;
        self.doubt = None;
        self.seen = self.seen.max(there);
        Some(there)
    }

    /// Since when something waits in vain for a sign of it.
    fn silent_since(&self) -> Option<Now> {
        let late = self.late.values().map(|(_, since)| *since);
        late.chain(self.doubt.map(|doubt| doubt.since())).min()
    }

    /// An operation has ended.
    pub(crate) fn ended(&mut self, io: u64) {
        self.ios.remove(&io);
        self.late.remove(&io);
    }

    /// Takes the operations for which this says more, and what is known of their caller. That a connection stands is enough
    /// for what was overtaken, while something was heard of the caller shortly before.
    fn take_seen(&mut self, stood: Now, heard: Option<Now>) -> BTreeMap<Presence, Vec<u64>> {
        self.heard = self.heard.max(self.seen).max(heard.unwrap_or_default());
        let standing = Presence {
            heard: self.heard,
            stood,
        };
        let mut seen: BTreeMap<Presence, Vec<u64>> = BTreeMap::new();
        for &io in &self.ios {
            let heard = |since: Now| heard.filter(|at| *at > since).map(Presence::heard);
            let presence = match self.late.get(&io) {
                Some((Late::Overtaken, since)) => {
                    heard(*since).or((stood > *since && standing.stands()).then_some(standing))
                }
                Some((Late::Outdated, since)) => heard(*since),
                None => heard(Now(0)),
            };
            if let Some(presence) = presence {
                seen.entry(presence).or_default().push(io);
            }
        }
        self.late.retain(|io, _| !seen.values().any(|ios| ios.contains(io)));
        seen
    }
}

/// Whether something is still wanted by whoever asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Yes.
    Stands,
    /// It was asked for long ago, and nothing was heard of its client lately.
    Unsure,
    /// No: its client is gone.
    Over,
}

impl Gateway {
    /// Ends a connection.
    pub(crate) fn end(&mut self, conn: ConnKey, ending: Ending, out: &mut Vec<Effect>) {
        out.push(Effect::Close(conn, ending));
        self.forsake(conn);
    }

    /// A client is gone: nothing of its operations is sent any more. Its session goes with the first tick of sessions that
    /// finds no change of names of it under way, so that what it keeps for repeated requests is complete.
    pub(crate) fn forsake(&mut self, conn: ConnKey) {
        // What it did not take and what it sent in part goes with it.
        self.unsent(conn, 0);
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.gone = true;
        connection.session.forsaken();
        connection.buffered = 0;
        connection.settle(self.clock.now, &mut self.memory);
        connection.attendance.late.clear();
        connection.attendance.doubt = None;
        if mutant!(self.options, SendForEnded) {
            return self.note_open(conn);
        }
        let ios: Vec<u64> = std::mem::take(&mut connection.attendance.ios).into_iter().collect();
        for io in &ios {
            if let Some(change) = self.forget_io(*io) {
                self.change_forsaken(change);
            }
        }
        self.forsake_waiting(conn);
        self.note_open(conn);
        self.client.forsake(self.clock.now, &ios, &mut self.from_client);
    }

    /// What an operation says of whoever wants it.
    pub(crate) fn caller_of(&self, origin: Origin) -> Caller {
        match origin {
            Origin::Session(conn, _) => {
                let connection = self.connections.get(&conn);
                let seen = connection.map_or(Now(0), |connection| connection.attendance.seen);
                Caller::Seen(Presence::heard(seen))
            }
            _ => Caller::Own,
        }
    }

    /// An operation came late: what is known of its caller has to be renewed.
    pub(crate) fn came_late(&mut self, io: u64, origin: Origin, why: Late, out: &mut Vec<Effect>) {
        let Origin::Session(conn, _) = origin else {
            unreachable!("this gateway knows that it is there itself")
        };
        let is_gone = self.connections.get(&conn).is_none_or(|connection| connection.gone);
        let believed = match is_gone {
            true => mutant!(self.options, SendForEnded),
            false => mutant!(self.options, BelievePresent),
        };
        if believed {
            let now = self.clock.now;
            return self
                .client
                .seen(now, &[io], Presence::heard(now), &mut self.from_client);
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.attendance.late.insert(io, (why, self.clock.now));
            out.push(Effect::Listen(conn));
        }
    }

    /// What is known of a client by now: its connection had no end at `stood`, and its host acknowledged something after
    /// `heard`. Whether more has to be known.
    pub fn attended(
        &mut self,
        clock: Clock,
        conn: ConnKey,
        stood: Now,
        heard: Option<Now>,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.at(clock);
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        let attendance = &mut connection.attendance;
        let settled = attendance.settle_doubt(heard);
        if !attendance.is_doubted() {
            for (presence, ios) in attendance.take_seen(stood, settled.or(heard)) {
                self.client.seen(clock.now, &ios, presence, &mut self.from_client);
            }
        }
        if settled.is_some() {
            out.push(Effect::Again(conn));
        }
        let more = connection.attendance.silent_since().is_some();
        self.work(out);
        more
    }

    /// Looks for the callers of operations that take long, and gives up those that are not heard of.
    pub(crate) fn look_for_callers(&mut self, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        let conns = self.connections.iter();
        let silent = |attendance: &Attendance| {
            let since = attendance.silent_since();
            since.is_some_and(|since| now.since(since) >= PATIENCE)
        };
        let mut lost: Vec<ConnKey> = conns
            .filter(|(_, c)| silent(&c.attendance))
            .map(|(&conn, _)| conn)
            .collect();
        lost.sort_unstable();
        for conn in lost {
            let reason = format!("nothing was heard of the client for {} s", PATIENCE.as_secs());
            self.end(conn, Ending::Fault(reason), out);
        }
        let is_long = |io: &u64| self.io_start(*io).is_some_and(|started| now.since(started) >= LONG);
        let conns = self.connections.iter();
        let mut waiting: Vec<ConnKey> = conns
            .filter(|(_, c)| c.attendance.is_doubted() || c.attendance.ios.iter().any(is_long))
            .map(|(&conn, _)| conn)
            .collect();
        let changes = self.changing.iter().filter(|(_, asked)| now.since(**asked) >= LONG);
        waiting.extend(changes.map(|((conn, _), _)| *conn));
        waiting.sort_unstable();
        waiting.dedup();
        out.extend(waiting.into_iter().map(Effect::Listen));
    }

    /// Whether a change of names is still wanted.
    pub(crate) fn wish(&self, origin: Origin) -> Wish {
        let (conn, ticket) = match origin {
            Origin::Session(conn, ticket) => (conn, ticket),
            Origin::Admin(number) => return self.calls.get(&number).map_or(Wish::Over, |(_, id)| self.wish_of(*id)),
            _ => return Wish::Stands,
        };
        let now = self.clock.now;
        let asked = self.changing.get(&(conn, ticket)).copied().unwrap_or(now);
        match self.connections.get(&conn).filter(|connection| !connection.gone) {
            _ if mutant!(self.options, PlanForAbsent) => Wish::Stands,
            None => Wish::Over,
            Some(connection) if connection.attendance.may_wish(asked, now) => Wish::Stands,
            Some(_) => Wish::Unsure,
        }
    }

    /// Whether what an administrator asked for is still wanted. One who gave up while this gateway was stopped is seen to be
    /// gone a moment after it goes on.
    pub(crate) fn wish_of(&self, call: CallId) -> Wish {
        match self.forsaken_calls.contains(&call) {
            true => Wish::Over,
            false if self.has_just_woken() => Wish::Unsure,
            false => Wish::Stands,
        }
    }

    /// Whether a change of names that a session asked for is not answered.
    pub(crate) fn is_changing(&self, conn: ConnKey) -> bool {
        let of_it = (conn, Ticket(0))..=(conn, Ticket(u64::MAX));
        self.changing.range(of_it).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_from_before_its_first_byte() {
        let mut attendance = Attendance::new(Now(1));
        // Bytes that are new, what is left of all that are there, quiet before the new ones; what is known of what is received.
        let table = [
            (100, 0, 10, 10),
            (100, 60, 20, 20),
            // The first request began with the 60 bytes.
            (50, 10, 30, 20),
            (40, 50, 40, 30),
            (40, 0, 50, 30),
            (1, 0, 60, 60),
        ];
        let mut there = 0;
        for (new, left, quiet, seen) in table {
            there += new;
            let fresh = attendance.receives(there, Now(quiet));
            assert_eq!((fresh, attendance.seen), (new, Now(seen)), "quiet at {quiet}");
            attendance.received(left, fresh, Now(quiet));
            there = left;
        }
    }

    #[test]
    fn what_was_overtaken_needs_less_than_what_is_old() {
        let mut attendance = Attendance::new(Now(1));
        attendance.ios.extend([1, 2, 3]);
        attendance.late.insert(1, (Late::Overtaken, Now(10)));
        attendance.late.insert(2, (Late::Outdated, Now(10)));
        let seen = |stood, heard: Option<u64>, attendance: &mut Attendance| {
            attendance
                .take_seen(Now(stood), heard.map(Now))
                .into_iter()
                .collect::<Vec<_>>()
        };
        let heard = |at: u64| Presence::heard(Now(at));
        assert_eq!(seen(10, None, &mut attendance), []);
        assert_eq!(seen(10, Some(10), &mut attendance), [(heard(10), vec![3])]);
        let stood = Presence {
            heard: Now(10),
            stood: Now(11),
        };
        assert_eq!(seen(11, None, &mut attendance), [(stood, vec![1])]);
        assert_eq!(seen(12, Some(12), &mut attendance), [(heard(12), vec![1, 2, 3])]);
        assert!(attendance.late.is_empty());
    }
    #[test]
    fn behind_a_cut_link_no_end_shows() {
        let mut attendance = Attendance::new(Now(0));
        attendance.ios.insert(1);
        let second = |n: u64| Now(n * 1_000_000_000);
        attendance.late.insert(1, (Late::Overtaken, second(2)));
        assert!(
            attendance.take_seen(second(3), None).is_empty(),
            "nothing was heard for 3 s"
        );
        let heard = Presence::heard(second(4));
        assert_eq!(
            attendance.take_seen(second(5), Some(second(4))),
            [(heard, vec![1])].into()
        );
        attendance.late.insert(1, (Late::Overtaken, second(4)));
        let stands = Presence {
            heard: second(4),
            stood: second(5),
        };
        assert_eq!(attendance.take_seen(second(5), None), [(stands, vec![1])].into());
    }
}
