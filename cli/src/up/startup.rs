//! What cluster a data folder holds, or is to hold; and writing that down.

use std::sync::Arc;

use anyhow::bail;
use trivet_core::keys::{self, OsdConfig, Pool};
use trivet_core::kv::{Change, Notice, TxnOutcome};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PoolId};
use trivet_meta::Meta;
use trivet_node::cluster::{ClusterId, wall};

use super::folder::Folder;
use super::makeup::{self, Makeup};
use crate::args::UpArgs;

/// The pool that `trivet up` makes.
const POOL: PoolId = PoolId(1);
/// PGs of that pool.
const PGS: u32 = 32;

/// The cluster on a data folder.
#[derive(Clone, Debug)]
pub struct Plan {
    /// It is to be made.
    pub new: bool,
    /// Who it is.
    pub cluster: ClusterId,
    /// Its OSDs with their sizes in bytes.
    pub osds: Vec<(OsdId, u64)>,
    replicas: usize,
}

/// Reads what is there, which the arguments must not contradict; if nothing is, plans what they ask for.
pub fn plan(
    args: &UpArgs,
    folder: &Folder,
    runtime: &tokio::runtime::Runtime,
    store: &Arc<dyn Meta>,
) -> anyhow::Result<Plan> {
    let range = runtime.block_on(store.range(""))?;
    let mut map = ClusterMap::default();
    map.apply(&Notice::Snapshot {
        revision: range.revision,
        keys: range.keys,
    });
    if let Some(cluster) = &map.cluster {
        let cluster = ClusterId::parse(cluster)?;
        // In a metadata store that others share, OSDs may be theirs.
        let ours = |osd: OsdId| args.meta.is_none() || folder.disk(osd).exists();
        let members = map.members.iter().filter(|(osd, _)| ours(**osd));
        let osds: Vec<(OsdId, u64)> = members.map(|(&osd, config)| (osd, config.value.size)).collect();
        let pool = map.pools.get(&POOL).map(|pool| &pool.value);
        makeup::agree(args, &osds, pool)?;
        return Ok(Plan {
            new: false,
            cluster,
            osds,
            replicas: 0,
        });
    }
    let wanted = Makeup::wanted(args)?;
    let osds = (1..=wanted.osds)
        .map(|number| (OsdId(number), wanted.osd_size))
        .collect();
    Ok(Plan {
        new: true,
        cluster: ClusterId::draw()?,
        osds,
        replicas: usize::try_from(wanted.replicas)?,
    })
}

/// Writes a new cluster down, once its disks are formatted: from here on the folder holds a cluster.
pub async fn record(plan: &Plan, store: &Arc<dyn Meta>) -> anyhow::Result<()> {
    if !plan.new {
        return Ok(());
    }
    let pool = Pool {
        name: "default".into(),
        replicas: plan.replicas,
        min_size: 1,
        pg_count: PGS,
        ..Pool::default()
    };
    let mut txn = plan.cluster.record(wall());
    txn.changes.push(Change::put(keys::pool(POOL), encode(&pool)));
    txn.changes.extend(plan.osds.iter().map(|&(osd, size)| {
        let config = OsdConfig {
            size,
            ..OsdConfig::default()
        };
        Change::put(keys::osd_config(osd), encode(&config))
    }));
    match store.txn(txn).await? {
        TxnOutcome::Committed(_) => Ok(()),
        TxnOutcome::Refused(_) | TxnOutcome::Unknown => bail!("the new cluster could not be written down"),
    }
}
