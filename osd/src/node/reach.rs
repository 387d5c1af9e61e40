//! Pings: a primary asks the members of its PGs whether they are there and whether its epochs are still the accepted
//! ones. The answers say who can be counted on, and for how long reads may be answered from the own copy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trivet_core::message::{LEASE, Message};
use trivet_core::{Epoch, NodeId, Now, OsdId, PgId};

use crate::Osd;
use crate::ctx::Ctx;
use crate::primary::pg::Active;

/// How often members are asked: three times in the life of a promise.
const INTERVAL: Duration = Duration::from_millis(200);

/// Who has not answered for this long is not counted on.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// A gap between two ticks of this length means that this OSD itself was stopped: the silence of others proves nothing.
const OWN_PAUSE: Duration = Duration::from_secs(1);

/// Who answers.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    pinged_at: Now,
    ticked_at: Now,
    /// When each OSD answered last, or was first asked.
    heard: BTreeMap<OsdId, Now>,
    /// OSDs that do not listen any more, with the start that did.
    gone: BTreeMap<OsdId, u64>,
    /// Those that were told to be lost, with the start that was meant.
    reported: BTreeMap<OsdId, u64>,
    /// The first and the last PG that each ping was about, as long as its answer confirms anything.
    asked_about: BTreeMap<(OsdId, Now), (PgId, PgId)>,
}

impl Reach {
    /// Whether an OSD was asked for a while and did not answer.
    pub(crate) fn is_silent(&self, osd: OsdId, now: Now) -> bool {
        self.heard.get(&osd).is_some_and(|&at| now.since(at) >= SILENT_AFTER)
    }

    /// Nobody listens where this start of the OSD did.
    pub(crate) fn gone(&mut self, osd: OsdId, boot: u64) {
        self.gone.insert(osd, boot);
    }

    /// Whether it is known that this start of the OSD has ended.
    pub(crate) fn is_gone(&self, osd: OsdId, boot: u64) -> bool {
        self.gone.get(&osd) == Some(&boot)
    }

    /// Those who do not answer.
    pub(crate) fn silent(&self, now: Now) -> Vec<OsdId> {
        self.heard
            .keys()
            .copied()
            .filter(|&osd| self.is_silent(osd, now))
            .collect()
    }

    /// How many are asked.
    pub(crate) fn asked(&self) -> usize {
        self.heard.len()
    }

    /// Whether the loss of this start of an OSD is to be told, which it then is.
    pub(crate) fn may_report(&mut self, osd: OsdId, boot: u64) -> bool {
        self.reported.insert(osd, boot) != Some(boot)
    }

    /// The loss of an OSD may not have been told after all.
    pub(crate) fn not_reported(&mut self, osd: OsdId) {
        self.reported.remove(&osd);
    }

    /// The PGs between these two, in a ping of that instant, are to be confirmed; what was asked too long ago is
    /// forgotten.
    fn asks_about(&mut self, osd: OsdId, sent: Now, pgs: (PgId, PgId)) {
        self.asked_about.insert((osd, sent), pgs);
    }

    fn forget_asked(&mut self, now: Now) {
        self.asked_about.retain(|(_, sent), _| now.since(*sent) < LEASE);
    }

    /// An OSD answered.
    fn hears(&mut self, osd: OsdId, now: Now) {
        self.heard.insert(osd, now);
        self.gone.remove(&osd);
        self.reported.remove(&osd);
    }

    fn ticked(&mut self, now: Now) {
        if now.since(self.ticked_at) >= OWN_PAUSE {
            self.heard.clear();
        }
        self.ticked_at = now;
    }
}

impl Osd {
    /// Asks everybody who matters to the PGs of this OSD.
    pub(crate) fn ping_all(&mut self) {
        let now = self.ctx.now;
        let reach = &mut self.ctx.reach;
        reach.ticked(now);
        if now.since(reach.pinged_at) < INTERVAL {
            return;
        }
        reach.pinged_at = now;
        let asked = self.whom_to_ping();
        let reach = &mut self.ctx.reach;
        reach.heard.retain(|osd, _| asked.contains_key(osd));
        reach.forget_asked(now);
        for (osd, pgs) in asked {
            self.ctx.reach.heard.entry(osd).or_insert(now);
            self.ctx.ping(osd, pgs);
        }
    }

    /// The OSDs of the up sets and memberships of the PGs that this OSD acts for or should, with the PGs that they are to
    /// confirm: those whose epoch was accepted by all members, for their reads wait for that.
    fn whom_to_ping(&self) -> BTreeMap<OsdId, Vec<(PgId, Epoch)>> {
        let mut asked: BTreeMap<OsdId, Vec<(PgId, Epoch)>> = BTreeMap::new();
        for pg in self.pgs.values() {
            for &osd in pg.membership.asked.keys() {
                asked.entry(osd).or_default();
            }
            for osd in pg.accepted().into_iter().flat_map(Active::others) {
                asked.entry(osd).or_default().push((pg.id, pg.epoch));
            }
        }
        for osd in self.ctx.planned_peers() {
            asked.entry(osd).or_default();
        }
        asked.retain(|osd, _| *osd != self.id() && self.ctx.map.is_up(*osd));
        asked
    }

