//! What cluster a metadata store holds; making one in an empty store.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use trivet_core::keys::{self, Cluster};
use trivet_core::kv::{Change, Compare, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_meta::{Etcd, Meta, MetaUrl};
use trivet_namespace::{Namespace, Time};

/// Who the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId {
    /// Its id.
    pub id: [u8; 16],
    /// What its NFS file handles are sealed with.
    pub secret: [u8; 16],
}

impl ClusterId {
    /// A new one.
    pub fn draw() -> anyhow::Result<ClusterId> {
        Ok(ClusterId {
            id: random()?,
            secret: random()?,
        })
    }

    /// As the metadata store has it.
    pub fn parse(cluster: &Cluster) -> anyhow::Result<ClusterId> {
        Ok(ClusterId {
            id: parse_id(&cluster.id).context("the metadata store's cluster id is damaged")?,
            secret: parse_id(&cluster.secret).context("the metadata store's cluster secret is damaged")?,
        })
    }

    /// The cluster's id as a number: what file systems and SCSI units are told apart by.
    pub fn number(&self) -> u64 {
        u64::from_le_bytes(*self.id.first_chunk().expect("16 bytes hold 8"))
    }

    /// Writes it down, with an empty tree of names, if there is no cluster yet.
    pub fn record(&self, wall: Time) -> Txn {
        let cluster = Cluster {
            id: hex(self.id),
            secret: hex(self.secret),
        };
        let root = Namespace::bootstrap(wall);
        let mut compare = root.compare;
        compare.push(Compare::Absent(keys::CLUSTER.into()));
        let mut changes = vec![Change::put(keys::CLUSTER, encode(&cluster))];
        changes.extend(root.changes);
        Txn { compare, changes }
    }
}

/// Opens the metadata store of a cluster of several processes.
pub async fn open(url: &MetaUrl) -> anyhow::Result<Arc<dyn Meta>> {
    let etcd = Etcd::open(url).await.with_context(|| format!("--meta {url}"))?;
    Ok(etcd)
}

/// The cluster in the store; makes one if there is none.
pub async fn ensure(store: &Arc<dyn Meta>) -> anyhow::Result<ClusterId> {
    if let Some(cluster) = read(store).await? {
        return Ok(cluster);
    }
    let cluster = ClusterId::draw()?;
    match store.txn(cluster.record(wall())).await? {
        TxnOutcome::Committed(_) => Ok(cluster),
        // Somebody else has made one meanwhile, or it is this one.
        TxnOutcome::Refused(_) | TxnOutcome::Unknown => match read(store).await? {
            Some(cluster) => Ok(cluster),
            None => bail!("the new cluster could not be written down; try again"),
        },
    }
}

async fn read(store: &Arc<dyn Meta>) -> anyhow::Result<Option<ClusterId>> {
    let Some(kv) = store.get(keys::CLUSTER).await? else {
        return Ok(None);
    };
    let cluster: Cluster = serde_json::from_slice(&kv.value)
        .with_context(|| format!("the metadata store's {} is damaged", keys::CLUSTER))?;
    ClusterId::parse(&cluster).map(Some)
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}

/// As 32 hexadecimal digits.
fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
    Ok(bytes)
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

/// The name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
