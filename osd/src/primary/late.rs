//! Changes that come too late: in the step that gives a change its version, the primary asks whether whoever wants it was
//! known to be there lately, and whether another client has changed the same bytes since.
//!
//! A client that is stopped goes on with what it had been given, and the one who gave it may have turned to another client
//! long ago, and written anew. No clock of the stopped client tells: so each change carries its *stamp*, what this OSD's
//! clock was before its caller was known to be there. A change that is refused here has no outcome yet: its client sends it
//! again when it knows of the caller anew, or never.

use std::time::Duration;

use hashbrown::HashMap;
use trivet_core::message::{OpError, STAMP_LIFE};
use trivet_core::{ClientId, Now, ObjectId, Tick, UNITS_PER_OBJECT, UnitMask};

use crate::ctx::Ctx;
use crate::options::mutant;
use crate::primary::pg::Active;
use crate::primary::queue::Running;

/// Who changed objects in the last [`STAMP_LIFE`], and when; of what is older, it may know or not.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    young: HashMap<ObjectId, Touched>,
    old: HashMap<ObjectId, Touched>,
    /// Who changed anything last, and when; and when somebody else than that did last.
    anything: Unit,
    /// When `young` was begun.
    turned: Now,
    /// Whose turn it is.
    turns: HashMap<ObjectId, Turn>,
}

/// A client whose change was overtaken comes again at once, if its caller is there. Without a turn of its own it would be
/// overtaken again and again by one who is nearer.
#[derive(Debug)]
struct Turn {
    client: ClientId,
    units: UnitMask,
    until: Now,
}

/// How long it is somebody's turn: a round trip between a client and an OSD, and a few looks of both.
const TURN: Duration = Duration::from_millis(2);

/// What is known of one object.
#[derive(Debug)]
enum Touched {
    /// One client has changed these units, some of them at this time, none later.
    ByOne(ClientId, UnitMask, Now),
    /// Several have: unit by unit.
    BySeveral(Box<[Unit; UNITS_PER_OBJECT]>),
}

/// Who changed a unit last, and when; and when somebody else than that did last.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    last: Option<(ClientId, Now)>,
    others: Option<Now>,
}

impl Unit {
    fn note(&mut self, client: ClientId, now: Now) {
        if let Some((before, at)) = self.last
            && before != client
        {
            self.others = Some(at);
        }
        self.last = Some((client, now));
    }

    /// When another than `client` changed it last.
    fn by_others(&self, client: ClientId) -> Option<Now> {
        match self.last {
            Some((last, at)) if last != client => Some(at),
            _ => self.others,
        }
    }
}

impl Touched {
    fn note(&mut self, client: ClientId, units: UnitMask, now: Now) {
        if let Touched::ByOne(before, known, at) = self {
            if *before == client {
                (*known, *at) = (known.union(units), now);
                return;
            }
            let mut each = Box::new([Unit::default(); UNITS_PER_OBJECT]);
            known.iter().for_each(|unit| each[unit].note(*before, *at));
            *self = Touched::BySeveral(each);
        }
        if let Touched::BySeveral(each) = self {
            units.iter().for_each(|unit| each[unit].note(client, now));
        }
    }

    fn by_others(&self, client: ClientId, units: UnitMask) -> Option<Now> {
        match self {
            Touched::ByOne(by, known, at) => (*by != client && known.intersects(units)).then_some(*at),
            Touched::BySeveral(each) => units.iter().filter_map(|unit| each[unit].by_others(client)).max(),
        }
    }
}

impl Recent {
    /// A client changes units of an object.
    pub(crate) fn note(&mut self, object: ObjectId, client: ClientId, units: UnitMask, now: Now) {
        if now.since(self.turned) > STAMP_LIFE {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
            self.turns.retain(|_, turn| turn.until >= now);
        }
        let is_it = |turn: &Turn| turn.client == client && turn.units.intersects(units);
        if self.turns.get(&object).is_some_and(is_it) {
            self.turns.remove(&object);
        }
        self.anything.note(client, now);
        match self.young.get_mut(&object) {
            Some(touched) => touched.note(client, units, now),
            None => {
                self.young.insert(object, Touched::ByOne(client, units, now));
            }
        }
    }

    /// Whether it is the turn of another client to change some of the units.
    fn is_anothers_turn(&self, object: ObjectId, client: ClientId, units: UnitMask, now: Now) -> bool {
        let turn = self.turns.get(&object).filter(|turn| turn.until >= now);
        turn.is_some_and(|turn| turn.client != client && turn.units.intersects(units))
    }

    /// A change of the client was overtaken: it comes next.
    fn give_turn(&mut self, object: ObjectId, client: ClientId, units: UnitMask, now: Now) {
        if self.turns.get(&object).is_none_or(|turn| turn.until < now) {
            let until = now + TURN;
            self.turns.insert(object, Turn { client, units, until });
        }
    }

    /// Whether another client has changed some of the units since then.
    fn is_overtaken(&self, object: ObjectId, client: ClientId, units: UnitMask, since: Now) -> bool {
        // Mostly one client changes things at a time.
        if self.anything.by_others(client).is_none_or(|at| at < since) {
            return false;
        }
        let known = [self.young.get(&object), self.old.get(&object)];
        let by_others = known.into_iter().flatten().filter_map(|t| t.by_others(client, units));
        by_others.max().is_some_and(|at| at >= since)
    }
}

