//! The control plane: runs the data path's transactions, keeps leases alive, watches the metadata store for it, runs
//! the monitor and the admin API, and ends everything on a signal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use trivet_control::{Administration, Clerk, http};
use trivet_core::OsdId;
use trivet_core::keys::{self, GatewayState, OsdStats};
use trivet_core::kv::{LeaseId, Revision, Txn, TxnOutcome};
use trivet_core::map::encode;
use trivet_meta::{Meta, MetaError, Watch};

use super::channel::{DataSender, Role, ToControl, ToData};
use super::cluster::random;
use super::data::{self, GatewayHandles};
use super::leases::Held;
use super::{fresh, monitor, presence, scrubs};

/// What ends with the process gets this time.
pub const WIND_DOWN: Duration = Duration::from_secs(2);

/// What the control plane does beside serving the data path.
#[derive(Default)]
pub struct Duties {
    /// It shows the gateway, and serves its admin API.
    pub gateway: Option<GatewayDuty>,
    /// It runs a monitor on this host.
    pub monitor: Option<String>,
}

/// Of a process with a gateway.
pub struct GatewayDuty {
    /// What the data path offers.
    pub handles: GatewayHandles,
    /// Where the admin API listens.
    pub http: std::net::TcpListener,
    /// For people.
    pub name: String,
}

/// Has SIGHUP, which comes when the terminal closes, end nothing from now on. There is nothing to read anew either.
pub fn outlive_terminal(runtime: &Runtime) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    let mut hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    runtime.spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP changes nothing: there is nothing to read anew; SIGTERM stops the process");
        }
    });
    Ok(())
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    /// Until one comes.
    pub async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal comes or the data path ends.
pub async fn run(
    store: Arc<dyn Meta>,
    data: DataSender,
    mut asked: UnboundedReceiver<ToControl>,
    duties: Duties,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // Nobody else has any use for the tree of names.
    let changes = match duties.gateway {
        Some(_) => store.watch("", None),
        None => store.watch_before(keys::FOR_GATEWAYS, None),
    };
    let (seen, mirrored) = tokio::sync::watch::channel(0);
    let clerk = duties.gateway.as_ref().map(start_clerk).transpose()?;
    let mut watching = tokio::spawn(watch(changes, clerk.clone(), data.clone(), seen));
    let mut helpers = Vec::new();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut held = Vec::new();
    let mut api = None;
    if let (Some(duty), Some(clerk)) = (duties.gateway, clerk) {
        let administration = Administration {
            engine: duty.handles.admin.clone(),
            clerk,
        };
        let state = gateway_state(&duty)?;
        let key = keys::gateway_state(duty.handles.id);
        let lease = Held::new(Arc::clone(&store));
        helpers.push(tokio::spawn(presence::keep(
            Arc::clone(&store),
            key,
            state,
            lease.lease(),
        )));
        helpers.push(tokio::spawn(scrubs::ask_when_due(administration.clone())));
        let asking = fresh::Asking {
            store: Arc::clone(&store),
            data: data.clone(),
            mirrored,
            beat: keys::gateway_beat(duty.handles.id),
            lease: lease.lease(),
        };
        helpers.push(tokio::spawn(asking.go_on()));
        api = Some(tokio::spawn(serve_api(duty.http, administration, stopping)));
        held.push(lease);
    }
    if let Some(host) = duties.monitor {
        let id = u64::from_le_bytes(random()?);
        let lease = Held::new(Arc::clone(&store));
        let monitor = monitor::run(Arc::clone(&store), lease.lease(), id, host, || ());
        helpers.push(tokio::spawn(monitor));
        held.push(lease);
    }
    let mut leases: BTreeMap<OsdId, Held> = BTreeMap::new();
    let ended = loop {
        tokio::select! {
            () = signals.come() => break Ok(()),
            ask = asked.recv() => match ask {
                Some(ask) => answer(&store, &data, &mut leases, ask).await,
                None => break Ok(()),
            },
            // Without news the process would be of no use.
            _ = &mut watching => break Err(anyhow!("the metadata store is closed")),
        }
    };
    data.tell(ToData::Stop);
    // Nobody writes any more on what is given back.
    helpers.iter().for_each(JoinHandle::abort);
    // The receiver may be gone already.
    let _ = stop.send(true);
    held.extend(leases.into_values());
    let returned = give_back(&store, held);
    // A metadata store that does not answer lets them run out.
    let _ = tokio::time::timeout(WIND_DOWN, returned).await;
    let served = end(api).await;
    watching.abort();
    ended.and(served)
}

