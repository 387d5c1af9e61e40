//! What the API shows and takes, as JSON; the CLI reads the same types. Sizes are bytes, times Unix seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AdminCall, AdminError, MAX_IMAGE_SIZE, OpTotals, SECTOR, Thousandths, new_path};

/// The longest iSCSI name, bytes (RFC 7143 section 4.2.7.1).
const ISCSI_NAME_MAX: usize = 223;
/// What every image's target name begins with.
const IQN_PREFIX: &str = "iqn.2026-11.io.trivet:";

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its id, hexadecimal; never changes.
    pub id: String,
    /// Bytes that clients see.
    pub size: u64,
    /// The name of the pool that it lives in.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub pool: String,
    /// Bytes of data written to it, before replication; absent while not all OSDs have said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
    /// How many objects hold them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub objects: Option<u64>,
    /// Operations on it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ops: Option<OpTotals>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<u64>,
    /// When its data or size was last changed, as NFS shows it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modified: Option<u64>,
    /// Its NBD export name.
    pub nbd: String,
    /// Its iSCSI target; it is LUN 0. Absent when the path is too long for an iSCSI name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iscsi: Option<String>,
    /// Its NFS path, with a leading slash.
    pub nfs: String,
}

impl ImageInfo {
    /// The image `id` at `path`, with the addresses that follow from the path.
    #[must_use]
    pub fn new(path: &str, id: impl std::fmt::Display, size: u64) -> ImageInfo {
        ImageInfo {
            path: path.to_owned(),
            id: id.to_string(),
            size,
            nbd: path.to_owned(),
            iscsi: iscsi_target(path),
            nfs: format!("/{path}"),
            ..ImageInfo::default()
        }
    }
}

/// The iSCSI target of the image at `path`: `/` written as `:`; `None` when it would be longer than a name may be.
#[must_use]
pub fn iscsi_target(path: &str) -> Option<String> {
    let name = format!("{IQN_PREFIX}{}", path.replace('/', ":"));
    (name.len() <= ISCSI_NAME_MAX).then_some(name)
}

/// All images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {
    /// Ascending by path.
    pub images: Vec<ImageInfo>,
}

/// The body of `POST /api/v1/images`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    /// Where.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The name or id of the pool to put it in; absent: the one with the lowest id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
}

impl CreateImage {
    /// The call it asks for.
    ///
    /// # Errors
    /// `Invalid` when the path or the size is.
    pub fn call(self) -> Result<AdminCall, AdminError> {
        Ok(AdminCall::ImageCreate {
            path: new_path(&self.path)?,
            size: valid_size(self.size)?,
            pool: self.pool,
        })
    }
}

/// The body of `PATCH /api/v1/images/PATH`: exactly one of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchImage {
    /// The new size, bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The new path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

impl PatchImage {
    /// The call it asks for, of the image at `path`.
    ///
    /// # Errors
    /// `Invalid` when it asks for nothing, for both, or for a bad size or path.
    pub fn call(self, path: String) -> Result<AdminCall, AdminError> {
        match (self.size, self.path) {
            (Some(size), None) => Ok(AdminCall::ImageResize {
                path,
                size: valid_size(size)?,
            }),
            (None, Some(to)) => Ok(AdminCall::ImageRename {
                from: path,
                to: new_path(&to)?,
            }),
            _ => Err(AdminError::invalid("give either a new size or a new path")),
        }
    }
}

fn valid_size(size: u64) -> Result<u64, AdminError> {
    if size == 0 || size > MAX_IMAGE_SIZE || !size.is_multiple_of(SECTOR) {
        return Err(AdminError::invalid(format!(
            "bad image size {size}: give a multiple of {SECTOR} bytes, from {SECTOR} to {MAX_IMAGE_SIZE}"
        )));
    }
    Ok(size)
}

/// How the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The verdict.
    pub health: Health,
    /// Why it is not better; one line each.
    pub reasons: Vec<String>,
    /// The software's version.
    pub version: String,
    /// The cluster's id.
    pub cluster: String,
    /// Seconds since the gateway started.
    pub uptime_s: u64,
    /// OSDs.
    pub osds: OsdCounts,
    /// Placement groups.
    pub pgs: PgCounts,
    /// Raw space, every copy counted.
    pub capacity: Capacity,
    /// How many images there are.
    pub images: u64,
    /// Clients connected to this gateway.
    pub clients: ClientCounts,
    /// What is being repaired.
    pub recovery: Recovery,
    /// How far the last scrub is, and what it found.
    pub scrub: Scrub,
    /// The gateway that says all this.
    #[serde(default)]
    pub gateway: GatewayStatus,
}

/// How a gateway itself is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// It serves what is open, or would if the cluster did.
    pub serves: bool,
    /// It opens images by their names: not while its copy of the metadata is too old.
    pub opens: bool,
    /// How old that copy is, milliseconds; absent while it is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata_age_ms: Option<u64>,
    /// How long the metadata store takes to answer, milliseconds.
    pub metadata_latency_ms: u64,
    /// Bytes that clients' data takes: requests under way, what was received of others, answers that were not taken.
    pub buffers: u64,
    /// The budget for them.
    pub buffers_max: u64,
    /// Connections that are not read from because too little of it is left.
    pub waiting_for_buffers: u64,
    /// Lines of the log that could not be written.
    pub log_lines_lost: u64,
}

