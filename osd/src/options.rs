//! How an OSD behaves, and the deliberate bugs that show that the simulator finds bugs.

use trivet_core::message::PING_LIMIT;

/// Acting sets of one PG that a history names one by one. Far more than there are as long as its members come and go;
/// each takes less than 100 bytes in the metadata store.
const INTERVALS: usize = 32;

/// How an OSD behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Beyond so many acting sets a PG's history asks for more than is necessary, to stay short.
    pub intervals: usize,
    /// PGs that one ping asks about at most: at least 1, at most [`PING_LIMIT`].
    pub pgs_per_ping: usize,
    /// A deliberate bug.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            intervals: INTERVALS,
            pgs_per_ping: PING_LIMIT,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Deliberate bugs.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A write is acknowledged when the primary has it.
    AckEarly,
    /// A write is acknowledged although a member had no room for it.
    AckWithoutRoom,
    /// Members execute what primaries of lower epochs ask.
    AcceptOldEpoch,
    /// Members list what they have before the epoch is durable.
    ListBeforeFence,
    /// Reads show what not all members have.
    ReadUnsettled,
    /// Reads are answered without the confirmation of the members.
    ReadWithoutLease,
    /// Members do not say what they promised to another primary.
    ForgetPromises,
    /// Members execute a mutation without the one before it.
    IgnorePredecessor,
    /// Objects that a member lacks are served before they are healed.
    ServeMissing,
    /// Peering prefers large counters to late epochs.
    CounterBeforeEpoch,
    /// A repeated operation is executed again.
    ExecuteTwice,
    /// The history shrinks with every activation.
    ForgetHistory,
    /// A claim does not look at the history.
    IgnoreHistory,
    /// Repair fills what it cannot read with zeroes.
    RepairWithZeroes,
    /// What former members bring back counts.
    BelieveStrays,
    /// A member lists a PG of whose generation it knows nothing yet.
    ListByOldCount,
    /// PGs of a new generation do not look at the histories of those they take over from.
    ForgetParents,
    /// Tombstones are forgotten while a member is away.
    ForgetTombstones,
    /// What got lost on the way is not sent again.
    NeverRepeat,
    /// The rest of a unit that is written in part becomes zero.
    SkipMerge,
    /// The epoch does not rise with a claim.
    SameEpoch,
    /// A damaged unit is not repaired: the read fails.
    NoReadRepair,
    /// Scrub does not look at other members' copies.
    ScrubOnlyOwn,
    /// Healing does not bring the remembered operations along.
    HealWithoutOps,
    /// What changes after a PG became active is not counted.
    CountOnce,
    /// PGs that others serve are still counted.
    KeepCounting,
    /// Changes are executed for clients that are not registered any more.
    ExecuteForFenced,
    /// Changes are executed however long ago their callers were heard of.
    ExecuteOutdated,
    /// Changes are executed over what another client changed meanwhile.
    ExecuteOvertaken,
    /// After a failover nobody was overtaken.
    ForgetOvertaking,
    /// A list names only what the primary itself has.
    ListOnlyOwn,
    /// A read is confirmed by any member instead of all.
    ConfirmByAny,
    /// After a restart a member knows of no promise that it gave before.
    ForgetAtRestart,
    /// Fewer members than `min_size` are enough.
    MinSizeTooLow,
    /// A PG of a new generation does not wait for the primaries of those that it takes over from.
    IgnoreInherited,
    /// Of more than eight clients an object forgets the oldest.
    ForgetClients,
    /// Beyond its limit a history forgets all but the first and the last of its acting sets.
    DropIntervals,
    /// The members' confirmation counts from when the PG became active, not from when they were asked.
    ConfirmedLate,
    /// Any metadata store is taken for the one that the data belongs to.
    BelieveAnyStore,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 39] = [
        Mutant::AckEarly,
        Mutant::AckWithoutRoom,
        Mutant::AcceptOldEpoch,
        Mutant::ListBeforeFence,
        Mutant::ReadUnsettled,
        Mutant::ReadWithoutLease,
        Mutant::ForgetPromises,
        Mutant::IgnorePredecessor,
        Mutant::ServeMissing,
        Mutant::CounterBeforeEpoch,
        Mutant::ExecuteTwice,
        Mutant::ForgetHistory,
        Mutant::IgnoreHistory,
        Mutant::RepairWithZeroes,
        Mutant::BelieveStrays,
        Mutant::ListByOldCount,
        Mutant::ForgetParents,
        Mutant::ForgetTombstones,
        Mutant::NeverRepeat,
        Mutant::SkipMerge,
        Mutant::SameEpoch,
        Mutant::NoReadRepair,
        Mutant::ScrubOnlyOwn,
        Mutant::HealWithoutOps,
        Mutant::CountOnce,
        Mutant::KeepCounting,
        Mutant::ExecuteForFenced,
        Mutant::ExecuteOutdated,
        Mutant::ExecuteOvertaken,
        Mutant::ForgetOvertaking,
        Mutant::ListOnlyOwn,
        Mutant::ConfirmByAny,
        Mutant::ForgetAtRestart,
        Mutant::MinSizeTooLow,
        Mutant::IgnoreInherited,
        Mutant::ConfirmedLate,
        Mutant::DropIntervals,
        Mutant::ForgetClients,
        Mutant::BelieveAnyStore,
    ];
}

/// Whether the options ask for a deliberate bug; never in a normal build.
macro_rules! mutant {
    ($options:expr, $name:ident) => {{
        #[cfg(feature = "mutants")]
        {
            $options.mutant == Some($crate::options::Mutant::$name)
        }
        #[cfg(not(feature = "mutants"))]
        {
            let _ = &$options;
            false
        }
    }};
}
pub(crate) use mutant;
