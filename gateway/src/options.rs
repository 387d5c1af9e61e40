//! The deliberate bugs of the gateway, which show that the simulator finds bugs. A normal build has none.

/// How a gateway behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// A deliberate bug.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

/// Deliberate bugs.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Whoever asked for an operation that came late is taken for present.
    BelievePresent,
    /// What came while the gateway was stopped is executed as if it came now.
    ReadAfterStop,
    /// The operations of connections that have ended go on.
    SendForEnded,
    /// Changes of names that waited are begun whether their clients are there or not.
    PlanForAbsent,
    /// That the clock of an OSD went on while the gateway's stood still is passed over.
    TrustOwnClock,
    /// A gateway whose lease is gone is taken for dead.
    TrustLeases,
    /// A fence is complete before the PGs know of it.
    FenceWithoutBarrier,
    /// A change whose outcome is not known is planned again.
    PlanAgain,
    /// A call that was executed at another gateway is executed again.
    ForgetReplies,
    /// What a truncation cuts off is removed while others still write it.
    NoGrace,
    /// A gateway agrees to a truncation while it still writes what is cut off.
    AgreeEarly,
    /// Images are written before others know of it.
    WriteWithoutKey,
    /// The data of a removed image is removed while others still write it.
    PurgeInUse,
    /// A file grows for a write that a truncation has cut off.
    GrowThoughCut,
    /// What other gateways have begun to cut off stays.
    LeaveTrims,
    /// Names are opened however old the mirror is.
    OpenStale,
    /// What was asked for on a connection that has ended keeps its memory.
    KeepForEnded,
    /// The times of what a gateway wrote that died do not move.
    ForgetTimes,
    /// NBD clients may write beyond the end of an image that has become smaller.
    WriteBeyondEnd,
    /// What was refused is refused again, though another gateway has done it since.
    ReplayRefusals,
    /// Who changes names where the tree is too old is told to come later, though another gateway may have done it.
    TellLater,
    /// Changes that waited begin with the next second; what comes begins at once.
    OvertakeWaiting,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 22] = [
        Mutant::BelievePresent,
        Mutant::ReadAfterStop,
        Mutant::SendForEnded,
        Mutant::PlanForAbsent,
        Mutant::TrustOwnClock,
        Mutant::TrustLeases,
        Mutant::FenceWithoutBarrier,
        Mutant::PlanAgain,
        Mutant::ForgetReplies,
        Mutant::NoGrace,
        Mutant::AgreeEarly,
        Mutant::WriteWithoutKey,
        Mutant::PurgeInUse,
        Mutant::GrowThoughCut,
        Mutant::LeaveTrims,
        Mutant::OpenStale,
        Mutant::KeepForEnded,
        Mutant::ForgetTimes,
        Mutant::WriteBeyondEnd,
        Mutant::ReplayRefusals,
        Mutant::TellLater,
        Mutant::OvertakeWaiting,
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
