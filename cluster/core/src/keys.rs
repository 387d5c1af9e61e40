//! The keys of the metadata store and their JSON values, except the tree of names (`vfs/`), which belongs to
//! the namespace. `docs/metadata-keys.md` is the reference.

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, Epoch, Numbering, ObjectId, OsdId, PgId, PoolId};
use crate::usage::USAGE;

/// Only gateways watch this key and those that sort behind it: what OSDs report of images (`usage/`), the tree of names
/// (`vfs/`), testimonies (`witness/`). All other roles watch what is before.
pub const FOR_GATEWAYS: &str = USAGE;

/// `config/cluster`: what the cluster is.
pub const CLUSTER: &str = "config/cluster";
/// Prefix of the pools' configuration.
pub const POOLS: &str = "pool/";
/// Prefix of what OSDs say about themselves.
pub const OSDS: &str = "osd/";
/// Prefix of what gateways say about themselves.
pub const GATEWAYS: &str = "gateway/";
/// Prefix of the clients for which OSDs execute operations.
pub const CLIENTS: &str = "client/";
/// `config/settings`: what an administrator may change while the cluster runs.
pub const SETTINGS: &str = "config/settings";
/// Prefix of the placement tree.
pub const TREE: &str = "tree/";
/// Prefix of the monitor's plans.
pub const PLANS: &str = "plan/";
/// The leading monitor, on its lease.
pub const LEADER: &str = "mon/leader";
/// Prefix of the PGs' claims and histories.
pub const PGS: &str = "pg/";

/// `pool/<id>`.
#[must_use]
pub fn pool(id: PoolId) -> String {
    format!("{POOLS}{id}")
}

/// `osd/<n>/state`, on the OSD's lease.
#[must_use]
pub fn osd_state(id: OsdId) -> String {
    format!("{OSDS}{id}/state")
}

/// `osd/<n>/config`: the OSD is a member of the cluster, up or not.
#[must_use]
pub fn osd_config(id: OsdId) -> String {
    format!("{OSDS}{id}/config")
}

/// `gateway/<id>/state`, on the gateway's lease; the id is hexadecimal.
#[must_use]
pub fn gateway_state(id: ClientId) -> String {
    format!("{GATEWAYS}{:016x}/state", id.0)
}

/// `client/<id>`, without a lease: OSDs execute changes of the clients that have such a key; the id is hexadecimal.
#[must_use]
pub fn client(id: ClientId) -> String {
    format!("{CLIENTS}{:016x}", id.0)
}

/// `gateway/<id>/beat`, on the gateway's lease: written to see it come back, when nothing else tells whether a mirror lags.
#[must_use]
pub fn gateway_beat(id: ClientId) -> String {
    format!("{GATEWAYS}{:016x}/beat", id.0)
}

/// `mon/<id>/state`, on the monitor's lease; the id is hexadecimal.
#[must_use]
pub fn monitor_state(id: u64) -> String {
    format!("mon/{id:016x}/state")
}

/// `osd/<n>/stats`, on the OSD's lease.
#[must_use]
pub fn osd_stats(id: OsdId) -> String {
    format!("{OSDS}{id}/stats")
}

/// `tree/<name>`: a place in the placement tree. Hosts need no key unless they have a parent.
#[must_use]
pub fn tree(name: &str) -> String {
    format!("{TREE}{name}")
}

/// `plan/<pool>`.
#[must_use]
pub fn plan(pool: PoolId) -> String {
    format!("{PLANS}{pool}")
}

/// `pg/<pool>/<n>/claim`, on the primary's lease.
#[must_use]
pub fn claim(pg: PgId) -> String {
    format!("{PGS}{pg}/claim")
}

/// `pg/<pool>/<n>/history`.
#[must_use]
pub fn history(pg: PgId) -> String {
    format!("{PGS}{pg}/history")
}

/// `config/mark`: by which OSDs recognise the store; see [`crate::mark`].
pub const MARK: &str = "config/mark";
/// `config/halted`: the store is not the one that the data belongs to, and nobody acts for any PG.
pub const HALTED: &str = "config/halted";
/// `config/next_pool`: no pool ever had this id or a higher one.
pub const NEXT_POOL: &str = "config/next_pool";
/// `config/next_image`: no image ever had this number or a higher one. OSDs look at it, too.
pub const NEXT_IMAGE: &str = "config/next_image";

