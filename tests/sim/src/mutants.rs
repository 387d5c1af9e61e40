//! Deliberate bugs of the machines, to show that the checkers find them. Without the feature `mutants` there are none.

#[cfg(not(feature = "mutants"))]
pub use none::{Mutant, adoption, client, gateway, monitor, osd_options, store_options};
#[cfg(feature = "mutants")]
pub use some::{Mutant, adoption, all, client, gateway, monitor, name, needs, osd_options, store_options};

#[cfg(not(feature = "mutants"))]
mod none {
    use trivet_client::Client;
    use trivet_core::kv::{LeaseId, Txn};
    use trivet_core::{ClientId, OsdId};
    use trivet_gateway::gateway::Gateway;
    use trivet_mon::Monitor;

    /// There are none.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mutant {}

    /// How stores are opened.
    #[must_use]
    #[allow(
        clippy::needless_update,
        reason = "features of other packages of the workspace add a field"
    )]
    pub fn store_options(_: Option<Mutant>, expect: ([u8; 16], OsdId)) -> trivet_store::Options {
        trivet_store::Options {
            expect: Some(expect),
            ..trivet_store::Options::default()
        }
    }

    /// How OSDs are made, with these limits: acting sets of a history, PGs of a ping.
    #[must_use]
    #[allow(
        clippy::needless_update,
        reason = "features of other packages of the workspace add a field"
    )]
    pub fn osd_options(_: Option<Mutant>, (intervals, pgs_per_ping): (usize, usize)) -> trivet_osd::Options {
        trivet_osd::Options {
            intervals,
            pgs_per_ping,
            ..trivet_osd::Options::default()
        }
    }

    /// A client.
    #[must_use]
    pub fn client(_: Option<Mutant>, id: ClientId) -> Client {
        Client::new(id)
    }

    /// A gateway.
    #[must_use]
    pub fn gateway(_: Option<Mutant>, gateway: Gateway) -> Gateway {
        gateway
    }

    /// A monitor.
    #[must_use]
    pub fn monitor(_: Option<Mutant>, id: u64, lease: LeaseId) -> Monitor {
        Monitor::new(id, lease)
    }

    /// The last step of an adoption.
    #[must_use]
    pub fn adoption(_: Option<Mutant>, txn: Txn) -> Txn {
        txn
    }
}

#[cfg(feature = "mutants")]
mod some {
    use trivet_client::Client;
    use trivet_core::keys::NEXT_IMAGE;
    use trivet_core::kv::{LeaseId, Txn};
    use trivet_core::{ClientId, OsdId};
    use trivet_gateway::gateway::Gateway;
    use trivet_mon::Monitor;

    use crate::trouble::Trouble;

