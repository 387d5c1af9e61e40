//! Sending again what may have got lost: mutations to members that have not answered, and steps of healing.

use std::time::Duration;

use trivet_core::message::PeerBody;
use trivet_core::{Now, OsdId, PgId};

use crate::lane::{Committing, Lane, Stage};
use crate::options::mutant;
use crate::{Effect, Osd, Target};

/// What was not answered for this long is sent again. Members recognise it.
const AFTER: Duration = Duration::from_millis(500);

impl Osd {
    /// Sends again what is due in a PG.
    pub(crate) fn repeat(&mut self, id: PgId, out: &mut Vec<Effect>) {
        let (now, me) = (self.now, self.id());
        if mutant!(self.options, NeverRepeat) {
            return;
        }
        let Some(pg) = self.pgs.get_mut(&id) else { return };
        let epoch = pg.epoch;
        let mut again: Vec<(OsdId, Target, PeerBody)> = Vec::new();
        for (&object, lane) in &mut pg.lanes {
            let target = Target { pg: id, epoch, object };
            repeat_mutations(lane, me, now, target, &mut again);
            repeat_healing(lane, me, now, target, &mut again);
        }
        for (osd, target, body) in again {
            self.tell(osd, target, body, out);
        }
    }
}

/// If one mutation of an object is due, all that are on their way go again, in their order: each rests on the one
/// before.
fn repeat_mutations(lane: &mut Lane, me: OsdId, now: Now, target: Target, again: &mut Vec<(OsdId, Target, PeerBody)>) {
    let mut under_way: Vec<&mut Committing> = lane
        .running
        .iter_mut()
        .filter_map(|running| match &mut running.stage {
            Stage::Committing(committing) if committing.awaited.iter().any(|&osd| osd != me) => Some(committing),
            _ => None,
        })
        .collect();
    if !under_way.iter().any(|c| now.since(c.sent) >= AFTER) {
        return;
    }
    under_way.sort_unstable_by_key(|c| c.mutation.version);
    for committing in under_way {
        committing.sent = now;
        for &osd in committing.awaited.iter().filter(|osd| **osd != me) {
            let body = PeerBody::Write {
                object: target.object,
                after: committing.after,
                mutation: committing.mutation.clone(),
            };
            again.push((osd, target, body));
        }
    }
}

fn repeat_healing(lane: &mut Lane, me: OsdId, now: Now, target: Target, again: &mut Vec<(OsdId, Target, PeerBody)>) {
    let Some(healing) = lane.healing.as_mut().filter(|h| now.since(h.sent) >= AFTER) else {
        return;
    };
    healing.sent = now;
    let object = target.object;
    match &healing.whole {
        Some(whole) => {
            for &osd in healing.awaited.iter().filter(|osd| **osd != me) {
                let mutation = whole.clone();
                again.push((osd, target, PeerBody::Push { object, mutation }));
            }
        }
        None => {
            if let Some(osd) = healing.asked.filter(|osd| *osd != me) {
                again.push((osd, target, PeerBody::Fetch { object }));
            }
        }
    }
}