/// `config/scrub`: the scrub that was asked for last.
pub const SCRUB: &str = "config/scrub";

/// `pg/<pool>/<n>/scrub`: the outcome of the PG's last scrub.
#[must_use]
pub fn scrub(pg: PgId) -> String {
    format!("{PGS}{pg}/scrub")
}

/// Value of `config/scrub`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRequest {
    /// Counts the requests: a PG whose last scrub has a smaller number is due.
    pub number: u64,
    /// When it was asked for, seconds since 1970.
    pub at: u64,
}

/// Value of `pg/<pool>/<n>/scrub`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// The request that it answers.
    pub number: u64,
    /// Objects that were compared on all members.
    pub objects: u64,
    /// Objects of which a copy was damaged and rewritten from another one.
    pub repaired: u64,
    /// Objects of which copies of the same version differ.
    pub inconsistent: u64,
    /// Objects with units that no copy has.
    pub lost: u64,
}

/// Value of `config/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// 32 hexadecimal digits, drawn at random when the cluster is made.
    pub id: String,
    /// 32 hexadecimal digits, the secret that NFS file handles are sealed with.
    pub secret: String,
}

/// Value of `config/settings`; what is absent has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// An OSD that is down for longer loses its PGs to others, seconds.
    pub osd_out_s: u64,
    /// Nothing is moved to an OSD that would be fuller than this, per cent.
    pub backfill_full_pct: u32,
    /// Objects get their missing copies only when a client works on them.
    pub no_recovery: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            osd_out_s: 600,
            backfill_full_pct: 90,
            no_recovery: false,
        }
    }
}

/// Value of `pool/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// For people; unique.
    pub name: String,
    /// Copies of every object.
    pub replicas: usize,
    /// Writes wait while fewer copies than this can be made.
    pub min_size: usize,
    /// How many PGs the pool has.
    pub pg_count: u32,
    /// How often that was changed: the generation of the PGs.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u16,
    /// How many PGs the generation before had, as long as their histories count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgs_before: Option<u32>,
    /// How many PGs an administrator wants; the monitor sees to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgs_wanted: Option<u32>,
    /// Copies of an object are in different places of this level of the placement tree: `osd`, `host`, or a level that
    /// the tree names.
    pub failure_domain: String,
    /// Only OSDs below this place of the tree are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Only OSDs that have all of these tags are used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub osd_tags: Vec<String>,
    /// OSDs that have all of these tags are rather made primaries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_tags: Vec<String>,
}

/// The failure domain of pools whose copies may share a host.
pub const LEVEL_OSD: &str = "osd";
/// The level of hosts.
pub const LEVEL_HOST: &str = "host";

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            name: String::new(),
            replicas: 2,
            min_size: 1,
            pg_count: 64,
            generation: 0,
            pgs_before: None,
            pgs_wanted: None,
            failure_domain: LEVEL_OSD.to_owned(),
            root: None,
            osd_tags: Vec::new(),
            primary_tags: Vec::new(),
        }
    }
}

impl Pool {
    /// How its objects fall into PGs.
    #[must_use]
    pub fn numbering(&self) -> Numbering {
        Numbering {
            generation: self.generation,
            count: self.pg_count,
        }
    }

