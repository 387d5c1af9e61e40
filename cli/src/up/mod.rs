//! `trivet up`: all roles in one process.

use crate::args::UpArgs;

/// Runs the cluster until it is told to stop.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    anyhow::bail!("cannot start on {}: not built yet", args.data.display())
}
