//! How an OSD behaves, and the deliberate bugs that show that the simulator finds bugs.

/// How an OSD behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A deliberate bug.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
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
    /// Any metadata store is taken for the one that the data belongs to.
    BelieveAnyStore,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 27] = [
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