async fn end(api: Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    let Some(api) = api else { return Ok(()) };
    match tokio::time::timeout(WIND_DOWN, api).await {
        Ok(Ok(Err(error))) => Err(error),
        _ => Ok(()),
    }
}

/// Whoever takes over need not wait until the leases run out.
async fn give_back(store: &Arc<dyn Meta>, leases: Vec<Held>) {
    for held in leases {
        held.give_back(store).await;
    }
}

fn gateway_state(duty: &GatewayDuty) -> anyhow::Result<bytes::Bytes> {
    Ok(encode(&GatewayState {
        name: duty.name.clone(),
        http: Some(duty.http.local_addr()?.to_string()),
    }))
}

fn start_clerk(duty: &GatewayDuty) -> anyhow::Result<Clerk> {
    let GatewayHandles { counters, id, .. } = &duty.handles;
    Clerk::start(*id, Arc::clone(counters), data::clock).context("cannot start a thread")
}

async fn serve_api(
    http: std::net::TcpListener,
    administration: Administration,
    mut stopping: Receiver<bool>,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(http)?;
    let until = async move {
        // A sender that is gone means stopping, too.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    http::serve(listener, administration, until)
        .await
        .context("the admin API failed")
}

async fn answer(store: &Arc<dyn Meta>, data: &DataSender, leases: &mut BTreeMap<OsdId, Held>, ask: ToControl) {
    match ask {
        ToControl::Txn(role, ticket, txn) => {
            tokio::spawn(transact(Arc::clone(store), data.clone(), role, ticket, txn));
        }
        ToControl::Lease(osd) => {
            let held = Held::new(Arc::clone(store));
            tokio::spawn(tell_osd(data.clone(), osd, held.lease()));
            leases.insert(osd, held);
        }
        ToControl::Revoke(osd) => {
            if let Some(held) = leases.remove(&osd) {
                held.give_back(store).await;
            }
            data.tell(ToData::Revoked(osd));
        }
        ToControl::Stats(osd, stats) => {
            if let Some(lease) = leases.get(&osd).and_then(|held| *held.lease().borrow()) {
                tokio::spawn(show_stats(Arc::clone(store), osd, stats, lease));
            }
        }
    }
}

/// What fails is not tried again: the data path asks again for what is not shown.
async fn show_stats(store: Arc<dyn Meta>, osd: OsdId, stats: OsdStats, lease: LeaseId) {
    presence::write(&store, &keys::osd_stats(osd), &encode(&stats), lease).await;
}

/// Ends when the lease is given back.
async fn tell_osd(data: DataSender, osd: OsdId, mut lease: Receiver<Option<LeaseId>>) {
    while lease.changed().await.is_ok() {
        let lease = *lease.borrow_and_update();
        data.tell(ToData::Leased { osd, lease });
    }
}

async fn transact(store: Arc<dyn Meta>, data: DataSender, role: Role, ticket: u64, txn: Txn) {
    let outcome = store.txn(txn).await.unwrap_or_else(|error| {
        match error {
            // Given back by an OSD that stops, or lost, which its keeper has told.
            MetaError::NoSuchLease(_) => tracing::debug!("a metadata transaction came too late: {error}"),
            _ => tracing::warn!("a metadata transaction failed: {error}"),
        }
        TxnOutcome::Unknown
    });
    data.tell(ToData::Outcome(role, ticket, outcome));
}

/// Feeds the data path, and before that the clerk, who is to know what the data path was told; shows how far both were fed.
async fn watch(
    mut changes: Box<dyn Watch>,
    clerk: Option<Clerk>,
    data: DataSender,
    seen: tokio::sync::watch::Sender<Revision>,
) {
    while let Some(notice) = changes.next().await {
        let revision = notice.revision();
        let notice = Arc::new(notice);
        if let Some(clerk) = &clerk {
            clerk.notice(Arc::clone(&notice));
        }
        data.tell(ToData::Notice(notice));
        seen.send_replace(revision);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_terminal_that_closes_ends_nothing() {
        let runtime = crate::runtime().unwrap();
        outlive_terminal(&runtime).unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        drop(runtime);
        kill_process(getpid(), Signal::HUP).unwrap();
    }
}
