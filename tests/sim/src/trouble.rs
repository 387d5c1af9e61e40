//! What can go wrong in a run, by name, and how often it did.

use std::time::Duration;

macro_rules! troubles {
    ($($(#[$doc:meta])* $name:ident $text:literal $seconds:literal $group:ident;)*) => {
        /// One kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Trouble {
            $($(#[$doc])* $name,)*
        }

        impl Trouble {
            /// All kinds.
            pub const ALL: &[Trouble] = &[$(Trouble::$name,)*];

            /// As reports and the command line call it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Trouble::$name => $text,)*
                }
            }

            /// The time between two of them where they come at the usual rate.
            #[must_use]
            pub fn mean(self) -> Duration {
                Duration::from_secs(match self {
                    $(Trouble::$name => $seconds,)*
                })
            }

            /// What it hurts.
            #[must_use]
            pub fn group(self) -> Group {
                match self {
                    $(Trouble::$name => Group::$group,)*
                }
            }
        }
    };
}

/// What a trouble hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Connections between nodes.
    Network,
    /// The metadata store, or the way to it.
    Metadata,
    /// The speed of a disk.
    Speed,
    /// What is stored on a disk, for good.
    Damage,
    /// Processes and machines.
    Process,
    /// Gateways, and the users' way to them.
    Gateway,
}

