//! One budget for the memory that clients' data takes, divided fairly.
//!
//! Counted is what each connection has of requests under way (of a client that is gone nothing is kept), what it has sent and nobody has taken up yet, and what it was answered and has not taken. A connection may have
//! half of what is left: so a single one gets a third of the budget, of `n` busy ones each gets the same, whoever has most
//! stops first, and something is always left for who comes next. [`SHARE`] everybody has in any case.
//!
//! A message that is larger than [`SHARE`] is counted whole before it is received, or not received yet: what has begun can
//! always be received to its end, so connections never wait for each other with half a message each.

use std::time::Duration;

use trivet_core::Now;

use crate::gateway::{ConnKey, Connection, Effect, Gateway};
use crate::options::{Options, mutant};
use crate::session::Ending;

/// The budget of a gateway that was not told another one, bytes.
pub const BUDGET: usize = 256 << 20;
/// What every connection may have, however little is left, bytes.
const SHARE: usize = 256 << 10;
/// A message larger than [`SHARE`] must be whole after this time when others wait for memory.
const WHOLE: Duration = Duration::from_secs(60);

/// The budget, and what is taken of it.
#[derive(Debug)]
pub(crate) struct Memory {
    pub options: Options,
    pub budget: usize,
    pub used: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            options: Options::default(),
            budget: BUDGET,
            used: 0,
        }
    }
}

/// What one connection has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Bytes of requests under way.
    pub under_way: usize,
    /// Bytes of the message that is being received, as far as they came or, if it was admitted, all of it.
    pub input: usize,
    /// Bytes of answers that the client has not taken.
    pub unsent: usize,
    /// Since when a large message has been received.
    pub admitted: Option<Now>,
    /// It is not read from because too little is left.
    pub waits: bool,
}

impl Account {
    fn total(&self) -> usize {
        self.under_way + self.input + self.unsent
    }
}

impl Memory {
    /// What a connection may have that has `own` of it now.
    fn limit(&self, own: usize) -> usize {
        let others = self.used.saturating_sub(own);
        // A third of what the others leave: then it has half of what is left beside it.
        (self.budget.saturating_sub(others) / 3).max(SHARE)
    }

    /// Takes in what a connection has now, of which `buffered` bytes begin a message of `message` bytes, if that is known.
    pub(crate) fn settle(
        &mut self,
        now: Now,
        account: &mut Account,
        under_way: usize,
        buffered: usize,
        message: usize,
    ) {
        let before = account.total();
        account.under_way = under_way;
        let large = message > SHARE && message > buffered;
        account.admitted = account.admitted.filter(|_| large);
        account.input = buffered;
        let limit = self.limit(before);
        if large {
            let wanted = under_way + account.unsent + message;
            // One that is alone gets what it takes: there is nobody to wait for.
            let fits = wanted <= limit || self.used <= before;
            if account.admitted.is_some() || fits {
                account.admitted.get_or_insert(now);
                account.input = message;
            }
        }
        account.waits = account.admitted.is_none() && (large || account.total() > limit);
        self.used = (self.used + account.total()).saturating_sub(before);
    }
}

impl Connection {
    /// Takes in what it has now.
    pub(crate) fn settle(&mut self, now: Now, memory: &mut Memory) {
        // Of a client that is gone nothing more comes, and nothing is kept of what it sent or asked for.
        let (buffered, message, held) = match self.gone && !mutant!(memory.options, KeepForEnded) {
            true => (0, 0, 0),
            false => {
                let message = self.buffered.saturating_add(self.session.hint());
                (self.buffered, message, self.session.held())
            }
        };
        memory.settle(now, &mut self.account, held, buffered, message);
    }
}

impl Gateway {
    /// Sets the budget for clients' data, bytes.
    pub fn set_budget(&mut self, bytes: usize) {
        self.memory.budget = bytes;
    }

