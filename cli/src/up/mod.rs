//! `trivet up`: all roles in one process on one machine. Its metadata store is a file in the data folder, or etcd.

mod banner;
mod folder;
mod makeup;
mod startup;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use trivet_node::cluster::{self, host};
use trivet_node::control::{Duties, GatewayDuty};
use trivet_node::data::{GatewaySetup, Setup};

use crate::args::UpArgs;
use banner::banner;
use folder::Folder;
use makeup::Makeup;

/// The server says `ready` after this time even if some PGs cannot be served.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where its OSDs listen for nodes of other processes, if there can be any.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs the cluster until SIGTERM or SIGINT.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    if args.meta.is_none() && !Folder::has_store(&args.data) {
        // Before a folder is made for what cannot be.
        Makeup::wanted(args)?;
    }
    let (_log, runtime) = trivet_node::begin()?;
    let folder = Folder::open(&args.data)?;
    let http = trivet_node::listen_http(args.front.http)?;
    let store = match &args.meta {
        Some(url) => runtime.block_on(cluster::open(url))?,
        None => folder.open_store()?,
    };
    let plan = startup::plan(args, &folder, &runtime, &store)?;
    let distributed = args.meta.is_some();
    let setup = Setup {
        cluster: plan.cluster,
        gateway: Some(front(args, plan.new)),
        disks: folder.disks(&plan, distributed.then_some(LISTEN)),
        distributed,
    };
    let mut started = trivet_node::start(setup).inspect_err(|_| folder.undo_if_new(&plan))?;
    runtime.block_on(startup::record(&plan, &store))?;
    let gateway = started.handles.gateway.take().map(|handles| GatewayDuty {
        handles,
        http,
        name: "up".into(),
    });
    let monitor = Some(host());
    trivet_node::serve(runtime, store, started, Duties { gateway, monitor })
}

fn front(args: &UpArgs, new: bool) -> GatewaySetup {
    GatewaySetup {
        doors: args.front.doors(),
        demo: new,
        patience: PATIENCE,
        banner: banner(&args.front),
        memory: args.front.memory,
    }
}
