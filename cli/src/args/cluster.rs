//! The commands about what the cluster is made of: pools, OSDs, the placement tree, PGs, settings, and who runs.

use clap::{Args, Subcommand, ValueEnum};
use trivet_api::{PatchPool, Thousandths, valid_pool_name, valid_word};

use super::osd;

/// Of `trivet meta`.
#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Take the metadata, which is older than the data, for the right one: every copy of the data counts
    Adopt {
        /// OSDs that are given up, with all that only they have
        #[arg(long, value_name = "OSDS", value_delimiter = ',', value_parser = osd)]
        without: Vec<u32>,
    },
}

/// Of `trivet pool`.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Make a pool
    Create(CreateArgs),
    /// List all pools
    Ls,
    /// Change a pool; what is not given stays
    Modify(ModifyArgs),
    /// Remove a pool that no image is in
    Rm {
        /// Its name or id
        #[arg(value_parser = word)]
        pool: String,
    },
}

/// Of `trivet pool create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    #[arg(value_parser = pool_name)]
    pub name: String,
    /// Copies of every object
    #[arg(long)]
    pub replicas: u32,
    /// Operations wait while fewer copies can be made [default: 1 of up to 2 copies, else 2]
    #[arg(long)]
    pub min_size: Option<u32>,
    /// How many placement groups [default: 64]
    #[arg(long)]
    pub pgs: Option<u32>,
    /// Copies are in different places of this level: osd, host, or one that the tree has [default: host]
    #[arg(long, value_name = "LEVEL", value_parser = word)]
    pub failure_domain: Option<String>,
    /// Only OSDs below this place of the tree
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub root: Option<String>,
    /// Only OSDs that have all of these tags
    #[arg(long, value_name = "TAGS", value_delimiter = ',', value_parser = word)]
    pub osd_tags: Vec<String>,
    /// OSDs that have all of these tags are rather made primaries
    #[arg(long, value_name = "TAGS", value_delimiter = ',', value_parser = word)]
    pub primary_tags: Vec<String>,
}

/// Of `trivet pool modify`.
#[derive(Debug, Args)]
pub struct ModifyArgs {
    /// Its name or id
    #[arg(value_parser = word)]
    pub pool: String,
    /// Copies of every object
    #[arg(long)]
    pub replicas: Option<u32>,
    /// Operations wait while fewer copies can be made
    #[arg(long)]
    pub min_size: Option<u32>,
    /// How many placement groups
    #[arg(long)]
    pub pgs: Option<u32>,
    /// Copies are in different places of this level: osd, host, or one that the tree has
    #[arg(long, value_name = "LEVEL", value_parser = word)]
    pub failure_domain: Option<String>,
    /// Only OSDs below this place of the tree; '' for all
    #[arg(long, value_name = "NAME")]
    pub root: Option<String>,
    /// Only OSDs that have all of these tags; '' for all
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub osd_tags: Option<Vec<String>>,
    /// OSDs that have all of these tags are rather made primaries; '' for none
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub primary_tags: Option<Vec<String>>,
}

impl ModifyArgs {
    /// What it asks the API for.
    pub fn patch(&self) -> PatchPool {
        let tags = |given: &Option<Vec<String>>| {
            let given = given.as_ref()?.iter();
            Some(given.filter(|tag| !tag.is_empty()).cloned().collect())
        };
        PatchPool {
            replicas: self.replicas,
            min_size: self.min_size,
            pg_count: self.pgs,
            failure_domain: self.failure_domain.clone(),
            root: self.root.clone(),
            osd_tags: tags(&self.osd_tags),
            primary_tags: tags(&self.primary_tags),
        }
    }
}

/// Of `trivet osd`: what an administrator decides about OSDs.
#[derive(Debug, Subcommand)]
pub enum OsdManage {
    /// Show and change the placement tree
    Tree {
        /// Without one, the tree is shown.
        #[command(subcommand)]
        command: Option<TreeCommand>,
    },
    /// Show the space on all OSDs
    Df,
    /// Have the placement use a part of an OSD's size only
    Reweight {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
        /// The part, from 0 to 1, like 0.5
        weight: Thousandths,
    },
    /// Give tags to OSDs, for pools to choose by
    #[command(subcommand)]
    Tag(TagCommand),
    /// Take an OSD out of the placement: its PGs move to others
    Out {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
    },
    /// Take an OSD into the placement again
    In {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
    },
    /// Forget an OSD that is down and that nothing needs any more
    Rm {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
    },
    /// Have an OSD keep its PGs however long it is down
    Noout {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
        /// Whether
        #[arg(value_enum, default_value_t = Switch::On)]
        switch: Switch,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is so.
    On,
    /// It is not.
    Off,
}

/// Of `trivet osd tree`.
#[derive(Debug, Subcommand)]
pub enum TreeCommand {
    /// Make a place, or move it
    Set {
        /// Its name; of a host the name that its OSDs give
        #[arg(value_parser = word)]
        name: String,
        /// What it is: host, rack, any word
        #[arg(long, value_parser = word)]
        level: String,
        /// The place that it is in [default: none]
        #[arg(long, value_name = "NAME", value_parser = word)]
        parent: Option<String>,
    },
    /// Remove a place that nothing is in
    Rm {
        /// Its name
        #[arg(value_parser = word)]
        name: String,
    },
}

/// Of `trivet osd tag`.
#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// Give an OSD tags
    Add(TagArgs),
    /// Take tags from an OSD
    Rm(TagArgs),
}

/// An OSD and tags.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The OSD's number
    #[arg(value_parser = osd)]
    pub osd: u32,
    /// The tags
    #[arg(required = true, value_delimiter = ',', value_parser = word)]
    pub tags: Vec<String>,
}

/// Of `trivet pg`.
#[derive(Debug, Subcommand)]
pub enum PgCommand {
    /// List PGs
    Ls {
        /// Of this pool: name or id
        #[arg(long, value_parser = word)]
        pool: Option<String>,
        /// That this OSD is in
        #[arg(long, value_parser = osd)]
        osd: Option<u32>,
        /// In this state: clean, recovering, degraded, peering, inactive
        #[arg(long, value_parser = word)]
        state: Option<String>,
    },
    /// Say why a PG is as it is
    Explain {
        /// Pool (name or id) and number, like 1.0
        #[arg(value_name = "POOL.N", value_parser = word)]
        pg: String,
    },
}

/// Of `trivet settings`.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Without one, the settings are shown.
    #[command(subcommand)]
    pub command: Option<SettingsCommand>,
}

/// Of `trivet settings`.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Show all settings
    Show,
    /// Change a setting
    Set {
        /// Which
        #[arg(value_enum)]
        name: Setting,
        /// To what
        value: u32,
    },
}

/// The settings by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Setting {
    /// An OSD that is down for longer loses its PGs to others, seconds
    #[value(name = "osd_out_s")]
    OsdOutS,
    /// Nothing is moved to an OSD that would be fuller than this, per cent
    #[value(name = "backfill_full_pct")]
    BackfillFullPct,
    /// 1: objects get their missing copies only when a client works on them; 0: in the background, too
    #[value(name = "no_recovery")]
    NoRecovery,
}

fn word(text: &str) -> Result<String, String> {
    let checked = valid_word("name", text).map_err(|error| error.message);
    checked.map(|()| text.to_owned())
}

fn pool_name(text: &str) -> Result<String, String> {
    let checked = valid_pool_name(text).map_err(|error| error.message);
    checked.map(|()| text.to_owned())
}
