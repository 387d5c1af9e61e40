//! Adopting a metadata store that is older than the data (`trivet_core::adopt`), and names for what it has none for.

use std::collections::BTreeSet;

use trivet_api::AdminError;
use trivet_core::OsdId;
use trivet_core::adopt::{Adoption, Hindrance};
use trivet_core::keys;
use trivet_core::kv::{Compare, Txn};
use trivet_namespace::{Caller, Context, NsError};

use super::conflict;
use super::edits::{Planned, Then};
use crate::gateway::Gateway;

impl Gateway {
    /// The next step of an adoption without these OSDs.
    pub(super) fn plan_adopt(&self, without: &[u32]) -> Result<Planned, AdminError> {
        let without: BTreeSet<OsdId> = without.iter().copied().map(OsdId).collect();
        let adoption = Adoption {
            map: self.client.map(),
            witnesses: &self.edits.witnesses,
            without: &without,
        };
        adoption.check().map_err(hindered)?;
        if let Some(txn) = adoption.step().map_err(hindered)? {
            return Ok(again(txn));
        }
        if let Some(txn) = self.plan_lost(&adoption).map_err(|error| nameless(&error))? {
            return Ok(again(txn));
        }
        let txn = adoption.last(self.id.0, self.clock.now).map_err(hindered)?;
        Ok(Planned {
            txn,
            then: Then::Answer,
        })
    }

    /// Names for images that the store does not know.
    fn plan_lost(&self, adoption: &Adoption<'_>) -> Result<Option<Txn>, NsError> {
        let context = Context {
            caller: Caller::root(),
            now: self.clock.wall,
            pool: None,
            gateway: self.id,
        };
        let plan = self
            .namespace
            .plan_lost(adoption.images(), adoption.free_number(), &context)?;
        Ok(plan.map(|mut plan| {
            plan.txn.compare.push(Compare::Exists(keys::HALTED.to_owned()));
            plan.txn
        }))
    }
}

fn again(txn: Txn) -> Planned {
    Planned { txn, then: Then::Again }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err has it")]
fn hindered(why: Hindrance) -> AdminError {
    conflict(why.to_string())
}

fn nameless(error: &NsError) -> AdminError {
    conflict(format!("images without names cannot be put into /lost+found: {error}"))
}
