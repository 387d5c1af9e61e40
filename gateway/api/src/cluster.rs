//! What can be asked about the cluster's make-up and changed of it: pools, OSDs, the placement tree, PGs, settings, and who
//! runs; with the bodies of the requests, as JSON. What is shown of it is in `listings`.

use serde::{Deserialize, Serialize};
use trivet_core::keys::Settings;

use super::AdminError;
use super::words::{Thousandths, clean_tags, valid_pool_name, valid_word};

/// Copies of an object that are possible.
pub const MAX_REPLICAS: u32 = 16;
/// PGs that a pool can have: its plan is one value, and etcd takes 1.5 MiB.
pub const MAX_PGS: u32 = 4096;
/// PGs of a pool when nobody says.
pub const DEFAULT_PGS: u32 = 64;
/// The longest time until an OSD that is down loses its PGs: a year, seconds.
const MAX_OUT_S: u64 = 31_536_000;

/// A change of the cluster's make-up. What its fields hold has been checked alone, not yet against the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// Make a pool; answered with `Pool`.
    PoolCreate(CreatePool),
    /// Change a pool; answered with `Pool`.
    PoolModify {
        /// Its name or id.
        pool: String,
        /// What to change.
        patch: PatchPool,
    },
    /// Remove a pool that no image is in; answered with `Done`.
    PoolRemove {
        /// Its name or id.
        pool: String,
    },
    /// Change how an OSD is used; answered with `Osd`.
    OsdModify {
        /// Its number.
        osd: u32,
        /// What to change.
        patch: PatchOsd,
    },
    /// Forget an OSD that is down and that nothing needs any more; answered with `Done`.
    OsdRemove {
        /// Its number.
        osd: u32,
    },
    /// Make or move a place of the tree; answered with `Done`.
    TreeSet {
        /// Its name.
        name: String,
        /// What it is.
        place: SetPlace,
    },
    /// Remove a place that nothing is in; answered with `Done`.
    TreeRemove {
        /// Its name.
        name: String,
    },
    /// Change settings; answered with `Settings`.
    Settings(PatchSettings),
    /// Take a metadata store that is older than the data for the right one; answered with `Done`.
    Adopt(Adopt),
}

/// A question about the cluster's make-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterQuestion {
    /// All pools, ascending by id; answered with `Pools`.
    Pools,
    /// Space; answered with `Df`.
    Df,
    /// The placement tree; answered with `Tree`.
    Tree,
    /// The PGs that a filter lets through; answered with `Pgs`.
    Pgs(PgFilter),
    /// Why a PG is as it is; answered with `Pg`.
    Pg {
        /// Pool (name or id), point, number.
        pg: String,
    },
    /// The monitors; answered with `Monitors`.
    Monitors,
    /// The gateways; answered with `Gateways`.
    Gateways,
    /// The settings; answered with `Settings`.
    Settings,
}

/// The body of `POST /api/v1/pools`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// Unique.
    pub name: String,
    /// Copies of every object.
    pub replicas: u32,
    /// Writes wait while fewer copies can be made. Absent: 1 of up to 2 copies, else 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_size: Option<u32>,
    /// Absent: [`DEFAULT_PGS`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pg_count: Option<u32>,
    /// Absent: `host`, if there are as many hosts as copies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_domain: Option<String>,
    /// Only OSDs below this place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// Only OSDs with all of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub osd_tags: Vec<String>,
    /// OSDs with all of these tags are rather made primaries.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub primary_tags: Vec<String>,
}

impl CreatePool {
    /// The call it asks for.
    ///
    /// # Errors
    /// `Invalid` when a field is wrong by itself.
    pub fn change(self) -> Result<ClusterChange, AdminError> {
        valid_pool_name(&self.name)?;
        valid_copies(self.replicas, self.min_size)?;
        valid_pgs(self.pg_count.unwrap_or(DEFAULT_PGS))?;
        self.failure_domain
            .iter()
            .try_for_each(|d| valid_word("failure domain", d))?;
        self.root.iter().try_for_each(|root| valid_word("root", root))?;
        Ok(ClusterChange::PoolCreate(CreatePool {
            osd_tags: clean_tags(&self.osd_tags)?,
            primary_tags: clean_tags(&self.primary_tags)?,
            ..self
        }))
    }

    /// What `min_size` is when nobody says: one copy may be away, and of three and more, two are there.
    #[must_use]
    pub fn min_size(&self) -> u32 {
        self.min_size.unwrap_or(if self.replicas <= 2 { 1 } else { 2 })
    }
}

