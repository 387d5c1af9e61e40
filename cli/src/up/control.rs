//! The control plane of `trivet up`: runs the data path's transactions, keeps leases alive, watches the metadata store
//! for it, runs the monitor and the admin API, and ends everything on a signal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use trivet_core::keys::{self, GatewayState};
use trivet_core::kv::{Change, LeaseId, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{ClientId, OsdId};
use trivet_gateway::admin::http;
use trivet_meta::{Meta, MetaError};
use trivet_mon::Monitor;

use super::data::Handles;
use super::link::{Ask, Role, Tell, ToData};
use super::startup::random;

/// A lease runs out if nobody keeps it alive for this long.
const LEASE: Duration = Duration::from_secs(5);
/// Leases are kept alive this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A granted lease and the task that keeps it alive.
struct Held {
    lease: LeaseId,
    keeper: JoinHandle<()>,
}

/// Runs until a signal comes or the data path ends.
pub async fn run(
    store: Arc<dyn Meta>,
    data: ToData,
    mut asked: UnboundedReceiver<Ask>,
    handles: Handles,
    http: std::net::TcpListener,
) -> anyhow::Result<()> {
    let Handles {
        admin,
        metrics,
        gateway,
        ..
    } = handles;
    let gateway = register(&store, gateway).await?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let listener = tokio::net::TcpListener::from_std(http)?;
    let api = tokio::spawn(http::serve(listener, admin, metrics, until(stopping)));
    let watcher = tokio::spawn(watch(Arc::clone(&store), data.clone()));
    let monitor = tokio::spawn(monitor(Arc::clone(&store)));
    let mut leases: BTreeMap<OsdId, Held> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ask = asked.recv() => match ask {
                Some(ask) => answer(&store, &data, &mut leases, ask).await?,
                None => break,
            },
        }
    }
    data.tell(Tell::Stop);
    // The receiver may be gone already.
    let _ = stop.send(true);
    let served = tokio::time::timeout(Duration::from_secs(2), api).await;
    watcher.abort();
    monitor.abort();
    gateway.keeper.abort();
    match served {
        Ok(Ok(Err(error))) => Err(error).context("the admin API failed"),
        _ => Ok(()),
    }
}

/// Tells the cluster that the gateway is there, for as long as its lease is kept alive.
async fn register(store: &Arc<dyn Meta>, gateway: ClientId) -> anyhow::Result<Held> {
    let lease = store.lease_grant(LEASE).await?;
    let state = GatewayState { name: "up".into() };
    let change = Change::Put {
        key: keys::gateway_state(gateway),
        value: encode(&state),
        lease: Some(lease),
    };
    store
        .txn(Txn {
            compare: Vec::new(),
            changes: vec![change],
        })
        .await?;
    Ok(Held {
        lease,
        keeper: tokio::spawn(keep_alive(Arc::clone(store), lease)),
    })
}

async fn until(mut stopping: tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone means stopping, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn answer(
    store: &Arc<dyn Meta>,
    data: &ToData,
    leases: &mut BTreeMap<OsdId, Held>,
    ask: Ask,
) -> anyhow::Result<()> {
    match ask {
        Ask::Txn(role, ticket, txn) => {
            tokio::spawn(transact(Arc::clone(store), data.clone(), role, ticket, txn));
        }
        Ask::Lease(osd) => {
            let lease = store.lease_grant(LEASE).await?;
            let keeper = tokio::spawn(keep_alive(Arc::clone(store), lease));
            leases.insert(osd, Held { lease, keeper });
            let boot = u64::from_le_bytes(random()?);
            data.tell(Tell::Leased { osd, lease, boot });
        }
        Ask::Revoke(osd) => {
            if let Some(held) = leases.remove(&osd) {
                held.keeper.abort();
                revoke(store, held.lease).await?;
            }
            data.tell(Tell::Revoked(osd));
        }
    }
    Ok(())
}

async fn revoke(store: &Arc<dyn Meta>, lease: LeaseId) -> Result<(), MetaError> {
    match store.lease_revoke(lease).await {
        Err(MetaError::NoSuchLease(_)) => Ok(()),
        result => result,
    }
}

async fn transact(store: Arc<dyn Meta>, data: ToData, role: Role, ticket: u64, txn: Txn) {
    let outcome = store.txn(txn).await.unwrap_or_else(|error| {
        tracing::warn!("a metadata transaction failed: {error}");
        TxnOutcome::Unknown
    });
    data.tell(Tell::Outcome(role, ticket, outcome));
}

async fn keep_alive(store: Arc<dyn Meta>, lease: LeaseId) {
    let mut interval = tokio::time::interval(KEEP_ALIVE);
    loop {
        interval.tick().await;
        if let Err(error) = store.lease_keep_alive(lease).await {
            tracing::warn!("a lease was lost: {error}");
            return;
        }
    }
}

async fn watch(store: Arc<dyn Meta>, data: ToData) {
    let mut watch = store.watch("", None);
    while let Some(notice) = watch.next().await {
        data.tell(Tell::Notice(notice));
    }
}

async fn monitor(store: Arc<dyn Meta>) -> anyhow::Result<()> {
    let lease = store.lease_grant(LEASE).await?;
    let mut keeper = tokio::spawn(keep_alive(Arc::clone(&store), lease));
    let mut monitor = Monitor::new(u64::from_le_bytes(random()?), lease);
    let mut tick = tokio::time::interval(KEEP_ALIVE);
    let mut watch = store.watch("", None);
    let mut next = watch.next();
    loop {
        tokio::select! {
            notice = &mut next => {
                let Some(notice) = notice else { break };
                monitor.notice(&notice);
                drop(next);
                next = watch.next();
            }
            _ = tick.tick() => if keeper.is_finished() {
                monitor.lease(None);
                if let Ok(lease) = store.lease_grant(LEASE).await {
                    monitor.lease(Some(lease));
                    keeper = tokio::spawn(keep_alive(Arc::clone(&store), lease));
                }
            }
        }
        if let Some(txn) = monitor.next() {
            let outcome = store.txn(txn).await.unwrap_or_else(|error| {
                tracing::warn!("the monitor could not write: {error}");
                TxnOutcome::Unknown
            });
            monitor.ended(outcome);
        }
    }
    keeper.abort();
    Ok(())
}