    /// How they did before the last change, as long as that counts.
    #[must_use]
    pub fn numbering_before(&self) -> Option<Numbering> {
        Some(Numbering {
            generation: self.generation.checked_sub(1)?,
            count: self.pgs_before?,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(generation: &u16) -> bool {
    *generation == 0
}

/// Value of `osd/<n>/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OsdConfig {
    /// Bytes of its disk: its weight in the placement.
    pub size: u64,
    /// The host that it ran on last: its place in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// 16 hexadecimal digits, a hash of the id in the superblock of its disk: tells it from another disk with its
    /// number. `trivet up` writes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// For pools to choose by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Thousandths of its size that the placement uses.
    pub reweight: u32,
    /// However long it is down, it keeps its PGs.
    pub noout: bool,
    /// An administrator takes it out of the placement.
    pub out: bool,
    /// The monitor took it out, because it was down for too long; until it is up again.
    pub dropped: bool,
}

impl Default for OsdConfig {
    fn default() -> OsdConfig {
        OsdConfig {
            size: 0,
            host: None,
            store: None,
            tags: Vec::new(),
            reweight: 1000,
            noout: false,
            out: false,
            dropped: false,
        }
    }
}

/// Value of `osd/<n>/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OsdStats {
    /// Where its disk is.
    pub path: String,
    /// Bytes that objects can take.
    pub capacity: u64,
    /// Bytes that they do take.
    pub used: u64,
    /// How many there are.
    pub objects: u64,
}

/// Value of `tree/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// What kind of place it is: `host`, `rack`, any word.
    pub level: String,
    /// The place that it is in; none at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Value of `mon/<id>/state`: present while the monitor runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorState {
    /// The host that it runs on.
    pub host: String,
}

/// Value of `gateway/<id>/state`: present while the gateway serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayState {
    /// For people.
    pub name: String,
    /// Where its admin API is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

/// Value of `client/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {}

/// Value of `mon/leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Drawn at random when the monitor starts.
    pub id: u64,
}

/// Value of `osd/<n>/state`: present while the OSD serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdState {
    /// Drawn anew at every start, so that a quick restart is not mistaken for no restart.
    pub boot: u64,
    /// Bytes of its disk.
    pub size: u64,
    /// Where it listens for OSD wire connections; absent within one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Value of `plan/<pool>`: the monitor's decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The generation of the PGs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u16,
    /// Index: the PG's number.
    pub pgs: Vec<PgPlan>,
}

/// Where one PG shall live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgPlan {
    /// The up set.
    pub osds: Vec<OsdId>,
    /// The one that shall claim it; none while no OSD of the set is up.
    pub primary: Option<OsdId>,
}

/// Value of `pg/<pool>/<n>/claim`: who acts for the PG now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The acting primary.
    pub primary: OsdId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The members, primary included.
    pub acting: Vec<OsdId>,
    /// Clients are served.
    pub active: bool,
    /// Objects that have too few copies.
    pub missing: u64,
}

/// Value of `pg/<pool>/<n>/history`: shrinks only when the PG is clean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The highest epoch ever claimed.
    pub epoch: Epoch,
    /// Acting sets that may have acknowledged writes since the PG was last clean, oldest first.
    pub intervals: Vec<Interval>,
}

/// One acting set of a PG's past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The epoch of its claim.
    pub epoch: Epoch,
    /// Its members.
    pub acting: Vec<OsdId>,
    /// It was about to serve clients, so it may have acknowledged writes.
    pub active: bool,
    /// It acted for a PG of an earlier generation: only objects of that one are concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Earlier>,
}

/// A PG of an earlier generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Earlier {
    /// How many PGs there were.
    pub count: u32,
    /// Its number.
    pub number: u32,
}

impl Earlier {
    /// Whether an object of the pool was in it.
    #[must_use]
    pub fn has(self, object: ObjectId) -> bool {
        self.count > 0 && object.pg_number(self.count) == self.number
    }
}

impl History {
    /// The history of a PG that takes over from those of the generation before, `count` of them: what acted for them
    /// may have acknowledged writes of its objects.
    #[must_use]
    pub fn inherited<'a>(count: u32, parents: impl Iterator<Item = (u32, &'a History)>) -> History {
        let mut heir = History::default();
        for (number, history) in parents {
            heir.epoch = heir.epoch.max(history.epoch);
            for interval in history.intervals.iter().filter(|interval| interval.active) {
                let of = interval.of.or(Some(Earlier { count, number }));
                let interval = Interval { of, ..interval.clone() };
                if !heir.intervals.contains(&interval) {
                    heir.intervals.push(interval);
                }
            }
        }
        heir.intervals.sort_by_key(|interval| interval.epoch);
        heir
    }
}
