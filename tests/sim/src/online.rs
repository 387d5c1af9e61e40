//! What must hold at every moment: who acts for a PG in an epoch, and that epochs only rise.

use hashbrown::HashMap;
use trivet_core::map::ClusterMap;
use trivet_core::message::{Message, PeerBody};
use trivet_core::{Epoch, OsdId, PgId};

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Online {
    /// Who acted for a PG in an epoch.
    acted: HashMap<(PgId, Epoch), OsdId>,
    /// The highest epoch that an OSD acted in.
    last: HashMap<(OsdId, PgId), Epoch>,
    /// The highest epoch that was claimed.
    claimed: HashMap<PgId, Epoch>,
    /// Earlier claims that came back with a backup of the store, until their leases end.
    returned: HashMap<PgId, Epoch>,
}

impl Online {
    /// An OSD sends a message.
    ///
    /// # Errors
    /// When it acts for a PG in an epoch that belongs to another OSD, or that is over for itself.
    pub fn sends(&mut self, osd: OsdId, message: &Message) -> Result<(), String> {
        let Message::Peer(peer) = message else { return Ok(()) };
        let acts = matches!(
            peer.body,
            PeerBody::Fence
                | PeerBody::Write { .. }
                | PeerBody::Push { .. }
                | PeerBody::Fetch { .. }
                | PeerBody::Scrub { .. }
                | PeerBody::Forget { .. }
        );
        if acts {
            self.acts(osd, peer.pg, peer.epoch)
        } else {
            Ok(())
        }
    }

    fn acts(&mut self, osd: OsdId, pg: PgId, epoch: Epoch) -> Result<(), String> {
        let last = self.last.entry((osd, pg)).or_insert(epoch);
        if *last == epoch && self.acted.get(&(pg, epoch)) == Some(&osd) {
            return Ok(());
        }
        if *last > epoch {
            return Err(format!("OSD {osd} acts for PG {pg} in epoch {epoch} after {last}"));
        }
        *last = epoch;
        let first = *self.acted.entry((pg, epoch)).or_insert(osd);
        if first == osd {
            Ok(())
        } else {
            Err(format!("OSDs {first} and {osd} both act for PG {pg} in epoch {epoch}"))
        }
    }

    /// An earlier metadata store took the place of this one, with the claims that it has.
    pub fn put_back(&mut self, map: &ClusterMap) {
        let claims = map.claims.iter().map(|(&pg, claim)| (pg, claim.value.epoch));
        self.returned = claims.collect();
    }

    /// Whether this claim is an earlier one: who made it does not act by it any more.
    #[must_use]
    pub fn came_back(&self, pg: PgId, epoch: Epoch) -> bool {
        self.returned.get(&pg) == Some(&epoch)
    }

    /// The metadata store has changed.
    ///
    /// # Errors
    /// When a PG is claimed in an epoch that is not new.
    pub fn claims(&mut self, map: &ClusterMap) -> Result<(), String> {
        for (&pg, claim) in &map.claims {
            let claim = &claim.value;
            let last = self.claimed.entry(pg).or_insert(claim.epoch);
            if *last > claim.epoch && self.returned.get(&pg) != Some(&claim.epoch) {
                return Err(format!("PG {pg} is claimed in epoch {} after {last}", claim.epoch));
            }
            *last = claim.epoch.max(*last);
            let first = *self.acted.entry((pg, claim.epoch)).or_insert(claim.primary);
            if first != claim.primary {
                return Err(format!(
                    "OSDs {first} and {} in epoch {} of PG {pg}",
                    claim.primary, claim.epoch
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::PoolId;
    use trivet_core::keys::Claim;
    use trivet_core::map::Versioned;
    use trivet_core::message::Peer;

    #[test]
    fn claims_that_come_back_with_a_backup_are_no_new_ones() {
        let pg = PgId::first(PoolId(1), 0);
        let claimed = |epoch| {
            let mut map = ClusterMap::default();
            let value = Claim {
                primary: OsdId(1),
                epoch: Epoch(epoch),
                acting: vec![OsdId(1)],
                active: true,
                missing: 0,
            };
            map.claims.insert(pg, Versioned { value, revision: 1 });
            map
        };
        let mut online = Online::default();
        online.claims(&claimed(2)).unwrap();
        online.claims(&claimed(5)).unwrap();
        online.claims(&claimed(2)).unwrap_err();
        online.put_back(&claimed(2));
        online.claims(&claimed(2)).unwrap();
        assert!(online.came_back(pg, Epoch(2)));
        online.claims(&claimed(3)).unwrap_err();
        online.claims(&claimed(6)).unwrap();
    }

    #[test]
    fn an_epoch_belongs_to_one_osd_and_is_over_after_the_next() {
        let fence = |epoch| {
            let pg = PgId::first(PoolId(1), 0);
            Message::Peer(Peer {
                pg,
                epoch: Epoch(epoch),
                body: PeerBody::Fence,
            })
        };
        let mut online = Online::default();
        assert!(online.sends(OsdId(1), &fence(1)).is_ok());
        assert!(online.sends(OsdId(1), &fence(3)).is_ok());
        assert!(online.sends(OsdId(1), &fence(1)).is_err(), "back to an old epoch");
        assert!(online.sends(OsdId(2), &fence(3)).is_err(), "an epoch of somebody else");
        assert!(online.sends(OsdId(2), &fence(4)).is_ok());
    }
}
