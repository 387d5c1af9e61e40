//! What cluster a data folder holds, or is to hold; and writing that down.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use trivet_core::keys::{self, Cluster, OsdConfig, Pool};
use trivet_core::kv::{Change, Compare, Notice, Txn, TxnOutcome};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PoolId};
use trivet_meta::Meta;
use trivet_namespace::{Namespace, Time};

use crate::args::UpArgs;

/// The smallest OSD: log and checkpoint areas take their part, and something must be left.
const MIN_OSD: u64 = 256 << 20;
/// OSD files are multiples of this.
const OSD_GRAIN: u64 = 1 << 20;
/// The pool that `trivet up` makes.
const POOL: PoolId = PoolId(1);
/// PGs of that pool.
const PGS: u32 = 32;

/// The cluster on a data folder.
#[derive(Clone, Debug)]
pub struct Plan {
    /// It is to be made.
    pub new: bool,
    /// Its id.
    pub cluster: [u8; 16],
    /// What its file handles are sealed with.
    pub secret: [u8; 16],
    /// Its OSDs with their sizes in bytes.
    pub osds: Vec<(OsdId, u64)>,
    replicas: usize,
}

impl Plan {
    /// The cluster's id as a number: what file systems and SCSI units are told apart by.
    pub fn number(&self) -> u64 {
        u64::from_le_bytes(*self.cluster.first_chunk().expect("16 bytes hold 8"))
    }
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
    Ok(bytes)
}

/// Reads what is there; if nothing is, plans what the arguments ask for.
pub fn plan(args: &UpArgs, runtime: &tokio::runtime::Runtime, store: &Arc<dyn Meta>) -> anyhow::Result<Plan> {
    let range = runtime.block_on(store.range(""))?;
    let mut map = ClusterMap::default();
    map.apply(&Notice::Snapshot {
        revision: range.revision,
        keys: range.keys,
    });
    if let Some(cluster) = &map.cluster {
        let id = parse_id(&cluster.id).context("the metadata store's cluster id is damaged")?;
        let secret = parse_id(&cluster.secret).context("the metadata store's cluster secret is damaged")?;
        let osds = map
            .members
            .iter()
            .map(|(&osd, config)| (osd, config.value.size))
            .collect();
        return Ok(Plan {
            new: false,
            cluster: id,
            secret,
            osds,
            replicas: 0,
        });
    }
    if args.osd_size < MIN_OSD {
        bail!(
            "--osd-size {}: too small; an OSD needs at least {} MiB",
            args.osd_size,
            MIN_OSD >> 20
        );
    }
    let size = args.osd_size / OSD_GRAIN * OSD_GRAIN;
    let osds = (1..=args.osds).map(|number| (OsdId(number), size)).collect();
    Ok(Plan {
        new: true,
        cluster: random()?,
        secret: random()?,
        osds,
        replicas: usize::try_from(args.replicas)?,
    })
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}

/// Writes a new cluster down, once its disks are formatted: from here on the folder holds a cluster.
pub async fn record(plan: &Plan, store: &Arc<dyn Meta>) -> anyhow::Result<()> {
    if !plan.new {
        return Ok(());
    }
    let hex = |bytes| format!("{:032x}", u128::from_be_bytes(bytes));
    let cluster = Cluster {
        id: hex(plan.cluster),
        secret: hex(plan.secret),
    };
    let pool = Pool {
        name: "default".into(),
        replicas: plan.replicas,
        min_size: 1,
        pg_count: PGS,
        ..Pool::default()
    };
    let mut changes = vec![
        Change::put(keys::CLUSTER, encode(&cluster)),
        Change::put(keys::pool(POOL), encode(&pool)),
    ];
    changes.extend(plan.osds.iter().map(|&(osd, size)| {
        Change::put(
            keys::osd_config(osd),
            encode(&OsdConfig {
                size,
                ..OsdConfig::default()
            }),
        )
    }));
    let root = Namespace::bootstrap(wall());
    changes.extend(root.changes);
    let mut compare = root.compare;
    compare.push(Compare::Absent(keys::CLUSTER.into()));
    match store.txn(Txn { compare, changes }).await? {
        TxnOutcome::Committed(_) => Ok(()),
        TxnOutcome::Refused(_) | TxnOutcome::Unknown => bail!("the new cluster could not be written down"),
    }
}

/// The wall clock.
pub fn wall() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nsec: since.subsec_nanos(),
    }
}
