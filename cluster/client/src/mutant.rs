//! Deliberate bugs, to show that tests of the cluster find them.

/// Which bug. Exists only in tests, and with the feature `mutants`.
#[cfg(any(test, feature = "mutants"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A repeated send carries a new id.
    NewIdOnResend,
    /// Nothing is sent a second time.
    ForgetResend,
    /// The parts of a read over several objects are joined in the wrong order.
    ReadSpliceWrong,
    /// A write over several objects is answered when its first part is.
    AnswerEarly,
    /// An operation says that all earlier ones on its object were answered.
    AnsweredTooHigh,
    /// When the number of PGs changes, a sweep does not ask those of the new number.
    SweepHalf,
    /// A removal is over although OSDs that are away may bring back more.
    PurgeUnclean,
    /// What an OSD says its clock is counts at once, though this node may have stood still until then. The simulator has met what
    /// it takes once in some 5,000 seeds: unit tests catch it.
    BelieveFirstClock,
}

/// Whether the dispatcher is asked for a deliberate bug; never in a normal build.
macro_rules! mutant {
    ($dispatcher:expr, $name:ident) => {{
        #[cfg(any(test, feature = "mutants"))]
        {
            $dispatcher.mutant == Some($crate::Mutant::$name)
        }
        #[cfg(not(any(test, feature = "mutants")))]
        {
            let _ = &$dispatcher;
            false
        }
    }};
}
pub(crate) use mutant;
