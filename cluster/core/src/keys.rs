//! The keys of the metadata store and their JSON values, except the tree of names (`ns/`), which belongs to
//! the namespace. `docs/metadata-keys.md` is the reference.

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, Epoch, OsdId, PgId, PoolId};

/// `config/cluster`: what the cluster is.
pub const CLUSTER: &str = "config/cluster";
/// Prefix of the pools' configuration.
pub const POOLS: &str = "pool/";
/// Prefix of what OSDs say about themselves.
pub const OSDS: &str = "osd/";
/// Prefix of what gateways say about themselves.
pub const GATEWAYS: &str = "gateway/";
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

/// `plan/<pool>`.
#[must_use]
pub fn plan(pool: PoolId) -> String {
    format!("{PLANS}{pool}")
}

/// `pg/<pool>/<n>/claim`, on the primary's lease.
#[must_use]
pub fn claim(pg: PgId) -> String {
    format!("{PGS}{}/{}/claim", pg.pool, pg.number)
}

/// `pg/<pool>/<n>/history`.
#[must_use]
pub fn history(pg: PgId) -> String {
    format!("{PGS}{}/{}/history", pg.pool, pg.number)
}

/// `config/scrub`: the scrub that was asked for last.
pub const SCRUB: &str = "config/scrub";

/// `pg/<pool>/<n>/scrub`: the outcome of the PG's last scrub.
#[must_use]
pub fn scrub(pg: PgId) -> String {
    format!("{PGS}{}/{}/scrub", pg.pool, pg.number)
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

/// Value of `pool/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// For people.
    pub name: String,
    /// Copies of every object.
    pub replicas: usize,
    /// Writes wait while fewer copies than this can be made.
    pub min_size: usize,
    /// How many PGs the pool has.
    pub pg_count: u32,
}

/// Value of `osd/<n>/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdConfig {
    /// Bytes of its disk: its weight in the placement.
    pub size: u64,
}

/// Value of `gateway/<id>/state`: present while the gateway serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayState {
    /// For people.
    pub name: String,
}

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
}