/// The body of `PATCH /api/v1/pools/NAME`; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchPool {
    /// Copies of every object.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replicas: Option<u32>,
    /// Writes wait while fewer copies can be made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_size: Option<u32>,
    /// How many PGs. They change while clients go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pg_count: Option<u32>,
    /// Copies are in different places of this level.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_domain: Option<String>,
    /// Only OSDs below this place; empty: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// Only OSDs with all of these tags.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub osd_tags: Option<Vec<String>>,
    /// OSDs with all of these tags are rather made primaries.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub primary_tags: Option<Vec<String>>,
}

impl PatchPool {
    /// The call it asks for, of the pool `pool`.
    ///
    /// # Errors
    /// `Invalid` when it asks for nothing, or a field is wrong by itself.
    pub fn change(self, pool: String) -> Result<ClusterChange, AdminError> {
        if self == PatchPool::default() {
            return Err(AdminError::invalid(
                "nothing to change: give replicas, min_size, pg_count, failure_domain, root, osd_tags or primary_tags",
            ));
        }
        if let Some(replicas) = self.replicas {
            valid_copies(replicas, None)?;
        }
        self.pg_count.map_or(Ok(()), valid_pgs)?;
        self.failure_domain
            .iter()
            .try_for_each(|d| valid_word("failure domain", d))?;
        let root = self.root.iter().filter(|root| !root.is_empty());
        root.into_iter().try_for_each(|root| valid_word("root", root))?;
        let clean = |tags: Option<Vec<String>>| tags.map(|tags| clean_tags(&tags)).transpose();
        let patch = PatchPool {
            osd_tags: clean(self.osd_tags)?,
            primary_tags: clean(self.primary_tags)?,
            ..self
        };
        Ok(ClusterChange::PoolModify { pool, patch })
    }
}

/// That so many copies are possible, and that `min_size` fits them.
///
/// # Errors
/// `Invalid`, with the rule.
pub fn valid_copies(replicas: u32, min_size: Option<u32>) -> Result<(), AdminError> {
    if !(1..=MAX_REPLICAS).contains(&replicas) {
        return Err(AdminError::invalid(format!(
            "bad number of replicas {replicas}: give 1 to {MAX_REPLICAS}"
        )));
    }
    match min_size {
        Some(min_size) if !(1..=replicas).contains(&min_size) => Err(AdminError::invalid(format!(
            "bad min_size {min_size}: give 1 to {replicas}, the number of replicas"
        ))),
        _ => Ok(()),
    }
}

fn valid_pgs(pgs: u32) -> Result<(), AdminError> {
    if (1..=MAX_PGS).contains(&pgs) {
        return Ok(());
    }
    Err(AdminError::invalid(format!(
        "bad number of PGs {pgs}: give 1 to {MAX_PGS}"
    )))
}

/// The body of `PATCH /api/v1/osds/N`; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchOsd {
    /// The part of its size that the placement uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reweight: Option<Thousandths>,
    /// In place of the tags that it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tags: Option<Vec<String>>,
    /// To its tags.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub add_tags: Vec<String>,
    /// From its tags.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remove_tags: Vec<String>,
    /// However long it is down, it keeps its PGs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub noout: Option<bool>,
    /// True takes it out of the placement; false takes it in again, also after it was down for too long.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out: Option<bool>,
}

impl PatchOsd {
    /// The call it asks for, of the OSD `osd`.
    ///
    /// # Errors
    /// `Invalid` when it asks for nothing, or a field is wrong by itself.
    pub fn change(self, osd: u32) -> Result<ClusterChange, AdminError> {
        if self == PatchOsd::default() {
            return Err(AdminError::invalid(
                "nothing to change: give reweight, tags, add_tags, remove_tags, noout or out",
            ));
        }
        let patch = PatchOsd {
            tags: self.tags.map(|tags| clean_tags(&tags)).transpose()?,
            add_tags: clean_tags(&self.add_tags)?,
            ..self
        };
        Ok(ClusterChange::OsdModify { osd, patch })
    }
}

/// The body of `PUT /api/v1/tree/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPlace {
    /// What kind of place: `host`, `rack`, any word but `osd`.
    pub level: String,
    /// The place that it is in; absent: none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<String>,
}

impl SetPlace {
    /// The call it asks for, of the place `name`.
    ///
    /// # Errors
    /// `Invalid` when a field is wrong by itself.
    pub fn change(self, name: String) -> Result<ClusterChange, AdminError> {
        valid_word("name", &name)?;
        valid_word("level", &self.level)?;
        self.parent.iter().try_for_each(|parent| valid_word("parent", parent))?;
        Ok(ClusterChange::TreeSet { name, place: self })
    }
}

/// The body of `POST /api/v1/meta/adopt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// OSDs that are given up, with all that only they have.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub without: Vec<u32>,
}

