//! The control plane of `trivet up`: runs the data path's transactions, keeps leases alive, watches the metadata store
//! for it, runs the monitor and the admin API, and ends everything on a signal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use trivet_core::keys::{self, GatewayState};
use trivet_core::kv::{Change, LeaseId, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::{ClientId, OsdId};
use trivet_gateway::admin::http;
use trivet_meta::Meta;
use trivet_mon::Monitor;

use super::data::Handles;
use super::leases::{Held, KEEP_ALIVE};
use super::link::{Ask, Role, Tell, ToData};
use super::scrubs;
use super::startup::random;

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
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let listener = tokio::net::TcpListener::from_std(http)?;
    let api = tokio::spawn(http::serve(listener, admin.clone(), metrics, until(stopping)));
    let lease = Held::new(Arc::clone(&store));
    let helpers = [
        tokio::spawn(show(Arc::clone(&store), gateway, lease.lease())),
        tokio::spawn(watch(Arc::clone(&store), data.clone())),
        tokio::spawn(monitor(Arc::clone(&store), u64::from_le_bytes(random()?))),
        tokio::spawn(scrubs::ask_when_due(admin)),
    ];
    let mut leases: BTreeMap<OsdId, Held> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ask = asked.recv() => match ask {
                Some(ask) => answer(&store, &data, &mut leases, ask).await,
                None => break,
            },
        }
    }
    data.tell(Tell::Stop);
    // The receiver may be gone already.
    let _ = stop.send(true);
    let served = tokio::time::timeout(Duration::from_secs(2), api).await;
    helpers.iter().for_each(JoinHandle::abort);
    match served {
        Ok(Ok(Err(error))) => Err(error).context("the admin API failed"),
        _ => Ok(()),
    }
}

/// Tells the cluster that the gateway is there, again with every new lease.
async fn show(store: Arc<dyn Meta>, gateway: ClientId, mut lease: Receiver<Option<LeaseId>>) {
    loop {
        let now = *lease.borrow_and_update();
        if let Some(now) = now
            && !show_once(&store, gateway, now).await
        {
            tokio::time::sleep(KEEP_ALIVE).await;
        } else if lease.changed().await.is_err() {
            return;
        }
    }
}

/// False if it did not happen.
async fn show_once(store: &Arc<dyn Meta>, gateway: ClientId, lease: LeaseId) -> bool {
    let state = GatewayState {
        name: "up".into(),
        http: None,
    };
    let change = Change::Put {
        key: keys::gateway_state(gateway),
        value: encode(&state),
        lease: Some(lease),
    };
    let txn = Txn {
        compare: Vec::new(),
        changes: vec![change],
    };
    let result = store.txn(txn).await;
    if let Err(error) = &result {
        tracing::warn!("the gateway's key was not written, trying again: {error}");
    }
    matches!(result, Ok(TxnOutcome::Committed(_)))
}

async fn until(mut stopping: Receiver<bool>) {
    // A sender that is gone means stopping, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn answer(store: &Arc<dyn Meta>, data: &ToData, leases: &mut BTreeMap<OsdId, Held>, ask: Ask) {
    match ask {
        Ask::Txn(role, ticket, txn) => {
            tokio::spawn(transact(Arc::clone(store), data.clone(), role, ticket, txn));
        }
        Ask::Lease(osd) => {
            let held = Held::new(Arc::clone(store));
            tokio::spawn(tell_osd(data.clone(), osd, held.lease()));
            leases.insert(osd, held);
        }
        Ask::Revoke(osd) => {
            if let Some(held) = leases.remove(&osd) {
                held.give_back(store).await;
            }
            data.tell(Tell::Revoked(osd));
        }
    }
}

/// Ends when the lease is given back.
async fn tell_osd(data: ToData, osd: OsdId, mut lease: Receiver<Option<LeaseId>>) {
    while lease.changed().await.is_ok() {
        let lease = *lease.borrow_and_update();
        data.tell(Tell::Leased { osd, lease });
    }
}

async fn transact(store: Arc<dyn Meta>, data: ToData, role: Role, ticket: u64, txn: Txn) {
    let outcome = store.txn(txn).await.unwrap_or_else(|error| {
        tracing::warn!("a metadata transaction failed: {error}");
        TxnOutcome::Unknown
    });
    data.tell(Tell::Outcome(role, ticket, outcome));
}

async fn watch(store: Arc<dyn Meta>, data: ToData) {
    let mut watch = store.watch("", None);
    while let Some(notice) = watch.next().await {
        data.tell(Tell::Notice(notice));
    }
}

async fn monitor(store: Arc<dyn Meta>, id: u64) {
    let held = Held::new(Arc::clone(&store));
    let mut lease = held.lease();
    let Ok(Some(first)) = lease.wait_for(Option::is_some).await.map(|lease| *lease) else {
        return;
    };
    let mut monitor = Monitor::new(id, first);
    let mut tick = tokio::time::interval(KEEP_ALIVE);
    let mut watch = store.watch("", None);
    loop {
        tokio::select! {
            notice = watch.next() => match notice {
                Some(notice) => monitor.notice(&notice),
                None => return,
            },
            Ok(()) = lease.changed() => monitor.lease(*lease.borrow_and_update()),
            _ = tick.tick() => {}
        }
        if let Some(txn) = monitor.next() {
            let outcome = store.txn(txn).await.unwrap_or_else(|error| {
                tracing::warn!("the monitor could not write: {error}");
                TxnOutcome::Unknown
            });
            monitor.ended(outcome);
        }
    }
}