/// A verdict on the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Every object has all its copies, and room is left.
    Ok,
    /// Clients are served, but somebody should look.
    Warn,
    /// Some data cannot be read or written.
    #[default]
    Error,
}

/// OSDs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdCounts {
    /// All.
    pub total: u64,
    /// Those that serve.
    pub up: u64,
}

/// PGs by state; a PG may count in several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgCounts {
    /// All.
    pub total: u64,
    /// Those that serve reads and writes.
    pub active: u64,
    /// Those where every object has all its copies.
    pub clean: u64,
    /// Those with an OSD or copies missing.
    pub degraded: u64,
    /// Each PG once, under its exact state.
    pub by_state: BTreeMap<String, u64>,
}

/// Space on all OSDs, bytes, every copy counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// What there is.
    pub total: u64,
    /// What is taken.
    pub used: u64,
    /// What is left.
    pub free: u64,
}

/// Client connections (NBD, NFS) and sessions (iSCSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCounts {
    /// NBD connections.
    pub nbd: u64,
    /// iSCSI sessions.
    pub iscsi: u64,
    /// NFS connections.
    pub nfs: u64,
}

/// What is being repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Copies of objects that are missing or old.
    pub objects_missing: u64,
    /// How many are made a second, lately and as seen by this gateway.
    #[serde(default)]
    pub rate: u64,
    /// Seconds until none is missing, if it goes on like this; absent while nothing moves, and when nothing is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta_s: Option<u64>,
}

/// The scrub that was asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// Counts what was asked for; 0: nothing yet.
    pub number: u64,
    /// When it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<u64>,
    /// Seconds since then.
    pub age_s: u64,
    /// All PGs.
    pub pgs: u64,
    /// Those that are done with it.
    pub done: u64,
    /// Objects whose copies it compared.
    pub objects: u64,
    /// Objects of which it rewrote a damaged copy from a good one.
    pub repaired: u64,
    /// Objects whose copies differ though none of them is damaged, by each PG's last scrub.
    pub inconsistent: u64,
    /// Objects with data of which no good copy is left, by each PG's last scrub.
    pub lost: u64,
}

/// The answer to `POST /api/v1/scrub`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubAsked {
    /// The status shows this number, or a higher one, from soon on.
    pub number: u64,
}

/// Whether an OSD serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OsdState {
    /// It serves.
    Up,
    /// It does not.
    #[default]
    Down,
}

/// One OSD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdInfo {
    /// Its number.
    pub id: u32,
    /// Whether it serves.
    pub state: OsdState,
    /// The host that it ran on last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// Its disk or file.
    pub path: String,
    /// For pools to choose by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The part of its size that the placement uses.
    #[serde(default)]
    pub reweight: Thousandths,
    /// However long it is down, it keeps its PGs.
    #[serde(default)]
    pub noout: bool,
    /// An administrator took it out of the placement.
    #[serde(default)]
    pub out: bool,
    /// It was down for too long and lost its PGs; it comes in again when it is up.
    #[serde(default)]
    pub dropped: bool,
    /// Bytes it has.
    pub size: u64,
    /// Bytes that objects can take; 0 when it does not say.
    #[serde(default)]
    pub capacity: u64,
    /// Bytes taken.
    pub used: u64,
    /// Copies of objects on it.
    pub objects: u64,
    /// PGs it belongs to.
    pub pgs: u64,
    /// PGs it is the primary of.
    pub primary_pgs: u64,
}

/// All OSDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsdList {
    /// Ascending by number.
    pub osds: Vec<OsdInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_path() {
        let image = ImageInfo::new("vms/web01", "1000000000005", 4096);
        assert_eq!(image.nbd, "vms/web01");
        assert_eq!(image.iscsi.as_deref(), Some("iqn.2026-11.io.trivet:vms:web01"));
        assert_eq!(image.nfs, "/vms/web01");
        let room = ISCSI_NAME_MAX - IQN_PREFIX.len();
        assert!(iscsi_target(&"x".repeat(room)).is_some());
        assert!(iscsi_target(&"x".repeat(room + 1)).is_none());
    }

    #[test]
    fn sizes_are_whole_sectors() {
        for size in [512, 1024, 1 << 30, 1 << 62, MAX_IMAGE_SIZE] {
            assert_eq!(valid_size(size), Ok(size));
        }
        for size in [0, 1, 511, 513, 1 << 63, u64::MAX] {
            assert!(valid_size(size).is_err(), "{size}");
        }
    }

    #[test]
    fn a_patch_asks_for_one_thing() {
        let patch = |json: &str| {
            let patch: PatchImage = serde_json::from_str(json).unwrap();
            patch.call("a".into()).ok()
        };
        let resize = AdminCall::ImageResize {
            path: "a".into(),
            size: 512,
        };
        let rename = AdminCall::ImageRename {
            from: "a".into(),
            to: "b/c".into(),
        };
        assert_eq!(patch(r#"{"size": 512}"#), Some(resize));
        assert_eq!(patch(r#"{"path": "/b/c"}"#), Some(rename));
        assert_eq!(patch("{}"), None);
        assert_eq!(patch(r#"{"size": 512, "path": "b"}"#), None);
        assert_eq!(patch(r#"{"path": "b/../c"}"#), None);
        assert!(serde_json::from_str::<PatchImage>(r#"{"sise": 512}"#).is_err());
    }
}