impl Active {
    /// Orders a change after all that came to its units before, if it may be executed now.
    ///
    /// # Errors
    /// Why it must not be.
    pub(crate) fn order(&self, ctx: &mut Ctx, object: ObjectId, order: &Order) -> Result<(), OpError> {
        let Order { client, stamp, units } = *order;
        if ctx.is_fenced(client) && !mutant!(ctx.options, ExecuteForFenced) {
            return Err(OpError::Unregistered);
        }
        let age = stamp.age(ctx.tick_now());
        if age > STAMP_LIFE && !mutant!(ctx.options, ExecuteOutdated) {
            return Err(OpError::Outdated);
        }
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let now = ctx.now;
        let since = Now(now.0.saturating_sub(age));
        let recent = &mut ctx.recent;
        let overtaken = recent.is_overtaken(object, client, units, since);
        if overtaken {
            recent.give_turn(object, client, units, now);
        }
        // What other primaries executed since then is not known here: it may be as late as this OSD's own beginning.
        let by_others = since <= self.active_since && !mutant!(ctx.options, ForgetOvertaking);
        let overtaken = overtaken || recent.is_anothers_turn(object, client, units, now) || by_others;
        if overtaken && !mutant!(ctx.options, ExecuteOvertaken) {
            return Err(OpError::Overtaken);
        }
        recent.note(object, client, units, now);
        Ok(())
    }

    /// Whether a change of a client that is not registered any more has its version, and is not on all members yet.
    pub(crate) fn runs_for_fenced(&self, ctx: &Ctx) -> bool {
        let running = self.queues.values().flat_map(|queue| &queue.running);
        let mut committing = running.filter(|running| running.has_version());
        committing.any(|running| ctx.is_fenced(running.client))
    }
}

/// What is asked about a change before it gets its version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub client: ClientId,
    pub stamp: Tick,
    pub units: UnitMask,
}

impl Order {
    pub(crate) fn of(running: &Running) -> Order {
        Order {
            client: running.client,
            stamp: running.op.stamp,
            units: running.op.action.units(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);
    const C: ClientId = ClientId(3);

    fn second(n: u64) -> Now {
        Now(n * 1_000_000_000)
    }

    #[test]
    fn what_others_changed_since_overtakes() {
        let object = ObjectId::default();
        let mut recent = Recent::default();
        let steps = [
            (A, 0b11, 10),
            (A, 0b10, 11),
            (B, 0b100, 12),
            (B, 0b10, 12),
            (A, 0b10, 13),
        ];
        for (client, units, at) in steps {
            recent.note(object, client, UnitMask(units), second(at));
        }
        // Who, which units, since when; whether it is overtaken.
        let table = [
            (A, 0b1, 10, false),
            (B, 0b1, 11, true),
            (B, 0b1, 12, false),
            (A, 0b10, 12, true),
            (A, 0b10, 13, false),
            (B, 0b10, 13, true),
            (B, 0b100, 10, false),
            (A, 0b111, 12, true),
            (C, 0b1000, 0, false),
        ];
        for (client, units, since, expected) in table {
            let found = recent.is_overtaken(object, client, UnitMask(units), second(since));
            assert_eq!(found, expected, "{client:?} {units:b} since {since}");
        }
    }

    #[test]
    fn who_was_overtaken_comes_next() {
        let object = ObjectId::default();
        let mut recent = Recent::default();
        let is_anothers = |recent: &Recent, client, at| recent.is_anothers_turn(object, client, UnitMask(0b1), Now(at));
        let turn = u64::try_from(TURN.as_nanos()).unwrap();
        recent.give_turn(object, A, UnitMask(0b11), Now(5));
        recent.give_turn(object, B, UnitMask(0b11), Now(6));
        assert!(is_anothers(&recent, B, 7) && !is_anothers(&recent, A, 7));
        assert!(!recent.is_anothers_turn(object, B, UnitMask(0b100), Now(7)));
        assert!(
            is_anothers(&recent, B, 5 + turn) && !is_anothers(&recent, B, 6 + turn),
            "it did not come"
        );
        recent.give_turn(object, B, UnitMask(0b11), Now(6 + turn));
        recent.note(object, A, UnitMask(0b1), Now(7 + turn));
        assert!(is_anothers(&recent, A, 7 + turn));
        recent.note(object, B, UnitMask(0b1), Now(8 + turn));
        assert!(!is_anothers(&recent, A, 8 + turn), "it has come");
    }

    #[test]
    fn what_counts_is_kept_and_the_rest_goes() {
        let object = |number| ObjectId {
            number,
            ..ObjectId::default()
        };
        let mut recent = Recent::default();
        for n in 0..100 {
            recent.note(object(n), A, UnitMask(1), second(n));
            let since = second(n.saturating_sub(3));
            for past in n.saturating_sub(3)..=n {
                assert!(
                    recent.is_overtaken(object(past), B, UnitMask(1), since),
                    "{past} at {n}"
                );
            }
        }
        assert!(recent.young.len() + recent.old.len() <= 9);
    }
}
