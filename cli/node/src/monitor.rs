//! Running a monitor: its key, the watch that feeds it, its transactions.

use std::sync::Arc;

use tokio::sync::watch::Receiver;
use trivet_core::Now;
use trivet_core::keys::{self, MonitorState};
use trivet_core::kv::{LeaseId, TxnOutcome};
use trivet_core::map::encode;
use trivet_meta::Meta;
use trivet_mon::Monitor;
use trivet_reactor::Reactor;

use super::leases::KEEP_ALIVE;
use super::presence;

/// Runs a monitor until the metadata store is closed. `started` is called once, when it knows the cluster.
pub async fn run(
    store: Arc<dyn Meta>,
    mut lease: Receiver<Option<LeaseId>>,
    id: u64,
    host: String,
    started: impl FnOnce(),
) {
    let state = encode(&MonitorState { host });
    let shown = tokio::spawn(presence::keep(
        Arc::clone(&store),
        keys::monitor_state(id),
        state,
        lease.clone(),
    ));
    let Ok(Some(first)) = lease.wait_for(Option::is_some).await.map(|lease| *lease) else {
        return;
    };
    let mut started = Some(started);
    let mut monitor = Monitor::new(id, first);
    let mut tick = tokio::time::interval(KEEP_ALIVE);
    let mut watch = store.watch_before(keys::FOR_GATEWAYS, None);
    loop {
        tokio::select! {
            notice = watch.next() => match notice {
                Some(notice) => {
                    monitor.notice(&notice);
                    started.take().into_iter().for_each(|started| started());
                }
                None => break,
            },
            Ok(()) = lease.changed() => monitor.lease(*lease.borrow_and_update()),
            _ = tick.tick() => {}
        }
        if let Some(txn) = monitor.next(Now(Reactor::now())) {
            let outcome = store.txn(txn).await.unwrap_or_else(|error| {
                tracing::warn!("the monitor could not write: {error}");
                TxnOutcome::Unknown
            });
            monitor.ended(outcome);
        }
    }
    shown.abort();
}
