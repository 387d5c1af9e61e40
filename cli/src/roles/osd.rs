//! `trivet osd format` and `trivet osd run`: one disk, one process.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use trivet_core::OsdId;
use trivet_core::keys::{self, OsdConfig};
use trivet_core::kv::{Change, Compare, KeyValue, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_meta::Meta;
use trivet_node::cluster::{self, ClusterId, host, random};
use trivet_node::control::Duties;
use trivet_node::data::Setup;
use trivet_node::osds::{self, Disk};
use trivet_node::runtime;
use trivet_reactor::{Config, Reactor};

use super::disk::{fingerprint, look};
use crate::roles::args::{FormatArgs, RunArgs};

/// Files are multiples of this.
const GRAIN: u64 = 1 << 20;

/// Makes a disk an OSD of the cluster, and prints its number.
pub fn format(args: &FormatArgs) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let size = wanted_size(args)?;
    if !args.force
        && let Ok(there) = look(&args.disk)
    {
        bail!(
            "{}: there is OSD {} on it already; to lose what it has, give --force",
            args.disk.display(),
            there.osd
        );
    }
    let store = runtime.block_on(cluster::open(&args.meta.url))?;
    let cluster = runtime.block_on(cluster::ensure(&store))?;
    let osd = runtime.block_on(reserve(&store, args.osd.map(OsdId)))?;
    let secret = random()?;
    let made = make(&args.disk, osd, size, &cluster, secret);
    let config = match made {
        Ok(size) => OsdConfig {
            size,
            store: Some(fingerprint(&secret)),
            ..OsdConfig::default()
        },
        Err(error) => {
            // The number stays free; a number that stays reserved does no harm.
            let _ = runtime.block_on(store.txn(Txn {
                compare: Vec::new(),
                changes: vec![Change::Delete(keys::osd_config(osd))],
            }));
            return Err(error);
        }
    };
    runtime.block_on(put(&store, osd, &config, Compare::Exists(keys::osd_config(osd))))?;
    crate::print(&format!("{osd}\n"))
}

/// A file needs a size; a device has one.
fn wanted_size(args: &FormatArgs) -> anyhow::Result<Option<u64>> {
    match (args.size, args.disk.exists()) {
        (None, false) => bail!("{}: no such disk; to make a file, give --size", args.disk.display()),
        (size, _) => Ok(size.map(|size| size / GRAIN * GRAIN)),
    }
}

fn make(path: &Path, osd: OsdId, size: Option<u64>, cluster: &ClusterId, secret: [u8; 16]) -> anyhow::Result<u64> {
    let mut reactor = Reactor::new(&Config::default()).context("cannot set up the event loop")?;
    osds::format(&mut reactor, osd, path, size, cluster.id, secret)
}

/// Takes the number, or the next one that nobody has.
async fn reserve(store: &Arc<dyn Meta>, wanted: Option<OsdId>) -> anyhow::Result<OsdId> {
    loop {
        let osd = match wanted {
            Some(osd) => osd,
            None => next_free(store).await?,
        };
        let key = keys::osd_config(osd);
        match put(store, osd, &OsdConfig::default(), Compare::Absent(key)).await {
            Ok(()) => return Ok(osd),
            Err(_) if wanted.is_none() && store.get(&keys::osd_config(osd)).await?.is_some() => {}
            Err(_) if wanted.is_some() && store.get(&keys::osd_config(osd)).await?.is_some() => bail!(
                "OSD {osd} exists already; leave out --osd for the next free number, or remove it with 'trivet osd rm {osd}'"
            ),
            Err(error) => return Err(error),
        }
    }
}

async fn next_free(store: &Arc<dyn Meta>) -> anyhow::Result<OsdId> {
    let range = store.range(keys::OSDS).await?;
    let number = |kv: &KeyValue| kv.key.split('/').nth(1)?.parse::<u32>().ok();
    let last = range.keys.iter().filter_map(number).max().unwrap_or(0);
    Ok(OsdId(last.checked_add(1).context("no free OSD number")?))
}

async fn put(store: &Arc<dyn Meta>, osd: OsdId, config: &OsdConfig, compare: Compare) -> anyhow::Result<()> {
    let txn = Txn {
        compare: vec![compare],
        changes: vec![Change::put(keys::osd_config(osd), encode(config))],
    };
    match store.txn(txn).await? {
        TxnOutcome::Committed(_) => Ok(()),
        TxnOutcome::Refused(_) => bail!("OSD {osd} was changed by somebody else at the same time; try again"),
        TxnOutcome::Unknown => bail!("the metadata store did not say whether OSD {osd} was written; try again"),
    }
}

/// Runs the OSD until SIGTERM or SIGINT, or until its disk fails.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (_log, runtime) = trivet_node::begin()?;
    let store = runtime.block_on(cluster::open(&args.meta.url))?;
    let cluster = runtime.block_on(cluster::find(&store))?;
    let cluster = cluster.with_context(|| format!("there is no cluster at {}; is --meta right?", args.meta.url))?;
    let there = look(&args.disk)?;
    ensure!(
        there.cluster == cluster.id,
        "{}: belongs to another cluster than {}; is --meta right?",
        args.disk.display(),
        args.meta.url
    );
    let host = args.host.clone().unwrap_or_else(host);
    runtime.block_on(admit(&store, there.osd, &fingerprint(&there.store), &host, &args.disk))?;
    let started = trivet_node::start(Setup {
        cluster,
        gateway: None,
        disks: vec![Disk {
            osd: there.osd,
            path: args.disk.clone(),
            size: there.size,
            fresh: false,
            listen: Some(args.listen),
            advertise: args.advertise,
        }],
        distributed: true,
    })?;
    trivet_node::serve(runtime, store, started, Duties::default())
}

/// Whether this disk is the one that the cluster knows by this number; notes the host that it is on.
async fn admit(store: &Arc<dyn Meta>, osd: OsdId, store_id: &str, host: &str, disk: &Path) -> anyhow::Result<()> {
    let disk = disk.display();
    let Some(kv) = store.get(&keys::osd_config(osd)).await? else {
        bail!("{disk}: OSD {osd} was removed from the cluster; 'trivet osd format --force' makes the disk a new OSD");
    };
    let mut config: OsdConfig = serde_json::from_slice(&kv.value)
        .with_context(|| format!("the metadata store's {} is damaged", keys::osd_config(osd)))?;
    ensure!(
        config.store.as_deref() == Some(store_id),
        "{disk}: the cluster knows another disk as OSD {osd}: this one was formatted anew, or is an old copy; \
         'trivet osd format --force' makes it a new OSD, under a new number"
    );
    if config.host.as_deref() == Some(host) {
        return Ok(());
    }
    config.host = Some(host.to_owned());
    let unchanged = Compare::ModRevision(keys::osd_config(osd), kv.mod_revision);
    put(store, osd, &config, unchanged).await
}
