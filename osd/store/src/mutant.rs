//! Deliberate bugs, each at one place, to show that the tests of the store and of the cluster find them. Never in a
//! normal build.

/// One bug.
#[cfg(any(test, feature = "mutants"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Answers writes without a flush.
    SkipFlush,
    /// Answers writes when their batch is submitted to the disk.
    AckBeforeBatch,
    /// Takes a failed flush for a good one.
    IgnoreFlushError,
    /// Recovery believes a batch whose header or payload is not whole.
    AcceptTornBatch,
    /// Recovery does not check the payload of the last batch.
    SkipLastBatchVerify,
    /// Recovery takes rot within the log for its end.
    TruncateAtRot,
    /// Nothing is written behind a batch to prove that it was durable.
    NeverProve,
    /// Frees a slot before the write that replaces it is durable.
    ReuseSlotEarly,
    /// Writes the checkpoint's header before what it points to is durable.
    CheckpointBeforeFlush,
    /// Overwrites the log that a checkpoint makes superfluous before the checkpoint is durable.
    TailBeforeHeader,
    /// Takes any chunks that look right for those of the checkpoint.
    StaleChunks,
    /// A checkpoint does not have the operations that objects remember.
    ForgetOps,
    /// An accepted epoch is not written down.
    ForgetEpoch,
    /// Reads do not compare sums.
    NoVerifyOnRead,
    /// Damaged units are salvaged as zeroes, and nobody is told.
    SalvageHidesDamage,
    /// Settling takes what the log has for right, and gives it a new sum.
    SettleUnverified,
    /// Settling forgets that a unit was written again meanwhile.
    SettleOverNewer,
    /// A write may have the version that the object has.
    EqualVersionOverwrites,
    /// A deleted object has no version.
    TombstoneDropsVersion,
}

#[cfg(any(test, feature = "mutants"))]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 19] = [
        Mutant::SkipFlush,
        Mutant::AckBeforeBatch,
        Mutant::IgnoreFlushError,
        Mutant::AcceptTornBatch,
        Mutant::SkipLastBatchVerify,
        Mutant::TruncateAtRot,
        Mutant::NeverProve,
        Mutant::ReuseSlotEarly,
        Mutant::CheckpointBeforeFlush,
        Mutant::TailBeforeHeader,
        Mutant::StaleChunks,
        Mutant::ForgetOps,
        Mutant::ForgetEpoch,
        Mutant::NoVerifyOnRead,
        Mutant::SalvageHidesDamage,
        Mutant::SettleUnverified,
        Mutant::SettleOverNewer,
        Mutant::EqualVersionOverwrites,
        Mutant::TombstoneDropsVersion,
    ];
}

/// Whether the options ask for a deliberate bug; never in a normal build.
macro_rules! mutant {
    ($options:expr, $name:ident) => {{
        #[cfg(any(test, feature = "mutants"))]
        {
            $options.has($crate::mutant::Mutant::$name)
        }
        #[cfg(not(any(test, feature = "mutants")))]
        {
            let _ = &$options;
            false
        }
    }};
}
pub(crate) use mutant;
