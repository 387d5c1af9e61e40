//! The admin API as data: what administrators may ask and want changed, what they are answered, the words that things may be
//! called by, and errors. It is also the JSON of the HTTP API.
//!
//! Whoever makes such a call or answers one shares it: the gateway machine (changes), its overview (questions), the HTTP server,
//! the command line. It only checks what can be seen of a request alone. How calls travel, with their deadlines, is in
//! `gateway/control`. Names and sizes in a call are already valid.

mod cluster;
mod error;
mod listings;
mod model;
mod path;
mod totals;
mod words;

use serde::Serialize;
use trivet_core::keys::Settings;

pub use cluster::{
    Adopt, ClusterChange, ClusterQuestion, CreatePool, DEFAULT_PGS, MAX_PGS, PatchOsd, PatchPool, PatchSettings,
    PgFilter, SetPlace, valid_copies,
};
pub use error::{AdminError, ErrorBody, ErrorKind};
pub use listings::{
    Df, GatewayInfo, GatewayList, MonitorInfo, MonitorList, PgExplained, PgInfo, PgInterval, PgList, PoolInfo,
    PoolList, Tree, TreeRow,
};
pub use model::{
    Capacity, ClientCounts, CreateImage, GatewayStatus, Health, ImageInfo, ImageList, OsdCounts, OsdInfo, OsdList,
    OsdState, PatchImage, PgCounts, Recovery, Scrub, ScrubAsked, Status, iscsi_target,
};
pub use path::{MAX_COMPONENT, MAX_PATH, clean_path, new_path};
pub use totals::{OpTotal, OpTotals};
pub use words::{Thousandths, clean_tags, counted, valid_pool_name, valid_word};

/// Sizes of images are multiples of this, bytes: the sector that NBD and iSCSI clients see.
pub const SECTOR: u64 = 512;
/// The largest image, bytes: offsets are signed 64-bit in every client, so the last sector ends below 2^63.
pub const MAX_IMAGE_SIZE: u64 = (1 << 63) - SECTOR;

/// Names a call while it is under way; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One thing an administrator asks for. Paths have passed [`clean_path`], those that are given [`new_path`], sizes are multiples of [`SECTOR`] in
/// `SECTOR..=MAX_IMAGE_SIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCall {
    /// Make an image, and the directories above it; answered with [`AdminAnswer::Image`].
    ImageCreate {
        /// Its path, `vms/web01`.
        path: String,
        /// Bytes.
        size: u64,
        /// The name or id of the pool to put it in; none: the one with the lowest id.
        pool: Option<String>,
    },
    /// All images, ascending by path; answered with [`AdminAnswer::Images`].
    ImageList,
    /// One image; answered with [`AdminAnswer::Image`].
    ImageInfo {
        /// Its path.
        path: String,
    },
    /// Grow or shrink; answered with [`AdminAnswer::Image`].
    ImageResize {
        /// Its path.
        path: String,
        /// The new size, bytes.
        size: u64,
    },
    /// Remove an image and its data; answered with [`AdminAnswer::Done`].
    ImageRemove {
        /// Its path.
        path: String,
    },
    /// Give an image another path, where nothing may be yet; answered with [`AdminAnswer::Image`].
    ImageRename {
        /// Its path.
        from: String,
        /// Its new path.
        to: String,
    },
    /// How the cluster is; answered with [`AdminAnswer::Status`].
    Status,
    /// All OSDs, ascending by number; answered with [`AdminAnswer::Osds`].
    OsdList,
    /// Stop an OSD until it is started again; answered with [`AdminAnswer::Done`] when it is down.
    OsdStop {
        /// Its number.
        osd: u32,
    },
    /// Start a stopped OSD; answered with [`AdminAnswer::Done`] when it is up, before it has recovered.
    OsdStart {
        /// Its number.
        osd: u32,
    },
    /// Have all copies of everything read and compared; answered with [`AdminAnswer::Scrub`] when that is asked for,
    /// before it is done.
    Scrub,
    /// Change what the cluster is made of; answered when the change is seen by this gateway.
    Change(ClusterChange),
    /// A question about what the cluster is made of.
    Ask(ClusterQuestion),
}

impl AdminCall {
    /// Whether it asks for a change; the others are questions.
    #[must_use]
    pub fn changes(&self) -> bool {
        use AdminCall as Call;
        !matches!(
            self,
            Call::ImageList | Call::ImageInfo { .. } | Call::Status | Call::OsdList | Call::Ask(_)
        )
    }
}

/// What a call that succeeded brings; as JSON it is the body of the HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AdminAnswer {
    /// Nothing to tell: `{}`.
    Done {},
    /// One image.
    Image(ImageInfo),
    /// All images.
    Images(ImageList),
    /// The cluster.
    Status(Box<Status>),
    /// All OSDs.
    Osds(OsdList),
    /// A scrub was asked for.
    Scrub(ScrubAsked),
    /// One OSD.
    Osd(OsdInfo),
    /// One pool.
    Pool(PoolInfo),
    /// All pools.
    Pools(PoolList),
    /// Space.
    Df(Df),
    /// The placement tree.
    Tree(Tree),
    /// PGs.
    Pgs(PgList),
    /// One PG, explained.
    Pg(PgExplained),
    /// The monitors.
    Monitors(MonitorList),
    /// The gateways.
    Gateways(GatewayList),
    /// The settings.
    Settings(Settings),
}

/// How a call ended.
pub type AdminResult = Result<AdminAnswer, AdminError>;
