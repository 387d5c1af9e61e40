//! One process of a cluster: the machines of its roles, and the threads that run them.
//!
//! Two worlds: the data path ([`data`]), one thread with the reactor, on which the gateway and the OSDs of the process
//! run, and the control plane ([`control`]), tokio, with the metadata store, the leases, the admin API and signals. They
//! talk by messages ([`channel`]). What a process runs, and where it listens, is its [`Setup`](data::Setup).

pub mod channel;
pub mod cluster;
pub mod control;
pub mod data;
mod descriptors;
mod fresh;
mod gateway_runner;
pub mod leases;
mod links;
mod listening;
pub mod log;
pub mod monitor;
pub mod osds;
mod output;
pub mod presence;
pub mod ready;
mod scrubs;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use trivet_meta::Meta;

use control::Duties;
use data::{Handles, Setup};
use log::Log;

/// Begins the process of a role: with its log, as many descriptors as it may have, and the control plane's threads. From
/// here on it outlives its terminal.
pub fn begin() -> anyhow::Result<(Log, Runtime)> {
    let log = Log::to_stderr()?;
    descriptors::raise_limit();
    let runtime = runtime()?;
    control::outlive_terminal(&runtime)?;
    Ok((log, runtime))
}

/// Listens for the admin API.
pub fn listen_http(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let http = TcpListener::bind(at).map_err(|error| listening::refused("--http", at, &error))?;
    http.set_nonblocking(true)?;
    Ok(http)
}

/// The control plane's threads.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // While a monitor plans on one, leases are kept alive on the other.
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start threads")
}

/// A data path that has started.
pub struct Started {
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
    to_data: mpsc::Sender<channel::ToData>,
    from_data: tokio::sync::mpsc::UnboundedReceiver<channel::ToControl>,
    /// What the control plane needs of it.
    pub handles: Handles,
}

/// Starts the data path: its sockets listen, its new disks are formatted.
pub fn start(setup: Setup) -> anyhow::Result<Started> {
    trivet_reactor::keep_freed_buffers();
    let (to_data, inbox) = mpsc::channel();
    let (control, from_data) = tokio::sync::mpsc::unbounded_channel();
    let (started, start) = mpsc::channel();
    let ends = data::Ends {
        inbox,
        control,
        started,
    };
    let thread = std::thread::Builder::new()
        .name("data".into())
        .spawn(move || data::run(setup, ends))?;
    match start.recv() {
        Ok(handles) => Ok(Started {
            thread,
            to_data,
            from_data,
            handles,
        }),
        // It ended before it could report: its error says why.
        Err(_) => {
            thread.join().map_err(|_| anyhow!("the data path panicked"))??;
            Err(anyhow!("the data path ended"))
        }
    }
}

/// Runs both worlds until a signal comes or the data path ends.
pub fn serve(runtime: Runtime, store: Arc<dyn Meta>, started: Started, duties: Duties) -> anyhow::Result<()> {
    let Started {
        thread,
        to_data,
        from_data,
        handles,
    } = started;
    let link = channel::DataSender::new(to_data, handles.waker.clone());
    let result = runtime.block_on(control::run(store, link.clone(), from_data, duties));
    // However the control plane ended.
    link.tell(channel::ToData::Stop);
    let ended = thread.join().map_err(|_| anyhow!("the data path panicked"))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.and(ended)
}
