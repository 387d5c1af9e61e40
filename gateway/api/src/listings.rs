//! What the API shows of the cluster's make-up, as JSON: pools, the placement tree, PGs, and who runs. The CLI reads the same
//! types. Sizes are bytes.

use serde::{Deserialize, Serialize};

use super::{Capacity, OpTotals, OsdInfo};

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Copies of every object.
    pub replicas: u64,
    /// Writes wait while fewer copies can be made.
    pub min_size: u64,
    /// How many PGs.
    pub pg_count: u32,
    /// How many there will be in a moment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pgs_wanted: Option<u32>,
    /// Copies are in different places of this level.
    pub failure_domain: String,
    /// Only OSDs below this place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// Only OSDs with all of these tags.
    #[serde(default)]
    pub osd_tags: Vec<String>,
    /// OSDs with all of these tags are rather made primaries.
    #[serde(default)]
    pub primary_tags: Vec<String>,
    /// Images in it.
    pub images: u64,
    /// Bytes that clients see of them.
    pub provisioned: u64,
    /// Bytes of data written to its images, each once; absent while not all OSDs have said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
    /// How many objects hold them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub objects: Option<u64>,
    /// Bytes that all copies of the objects take on OSDs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub raw_used: Option<u64>,
    /// Operations on its images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ops: Option<OpTotals>,
    /// Bytes that can be written until its fullest OSD is full.
    pub max_avail: u64,
    /// It is being removed: no images can be made in it.
    #[serde(default)]
    pub removing: bool,
}

/// All pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolList {
    /// Ascending by id.
    pub pools: Vec<PoolInfo>,
}

/// The placement tree, depth first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// What is in a place follows it.
    pub rows: Vec<TreeRow>,
}

/// A place or an OSD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRow {
    /// Of an OSD its number.
    pub name: String,
    /// `osd`, `host`, or another word.
    pub level: String,
    /// 0 at the top.
    pub depth: u64,
    /// The place that it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<String>,
    /// Bytes that the placement uses, of all OSDs in it.
    pub weight: u64,
    /// Bytes that objects can take.
    pub capacity: u64,
    /// Bytes that they do take.
    pub used: u64,
    /// The OSD.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub osd: Option<OsdInfo>,
}

/// Space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Df {
    /// Of all OSDs, every copy counted.
    pub raw: Capacity,
    /// Ascending by id.
    pub pools: Vec<PoolInfo>,
}

/// One PG.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgInfo {
    /// Pool's id, point, number.
    pub id: String,
    /// The pool's name.
    pub pool: String,
    /// `clean`, `recovering`, `degraded`, `peering` or `inactive`.
    pub state: String,
    /// Where it shall live.
    pub up: Vec<u32>,
    /// Who takes part now.
    pub acting: Vec<u32>,
    /// Who leads now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub primary: Option<u32>,
    /// The highest epoch that was claimed.
    pub epoch: u64,
    /// Objects that have too few copies.
    pub missing: u64,
}

/// The PGs that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgList {
    /// Ascending.
    pub pgs: Vec<PgInfo>,
}

/// A PG, and why it is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgExplained {
    /// The PG.
    #[serde(flatten)]
    pub pg: PgInfo,
    /// In words, what keeps it from serving first.
    pub reasons: Vec<String>,
    /// Sets of OSDs of which one each must come back before it can serve.
    pub waits_for: Vec<Vec<u32>>,
    /// Who may have acknowledged writes since it was last clean, oldest first.
    pub intervals: Vec<PgInterval>,
}

/// An acting set of a PG's past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgInterval {
    /// The epoch of its claim.
    pub epoch: u64,
    /// Its members.
    pub acting: Vec<u32>,
    /// It may have acknowledged writes.
    pub active: bool,
}

/// One monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorInfo {
    /// Hexadecimal.
    pub id: String,
    /// Where it runs; absent when it did not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// It makes the plans.
    pub leads: bool,
}

/// The monitors that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorList {
    /// Ascending by id.
    pub monitors: Vec<MonitorInfo>,
}

/// One gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// Hexadecimal.
    pub id: String,
    /// For people.
    pub name: String,
    /// Where its admin API is; absent when it did not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<String>,
    /// It is the one that answers.
    pub this: bool,
}

/// The gateways that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayList {
    /// Ascending by id.
    pub gateways: Vec<GatewayInfo>,
}