    /// The bytes of clients' data that it has.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.memory.used
    }

    /// Connections that are not read from because too little of the budget is left.
    pub(crate) fn waiting_for_memory(&self) -> u64 {
        let waiting = self.connections.values().filter(|c| c.account.waits && !c.gone);
        waiting.count() as u64
    }

    /// So many bytes of answers wait for a client to take them.
    pub fn unsent(&mut self, conn: ConnKey, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            let account = &mut connection.account;
            self.memory.used = (self.memory.used + bytes).saturating_sub(account.unsent);
            account.unsent = bytes;
        }
    }

    /// Counts anew, lets go on who waited and may, and closes who keeps others waiting with half a message.
    pub(crate) fn look_at_memory(&mut self, out: &mut Vec<Effect>) {
        self.memory.used = self.connections.values().map(|c| c.account.total()).sum();
        let mut waiting = self.conns_where(|c| c.account.waits && !c.gone);
        if waiting.is_empty() {
            return;
        }
        waiting.sort_by_key(|conn| self.connections.get(conn).map(|c| (c.account.total(), *conn)));
        for conn in waiting {
            self.settle(conn, None, out);
        }
        let now = self.clock.now;
        let late = |c: &Connection| c.account.admitted.is_some_and(|since| now.since(since) >= WHOLE);
        for conn in self.conns_where(late) {
            let why = "others wait for memory, and a message is not whole after 60 s";
            self.end(conn, Ending::Fault(why.to_owned()), out);
        }
    }

    /// Connections of which something is true, in order.
    fn conns_where(&self, is: impl Fn(&Connection) -> bool) -> Vec<ConnKey> {
        let found = self.connections.iter().filter(|(_, connection)| is(connection));
        let mut conns: Vec<ConnKey> = found.map(|(&conn, _)| conn).collect();
        conns.sort_unstable();
        conns
    }

    /// Takes in what a connection has, and stops or goes on reading from it; `buffered` if its input changed.
    pub(crate) fn settle(&mut self, conn: ConnKey, buffered: Option<usize>, out: &mut Vec<Effect>) {
        let now = self.clock.now;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.buffered = buffered.unwrap_or(connection.buffered);
            connection.settle(now, &mut self.memory);
            out.extend(connection.pause_or_go_on(conn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn memory() -> Memory {
        Memory {
            budget: 256 * MIB,
            ..Memory::default()
        }
    }

    /// Connections that take as much as they may in pieces of 64 KiB; what each has in the end.
    fn filled(memory: &mut Memory, count: usize) -> Vec<usize> {
        let mut accounts = vec![Account::default(); count];
        loop {
            let before = memory.used;
            for account in &mut accounts {
                if !account.waits {
                    memory.settle(Now(0), account, account.under_way + MIB / 16, 0, 0);
                }
            }
            if memory.used == before {
                return accounts.iter().map(Account::total).collect();
            }
        }
    }

    #[test]
    fn all_get_the_same_and_something_is_left() {
        for count in [1, 2, 5, 50, 200] {
            let mut memory = memory();
            let had = filled(&mut memory, count);
            let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
            assert!(most - least <= MIB / 8, "{count}: {least} to {most}");
            let fair = (256 * MIB / (count + 2)).max(SHARE);
            assert!(*most <= fair + MIB / 8, "{count}: {most}, not {fair}");
            assert_eq!(memory.used, had.iter().sum::<usize>());
        }
    }

    #[test]
    fn who_comes_late_gets_a_share_and_who_has_most_stops() {
        let mut memory = memory();
        let first = filled(&mut memory, 1);
        let second = filled(&mut memory, 1);
        assert!(first[0] > 80 * MIB && second[0] > 50 * MIB, "{first:?} {second:?}");
        memory.used = 400 * MIB;
        let late = filled(&mut memory, 1);
        assert!((SHARE..2 * SHARE).contains(&late[0]), "{late:?}");
    }

    #[test]
    fn large_messages_are_received_whole_or_not_begun() {
        let mut memory = memory();
        let mut accounts = vec![Account::default(); 100];
        for account in &mut accounts {
            memory.settle(Now(0), account, 0, 4096, 32 * MIB);
        }
        let begun: Vec<_> = accounts.iter().map(|account| account.admitted.is_some()).collect();
        let count = begun.iter().filter(|begun| **begun).count();
        assert!((3..8).contains(&count), "{count}");
        assert!(accounts.iter().all(|a| a.waits == a.admitted.is_none()));
        assert!(memory.used <= 256 * MIB);
        // Those that have begun go on however much others take meanwhile.
        memory.used += 300 * MIB;
        memory.settle(Now(1), &mut accounts[0], 0, 20 * MIB, 32 * MIB);
        assert!(!accounts[0].waits && accounts[0].input == 32 * MIB);
        memory.used -= 300 * MIB;
        for account in &mut accounts {
            if account.admitted.is_some() {
                memory.settle(Now(2), account, 0, 0, 0);
            }
        }
        let waiting = accounts.last_mut().unwrap();
        memory.settle(Now(3), waiting, 0, 4096, 32 * MIB);
        assert!(!waiting.waits, "there is room again");
    }

    #[test]
    fn a_message_larger_than_any_share_passes_when_nobody_else_has_anything() {
        let mut memory = Memory {
            budget: 16 * MIB,
            ..Memory::default()
        };
        let mut account = Account::default();
        memory.settle(Now(0), &mut account, 0, 4096, 64 * MIB);
        assert!(!account.waits);
        memory.settle(Now(0), &mut account, 64 * MIB, 0, 0);
        assert!(account.waits, "no further ones until this is done");
        memory.settle(Now(0), &mut account, 0, 0, 0);
        assert!(!account.waits && memory.used == 0);
    }
}
