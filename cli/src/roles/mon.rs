//! `trivet mon`: a monitor.

use crate::node::cluster::{self, host, random};
use crate::node::control::Signals;
use crate::node::{log_to_stderr, monitor, ready, runtime};
use crate::roles::args::{MonArgs, required};

/// Runs a monitor until SIGTERM or SIGINT.
pub fn run(args: &MonArgs) -> anyhow::Result<()> {
    log_to_stderr();
    runtime()?.block_on(async {
        let store = cluster::open(required(&args.meta)?).await?;
        cluster::ensure(&store).await?;
        let mut signals = Signals::new()?;
        let id = u64::from_le_bytes(random()?);
        let host = args.host.clone().unwrap_or_else(host);
        tokio::select! {
            () = signals.come() => {}
            () = monitor::run(store, id, host, || ready::say("")) => {}
        }
        Ok(())
    })
}