troubles! {
    /// Messages of a connection are lost now and then, for a while.
    Loss "loss" 40 Network;
    /// A connection breaks: what is on its way is lost.
    Break "break" 10 Network;
    /// A connection is slow, for a while.
    Delay "delay" 40 Network;
    /// One direction of one connection is silent.
    HalfOpen "half-open" 40 Network;
    /// One place is heard by nobody, or hears nobody.
    OneWay "one-way" 60 Network;
    /// One place is cut off.
    Isolate "isolate" 60 Network;
    /// The places fall into two halves.
    Split "split" 80 Network;
    /// Two halves that only one place can reach both of.
    Bridge "bridge" 80 Network;
    /// An OSD and a client are cut off together: long enough for others to take over.
    Exile "exile" 60 Network;
    /// A connection breaks and its last messages come again.
    Resend "resend" 15 Network;
    /// A node does not reach the metadata store, or is not reached by it.
    MetaCut "metadata-cut" 50 Metadata;
    /// The metadata store changes its leader: silence, then all leases live on.
    Leader "leader-change" 60 Metadata;
    /// The metadata store is away.
    Away "metadata-away" 120 Metadata;
    /// The answers of transactions get lost, for a while.
    Unknown "outcome-unknown" 60 Metadata;
    /// A lease ends before its time.
    LeaseEarly "lease-early" 60 Metadata;
    /// Leases outlive their time.
    LeaseLate "lease-late" 80 Metadata;
    /// A watch comes late.
    WatchLate "watch-late" 40 Metadata;
    /// A watch repeats itself.
    WatchRepeat "watch-repeat" 30 Metadata;
    /// A watch was compacted: a snapshot comes instead.
    Compact "watch-compacted" 40 Metadata;
    /// A read of the metadata store is stale.
    StaleRead "stale-read" 40 Metadata;
    /// An administrator takes an OSD out of the placement, for a while: others get its PGs.
    Out "taken-out" 120 Metadata;
    /// An administrator changes the number of PGs.
    Pgs "pg-count" 60 Metadata;
    /// The metadata store is put back to an earlier time, maybe after it was wiped, and adopted.
    Restored "metadata-restored" 30 Metadata;
    /// An administrator wants nothing healed in the background, for a while.
    NoRecovery "no-recovery" 120 Metadata;
    /// A disk is a hundred times slower.
    Slow "slow-disk" 60 Speed;
    /// A disk does not answer.
    Freeze "frozen-disk" 60 Speed;
    /// A stored bit changes.
    Rot "bit-rot" 40 Damage;
    /// A block cannot be read any more.
    BadBlock "bad-block" 60 Damage;
    /// One read fails.
    ReadError "read-error" 40 Damage;
    /// One read has a wrong bit.
    ReadFlip "read-flip" 40 Damage;
    /// One write is acknowledged and not done.
    LostWrite "lost-write" 60 Damage;
    /// One write goes elsewhere.
    Misdirected "misdirected-write" 80 Damage;
    /// One write fails.
    WriteError "write-error" 120 Damage;
    /// One flush fails.
    FlushError "flush-error" 120 Damage;
    /// One flush is acknowledged and not done.
    LyingFlush "lying-flush" 80 Damage;
    /// A disk is replaced by an empty one, under a new number.
    Replace "replaced-disk" 120 Damage;
    /// An OSD is killed.
    Kill "kill" 30 Process;
    /// The power of one OSD fails.
    PowerCut "power-cut" 40 Process;
    /// The power of everything fails.
    Blackout "blackout" 150 Process;
    /// An OSD is stopped and goes on later.
    Pause "pause" 40 Process;
    /// OSDs are restarted again and again.
    Storm "restart-storm" 150 Process;
    /// An OSD is down for minutes, and nothing is healed in the background before it is back.
    Maintenance "maintenance" 150 Process;
    /// A client dies and is replaced.
    KillClient "kill-client" 80 Process;
    /// A client is stopped and goes on later.
    PauseClient "pause-client" 60 Process;
    /// A client is taken for dead by another one, and fenced.
    Fence "fence" 40 Process;
    /// A monitor is killed.
    KillMonitor "kill-monitor" 60 Process;
    /// A monitor is stopped and goes on later.
    PauseMonitor "pause-monitor" 60 Process;
    /// Users do not wait for ever: what is not answered they ask for elsewhere.
    GiveUp "give-up" 60 Gateway;
    /// A gateway is stopped and goes on later; its clock goes on meanwhile.
    StopGateway "stop-gateway" 60 Gateway;
    /// The machine of a gateway is stopped, with its clock, and goes on later.
    PauseGateway "pause-gateway" 40 Gateway;
    /// A gateway is killed and replaced.
    KillGateway "kill-gateway" 80 Gateway;
    /// Nothing passes between a user and a gateway, for a moment.
    UserCut "user-cut" 30 Gateway;
    /// A connection between a user and a gateway ends: at any time, or between the execution of a call and its answer.
    UserBreak "user-break" 30 Gateway;
    /// Users write to files that others remove.
    WriteRemoved "write-removed" 60 Gateway;
    /// Others that share the metadata store commit something.
    Foreign "foreign-commits" 15 Metadata;
    /// A file is cut off and grows under those who write it.
    Resize "resize" 60 Gateway;
    /// A gateway that has just begun to cut off a file is killed, or cut off itself.
    Strand "strand-gateway" 60 Gateway;
    /// A gateway that writes to a new file is cut off together with the primary: what they write is nowhere else. Others get the
    /// OSD's PGs, and nothing is healed before it comes back.
    Relic "relic" 60 Gateway;
    /// A client does not reach a primary, and its callers leave it unheard; the primary serves others, and is killed.
    Handover "handover" 60 Process;
    /// Users whose WRITEs wait for a truncation leave their connections without an end that shows, and come back.
    Unseen "leave-unseen" 60 Gateway;
}

impl Trouble {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Trouble> {
        Trouble::ALL.iter().copied().find(|trouble| trouble.name() == name)
    }
}

/// How often each kind of trouble was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u64; Trouble::ALL.len()]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; Trouble::ALL.len()])
    }
}

impl Counts {
    /// Counts one.
    pub fn add(&mut self, trouble: Trouble) {
        self.0[trouble as usize] += 1;
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// All kinds and their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Trouble, u64)> {
        Trouble::ALL.iter().copied().zip(self.0)
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_name_one_kind_each() {
        for (index, &trouble) in Trouble::ALL.iter().enumerate() {
            assert_eq!(Trouble::named(trouble.name()), Some(trouble));
            assert_eq!(trouble as usize, index);
        }
        assert_eq!(Trouble::named("nothing"), None);
    }
}
