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
    if let Some(cluster) = find(store).await? {
        return Ok(cluster);
    }
    let cluster = ClusterId::draw()?;
    match store.txn(cluster.record(wall())).await? {
        TxnOutcome::Committed(_) => Ok(cluster),
        // Somebody else has made one meanwhile, or it is this one.
        TxnOutcome::Refused(_) | TxnOutcome::Unknown => match find(store).await? {
            Some(cluster) => Ok(cluster),
            None => bail!("the new cluster could not be written down; try again"),
        },
    }
}

/// The cluster in the store, if there is one.
pub async fn find(store: &Arc<dyn Meta>) -> anyhow::Result<Option<ClusterId>> {
    let Some(kv) = store.get(keys::CLUSTER).await? else {
        return Ok(None);
    };
    let cluster: Cluster = serde_json::from_slice(&kv.value)
        .with_context(|| format!("the metadata store's {} is damaged", keys::CLUSTER))?;
    ClusterId::parse(&cluster).map(Some)
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    let good = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = good.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again() {
        let cluster = ClusterId {
            id: [0; 16],
            secret: std::array::from_fn(|index| u8::try_from(index * 17).unwrap()),
        };
        let written = Cluster {
            id: hex(cluster.id),
            secret: hex(cluster.secret),
        };
        assert_eq!(written.id, "0".repeat(32));
        assert_eq!(written.secret, "00112233445566778899aabbccddeeff");
        assert_eq!(ClusterId::parse(&written).unwrap(), cluster);
    }

    #[test]
    fn what_is_no_id_is_told() {
        let good = "0".repeat(32);
        let signed = format!("+{}", "0".repeat(31));
        let bad = [String::new(), "0".repeat(31), "0".repeat(33), signed, "g".repeat(32)];
        for bad in &bad {
            for (id, secret, which) in [(bad, &good, "cluster id"), (&good, bad, "secret")] {
                let (id, secret) = (id.clone(), secret.clone());
                let error = ClusterId::parse(&Cluster { id, secret }).unwrap_err().to_string();
                assert!(error.contains(which), "{bad}: {error}");
            }
        }
    }
}