    /// A member answers.
    pub(crate) fn ponged(&mut self, from: OsdId, sent: Now, free: u64, refused: &[(PgId, Epoch)]) {
        let ctx = &mut self.ctx;
        if ctx.now.since(sent) < SILENT_AFTER {
            ctx.reach.hears(from, ctx.now);
        }
        ctx.has_room(from, sent, free);
        for &(id, accepted) in refused {
            if let Some(pg) = self.pgs.get_mut(&id).filter(|pg| pg.epoch < accepted) {
                pg.refused(ctx, accepted);
            }
        }
        // Nobody asked that, or too long ago.
        let Some(&(first, last)) = ctx.reach.asked_about.get(&(from, sent)) else {
            return;
        };
        let refused: BTreeSet<PgId> = refused.iter().map(|(pg, _)| *pg).collect();
        for (id, pg) in self.pgs.range_mut(first..=last) {
            if let Some(active) = pg.accepted_mut().filter(|_| !refused.contains(id)) {
                active.confirmed_by(ctx, from, sent);
            }
        }
    }
}

impl Ctx {
    /// One message, or several: then each has an instant of its own, a nanosecond before the last one's, by which its
    /// answer is known.
    fn ping(&mut self, osd: OsdId, mut pgs: Vec<(PgId, Epoch)>) {
        let mut sent = self.now;
        loop {
            let rest = pgs.split_off(pgs.len().min(self.options.pgs_per_ping));
            if let (Some(&(first, _)), Some(&(last, _))) = (pgs.first(), pgs.last()) {
                self.reach.asks_about(osd, sent, (first, last));
            }
            self.send(NodeId::Osd(osd), Message::Ping { sent, pgs });
            if rest.is_empty() {
                return;
            }
            pgs = rest;
            sent = Now(sent.0.saturating_sub(1));
        }
    }

    /// Everybody in an up set or history of a PG that this OSD is to lead.
    fn planned_peers(&self) -> BTreeSet<OsdId> {
        let mut peers = BTreeSet::new();
        for id in self.planned() {
            let planned = self.map.plan_of(id);
            peers.extend(planned.into_iter().flat_map(|plan| plan.osds.iter().copied()));
            if let Some(history) = self.map.history(id) {
                let acted = history.intervals.iter().flat_map(|interval| &interval.acting);
                peers.extend(acted.copied());
            }
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::PoolId;
    use trivet_core::keys::OsdState;
    use trivet_core::map::Versioned;
    use trivet_core::message::PING_LIMIT;
    use trivet_store::Store;
    use trivet_store::api::Output;

    use super::*;
    use crate::primary::pg::{Membership, Pg};
    use crate::{Effect, Identity, Options};

    const ME: OsdId = OsdId(1);
    const MEMBER: OsdId = OsdId(2);

    /// An OSD that acts for so many PGs, all with the same member.
    fn primary_of(count: usize) -> Osd {
        let mut output = Output::default();
        let store = Store::open(1 << 30, trivet_store::Options::default(), &mut output);
        let identity = Identity {
            id: ME,
            boot: 1,
            size: 1 << 30,
            address: None,
        };
        let mut osd = Osd::new(identity, Options::default(), store, output);
        let state = Versioned {
            value: OsdState {
                boot: 7,
                size: 1,
                address: None,
            },
            revision: 1,
        };
        osd.ctx.map.osds.insert(MEMBER, state);
        for number in 0..u32::try_from(count).unwrap() {
            let membership = Membership {
                acting: vec![ME, MEMBER],
                asked: BTreeMap::from([(ME, 1), (MEMBER, 7)]),
            };
            let id = PgId::first(PoolId(1), number);
            osd.pgs.insert(id, Pg::activated(&osd.ctx, id, membership));
        }
        osd.ctx.now = Now(1_000_000_000);
        osd
    }

    #[test]
    fn an_answer_confirms_what_its_ping_was_about_and_no_more() {
        let mut osd = primary_of(PING_LIMIT + 5);
        osd.ping_all();
        let sent = std::mem::take(&mut osd.ctx.effects);
        let pings: Vec<(Now, Vec<(PgId, Epoch)>)> = sent
            .into_iter()
            .map(|effect| match effect {
                Effect::Send(_, Message::Ping { sent, pgs }) => (sent, pgs),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            pings.iter().map(|(_, pgs)| pgs.len()).collect::<Vec<_>>(),
            [PING_LIMIT, 5]
        );
        let confirmed = |osd: &Osd| {
            let active = osd.pgs.values().filter_map(Pg::active);
            active
                .filter(|pg| pg.is_confirmed(osd.ctx.now, &osd.ctx.options))
                .count()
        };
        osd.ponged(MEMBER, pings[1].0, 0, &[]);
        assert_eq!(confirmed(&osd), 5, "those of the second ping");
        osd.ponged(MEMBER, Now(pings[1].0.0 - 1), 0, &[]);
        assert_eq!(confirmed(&osd), 5, "nobody asked that");
        osd.ponged(MEMBER, pings[0].0, 0, &pings[0].1[..1]);
        assert_eq!(confirmed(&osd), PING_LIMIT + 4, "one is refused");
    }
}