    /// A bug of one of the machines.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mutant {
        /// Of the store.
        Store(trivet_store::Mutant),
        /// Of the OSD.
        Osd(trivet_osd::Mutant),
        /// Of the client.
        Client(trivet_client::Mutant),
        /// Of the monitor.
        Monitor(trivet_mon::Mutant),
        /// Of the gateway.
        Gateway(trivet_gateway::Mutant),
        /// An older store is adopted, and the numbers of images that it does not know are given again.
        GiveNumbersAgain,
    }

    const CLIENTS: [trivet_client::Mutant; 7] = {
        use trivet_client::Mutant::{
            AnswerEarly, AnsweredTooHigh, ForgetResend, NewIdOnResend, PurgeUnclean, ReadSpliceWrong, SweepHalf,
        };
        [
            NewIdOnResend,
            ForgetResend,
            ReadSpliceWrong,
            AnswerEarly,
            AnsweredTooHigh,
            SweepHalf,
            PurgeUnclean,
        ]
    };
    const MONITORS: [trivet_mon::Mutant; 2] = [trivet_mon::Mutant::PlanWithoutCompare, trivet_mon::Mutant::TwoLeaders];

    /// Every bug that there is.
    #[must_use]
    pub fn all() -> Vec<Mutant> {
        let stores = trivet_store::Mutant::ALL.iter().copied().map(Mutant::Store);
        let osds = trivet_osd::Mutant::ALL.iter().copied().map(Mutant::Osd);
        let clients = CLIENTS.into_iter().map(Mutant::Client);
        let monitors = MONITORS.into_iter().map(Mutant::Monitor);
        let gateways = trivet_gateway::Mutant::ALL.into_iter().map(Mutant::Gateway);
        stores
            .chain(osds)
            .chain(clients)
            .chain(monitors)
            .chain(gateways)
            .chain([Mutant::GiveNumbersAgain])
            .collect()
    }

    /// Troubles without which nobody can see this bug: only runs that have them all are tried.
    #[must_use]
    pub fn needs(mutant: Mutant) -> Vec<Trouble> {
        use trivet_gateway::Mutant as Gateway;
        let mutant = match mutant {
            // Only a gateway whose clock stood still does not notice itself that it was stopped.
            Mutant::Osd(trivet_osd::Mutant::ExecuteOutdated) => return vec![Trouble::PauseGateway, Trouble::GiveUp],
            Mutant::Osd(trivet_osd::Mutant::ForgetOvertaking) => return vec![Trouble::Handover],
            Mutant::Client(trivet_client::Mutant::PurgeUnclean) => return vec![Trouble::Relic, Trouble::WriteRemoved],
            Mutant::GiveNumbersAgain => return vec![Trouble::Restored],
            Mutant::Gateway(mutant) => mutant,
            _ => return Vec::new(),
        };
        match mutant {
            Gateway::BelievePresent | Gateway::PlanForAbsent => vec![Trouble::GiveUp],
            Gateway::TrustOwnClock => vec![Trouble::PauseGateway, Trouble::GiveUp],
            Gateway::ReadAfterStop => vec![Trouble::GiveUp, Trouble::StopGateway],
            Gateway::SendForEnded | Gateway::KeepForEnded => vec![Trouble::UserBreak],
            Gateway::TrustLeases | Gateway::FenceWithoutBarrier => vec![Trouble::Resize, Trouble::Strand],
            Gateway::NoGrace | Gateway::AgreeEarly | Gateway::GrowThoughCut | Gateway::WriteBeyondEnd => {
                vec![Trouble::Resize]
            }
            Gateway::OvertakeWaiting => vec![Trouble::Resize, Trouble::Unseen],
            Gateway::LeaveTrims => vec![Trouble::Resize, Trouble::Strand, Trouble::KillGateway],
            Gateway::ForgetTimes => vec![Trouble::KillGateway],
            Gateway::PlanAgain => vec![Trouble::Unknown],
            Gateway::ReplayRefusals => vec![Trouble::UserBreak],
            Gateway::TellLater => vec![Trouble::UserBreak, Trouble::WatchLate],
            Gateway::ForgetReplies => vec![Trouble::UserBreak],
            Gateway::OpenStale => vec![Trouble::WatchLate],
            Gateway::PurgeInUse | Gateway::WriteWithoutKey => Vec::new(),
        }
    }

    /// As reports call it.
    #[must_use]
    pub fn name(mutant: Mutant) -> String {
        match mutant {
            Mutant::Store(mutant) => format!("store: {mutant:?}"),
            Mutant::Osd(mutant) => format!("osd: {mutant:?}"),
            Mutant::Client(mutant) => format!("client: {mutant:?}"),
            Mutant::Monitor(mutant) => format!("mon: {mutant:?}"),
            Mutant::Gateway(mutant) => format!("gateway: {mutant:?}"),
            Mutant::GiveNumbersAgain => format!("adoption: {mutant:?}"),
        }
    }

    /// How stores are opened.
    #[must_use]
    pub fn store_options(mutant: Option<Mutant>, expect: ([u8; 16], OsdId)) -> trivet_store::Options {
        let mutant = match mutant {
            Some(Mutant::Store(mutant)) => Some(mutant),
            _ => None,
        };
        trivet_store::Options {
            expect: Some(expect),
            mutant,
        }
    }

    /// How OSDs are made, with these limits: acting sets of a history, PGs of a ping.
    #[must_use]
    pub fn osd_options(mutant: Option<Mutant>, (intervals, pgs_per_ping): (usize, usize)) -> trivet_osd::Options {
        let mut options = trivet_osd::Options {
            intervals,
            pgs_per_ping,
            ..trivet_osd::Options::default()
        };
        if let Some(Mutant::Osd(mutant)) = mutant {
            options.mutant = Some(mutant);
        }
        options
    }

    /// A client.
    #[must_use]
    pub fn client(mutant: Option<Mutant>, id: ClientId) -> Client {
        match mutant {
            Some(Mutant::Client(mutant)) => Client::with_mutant(id, mutant),
            _ => Client::new(id),
        }
    }

    /// A gateway.
    #[must_use]
    pub fn gateway(mutant: Option<Mutant>, gateway: Gateway) -> Gateway {
        match mutant {
            Some(Mutant::Gateway(mutant)) => gateway.with_mutant(mutant),
            Some(Mutant::Client(mutant)) => gateway.with_client_mutant(mutant),
            _ => gateway,
        }
    }

    /// A monitor.
    #[must_use]
    pub fn monitor(mutant: Option<Mutant>, id: u64, lease: LeaseId) -> Monitor {
        match mutant {
            Some(Mutant::Monitor(mutant)) => Monitor::with_mutant(id, lease, mutant),
            _ => Monitor::new(id, lease),
        }
    }

    /// The last step of an adoption.
    #[must_use]
    pub fn adoption(mutant: Option<Mutant>, mut txn: Txn) -> Txn {
        if mutant == Some(Mutant::GiveNumbersAgain) {
            txn.changes.retain(|change| change.key() != NEXT_IMAGE);
        }
        txn
    }
}
