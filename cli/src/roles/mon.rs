//! `trivet mon`: a monitor.

use std::sync::Arc;

use anyhow::anyhow;
use trivet_node::cluster::{self, host, random};
use trivet_node::control::{Signals, WIND_DOWN};
use trivet_node::leases::Held;
use trivet_node::{monitor, ready};

use crate::roles::args::{MonArgs, required};

/// Runs a monitor until SIGTERM or SIGINT.
pub fn run(args: &MonArgs) -> anyhow::Result<()> {
    let (_log, runtime) = trivet_node::begin()?;
    runtime.block_on(async {
        let store = cluster::open(required(&args.meta)?).await?;
        cluster::ensure(&store).await?;
        let mut signals = Signals::new()?;
        let id = u64::from_le_bytes(random()?);
        let host = args.host.clone().unwrap_or_else(host);
        let held = Held::new(Arc::clone(&store));
        let ended = tokio::select! {
            () = signals.come() => Ok(()),
            () = monitor::run(Arc::clone(&store), held.lease(), id, host, || ready::say("")) => {
                Err(anyhow!("the metadata store is closed"))
            }
        };
        // Another one leads at once. A metadata store that does not answer lets the lease run out.
        let _ = tokio::time::timeout(WIND_DOWN, held.give_back(&store)).await;
        ended
    })
}
