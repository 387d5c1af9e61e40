//! A key that says that somebody is there: written on a lease, again with every new one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch::Receiver;
use trivet_core::kv::{Change, LeaseId, Txn, TxnOutcome};
use trivet_meta::Meta;

use super::leases::KEEP_ALIVE;

/// Keeps the key there, for ever.
pub async fn keep(store: Arc<dyn Meta>, key: String, value: Bytes, mut lease: Receiver<Option<LeaseId>>) {
    loop {
        let now = *lease.borrow_and_update();
        if let Some(now) = now
            && !write(&store, &key, &value, now).await
        {
            tokio::time::sleep(KEEP_ALIVE).await;
        } else if lease.changed().await.is_err() {
            return;
        }
    }
}

/// Writes a key on a lease. False if it did not happen.
pub async fn write(store: &Arc<dyn Meta>, key: &str, value: &Bytes, lease: LeaseId) -> bool {
    let change = Change::Put {
        key: key.to_owned(),
        value: value.clone(),
        lease: Some(lease),
    };
    let txn = Txn {
        compare: Vec::new(),
        changes: vec![change],
    };
    let result = store.txn(txn).await;
    if let Err(error) = &result {
        tracing::warn!("{key} was not written, trying again: {error}");
    }
    matches!(result, Ok(TxnOutcome::Committed(_)))
}
