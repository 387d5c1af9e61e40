//! `trivet gateway`: the three protocols and the admin API.

use std::time::Duration;

use trivet_node::cluster::{self, host};
use trivet_node::control::{Duties, GatewayDuty};
use trivet_node::data::{GatewaySetup, Setup};

use crate::roles::args::{GatewayArgs, required};

/// It serves after this time even if some PGs cannot be served: their clients wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs a gateway until SIGTERM or SIGINT.
pub fn run(args: &GatewayArgs) -> anyhow::Result<()> {
    let (_log, runtime) = trivet_node::begin()?;
    let http = trivet_node::listen_http(args.front.http)?;
    let store = runtime.block_on(cluster::open(required(&args.meta)?))?;
    let cluster = runtime.block_on(cluster::ensure(&store))?;
    let mut started = trivet_node::start(Setup {
        cluster,
        gateway: Some(GatewaySetup {
            doors: args.front.doors(),
            demo: false,
            patience: PATIENCE,
            banner: String::new(),
            memory: args.front.memory,
        }),
        disks: Vec::new(),
        distributed: true,
    })?;
    let gateway = started.handles.gateway.take().map(|handles| GatewayDuty {
        handles,
        http,
        name: args.name.clone().unwrap_or_else(host),
    });
    let duties = Duties {
        gateway,
        ..Duties::default()
    };
    trivet_node::serve(runtime, store, started, duties)
}