/// The query of `GET /api/v1/pgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PgFilter {
    /// Of this pool: name or id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
    /// That this OSD is in: planned or acting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub osd: Option<u32>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
}

/// The body of `PATCH /api/v1/settings`; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchSettings {
    /// An OSD that is down for longer loses its PGs to others, seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub osd_out_s: Option<u64>,
    /// Nothing is moved to an OSD that would be fuller than this, per cent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backfill_full_pct: Option<u32>,
    /// Objects get their missing copies only when a client works on them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_recovery: Option<bool>,
}

impl PatchSettings {
    /// The call it asks for.
    ///
    /// # Errors
    /// `Invalid` when it asks for nothing, or a value makes no sense.
    pub fn change(self) -> Result<ClusterChange, AdminError> {
        if self == PatchSettings::default() {
            return Err(AdminError::invalid(
                "nothing to change: give osd_out_s, backfill_full_pct or no_recovery",
            ));
        }
        match self {
            PatchSettings { osd_out_s: Some(s), .. } if !(1..=MAX_OUT_S).contains(&s) => Err(AdminError::invalid(
                format!("bad osd_out_s {s}: give 1 to {MAX_OUT_S} seconds; for single OSDs there is noout"),
            )),
            PatchSettings {
                backfill_full_pct: Some(pct),
                ..
            } if !(1..=100).contains(&pct) => Err(AdminError::invalid(format!(
                "bad backfill_full_pct {pct}: give 1 to 100 per cent"
            ))),
            patch => Ok(ClusterChange::Settings(patch)),
        }
    }

    /// The settings with what it changes.
    #[must_use]
    pub fn on(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        settings.osd_out_s = self.osd_out_s.unwrap_or(settings.osd_out_s);
        settings.backfill_full_pct = self.backfill_full_pct.unwrap_or(settings.backfill_full_pct);
        settings.no_recovery = self.no_recovery.unwrap_or(settings.no_recovery);
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_checked_alone() {
        let create = |json: &str| serde_json::from_str::<CreatePool>(json).map(CreatePool::change);
        assert!(create(r#"{"name": "p", "replicas": 2}"#).unwrap().is_ok());
        for (json, why) in [
            (r#"{"name": "", "replicas": 2}"#, "pool name"),
            (r#"{"name": "5", "replicas": 2}"#, "number"),
            (r#"{"name": "p", "replicas": 0}"#, "replicas 0"),
            (r#"{"name": "p", "replicas": 17}"#, "1 to 16"),
            (r#"{"name": "p", "replicas": 2, "min_size": 3}"#, "min_size 3"),
            (r#"{"name": "p", "replicas": 2, "min_size": 0}"#, "min_size 0"),
            (r#"{"name": "p", "replicas": 2, "pg_count": 0}"#, "PGs 0"),
            (r#"{"name": "p", "replicas": 2, "pg_count": 5000}"#, "4096"),
            (r#"{"name": "p", "replicas": 2, "osd_tags": ["a b"]}"#, "tag"),
            (r#"{"name": "p", "replicas": 2, "root": "a/b"}"#, "root"),
        ] {
            let error = create(json).unwrap().unwrap_err();
            assert!(error.message.contains(why), "{json}: {error}");
        }
        assert!(create(r#"{"name": "p", "replicas": 2, "size": 1}"#).is_err());
    }

    #[test]
    fn min_size_follows_the_replicas() {
        let min_size = |replicas| {
            let pool = CreatePool {
                replicas,
                ..CreatePool::default()
            };
            pool.min_size()
        };
        assert_eq!([1, 2, 3, 4].map(min_size), [1, 1, 2, 2]);
    }

    #[test]
    fn patches_ask_for_something_sensible() {
        assert!(PatchPool::default().change("p".into()).is_err());
        assert!(PatchOsd::default().change(1).is_err());
        assert!(PatchSettings::default().change().is_err());
        for (json, good) in [
            (r#"{"osd_out_s": 60}"#, true),
            (r#"{"osd_out_s": 0}"#, false),
            (r#"{"backfill_full_pct": 85}"#, true),
            (r#"{"backfill_full_pct": 101}"#, false),
            (r#"{"no_recovery": true}"#, true),
        ] {
            let patch: PatchSettings = serde_json::from_str(json).unwrap();
            assert_eq!(patch.change().is_ok(), good, "{json}");
        }
        let patch: PatchOsd = serde_json::from_str(r#"{"reweight": 0.5, "tags": ["b", "a"]}"#).unwrap();
        let Ok(ClusterChange::OsdModify { osd: 3, patch }) = patch.change(3) else {
            panic!()
        };
        assert_eq!(patch.tags, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(patch.reweight, Some(Thousandths::new(500)));
    }
}
