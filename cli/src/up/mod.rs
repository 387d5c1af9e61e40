//! `trivet up`: all roles in one process on one machine, with the embedded metadata store.
//!
//! Two worlds: the data path ([`data`]), one thread with the reactor, on which the gateway and every OSD run; and the
//! control plane ([`control`]), tokio, with the metadata store, the leases, the monitor, the admin API and signals.
//! They talk by messages ([`link`]).

mod banner;
mod control;
mod data;
mod folder;
mod leases;
mod link;
mod osds;
mod scrubs;
mod startup;

use std::sync::mpsc;

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::args::UpArgs;
use folder::Folder;

/// Runs the cluster until SIGTERM or SIGINT.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    log_to_stderr();
    let folder = Folder::open(&args.data)?;
    let http = std::net::TcpListener::bind(args.http)
        .with_context(|| format!("--http {}: cannot listen there; is another trivet running?", args.http))?;
    http.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let store = folder.open_store()?;
    let plan = startup::plan(args, &runtime, &store)?;

    let (to_data, from_control) = mpsc::channel();
    let (to_control, from_data) = tokio::sync::mpsc::unbounded_channel();
    let (started, start) = mpsc::channel();
    let setup = data::Setup {
        args: args.clone(),
        osds: folder.disks(&plan),
        plan: plan.clone(),
        inbox: from_control,
        control: to_control,
        started,
    };
    let thread = std::thread::Builder::new()
        .name("data".into())
        .spawn(move || data::run(setup))?;
    let Ok(handles) = start.recv() else {
        // It ended before it could report: its error says why.
        let error = thread.join().map_err(|_| anyhow!("the data path panicked"))?;
        folder.undo_if_new(&plan);
        return error;
    };
    runtime.block_on(startup::record(&plan, &store))?;
    let link = link::ToData::new(to_data, handles.waker.clone());
    let result = runtime.block_on(control::run(store, link, from_data, handles, http));
    let ended = thread.join().map_err(|_| anyhow!("the data path panicked"))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.and(ended)
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("TRIVET_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
