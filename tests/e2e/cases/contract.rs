//! The contract of the roles' command line: what `osd format` prints, which disks `osd run` refuses, and what is
//! said when there is no pool.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use trivet_e2e::cluster::fleet::trivet;
use trivet_e2e::cluster::process::free_port;
use trivet_e2e::cluster::{Etcd, Fleet, Layout, Process};
use trivet_e2e::command::Ended;
use trivet_e2e::server::binary;
use trivet_e2e::{Cluster, Tool};

use crate::command_line::refused;

const ONE_ETCD: Layout = Layout {
    etcds: 1,
    hosts: &[],
    monitors: 1,
    gateways: 1,
    proxies: false,
};

fn format(disk: &Path, meta: &str, more: &str) -> Result<u64> {
    let ended = trivet(&format!("osd format {} --meta {meta} --size 1G {more}", disk.display()))?;
    let text = ended.text();
    let number = text.trim_end().parse();
    number.with_context(|| format!("osd format printed {text:?}, not a number alone"))
}

/// `osd run`, which is expected to end soon.
fn run(disk: &Path, meta: &str) -> Result<Ended> {
    let args = format!("osd run {} --meta {meta} --host a", disk.display());
    Tool::new(binary()?).args(&args).within(30).end()
}

/// An OSD that serves.
fn serving(disk: &Path, meta: &str, folder: &Path) -> Result<Process> {
    let args = format!(
        "osd run {} --meta {meta} --host a --listen 127.0.0.1:{}",
        disk.display(),
        free_port()?
    );
    let mut osd = Process::new("osd", folder, &binary()?, &args);
    osd.start()?;
    osd.wait_ready(trivet_e2e::cluster::fleet::START_LIMIT)?;
    Ok(osd)
}

/// etcd alone, in the folder of a cluster that is never started.
fn bare() -> Result<(Cluster, Etcd)> {
    let cluster = Cluster::new()?;
    let etcd = Etcd::start(1, &cluster.scratch(""))?;
    Ok((cluster, etcd))
}

#[test]
fn osd_format_numbers_disks() -> Result<()> {
    let (cluster, etcd) = bare()?;
    let meta = etcd.url("numbers");
    let first = format(&cluster.scratch("a"), &meta, "")?;
    let second = format(&cluster.scratch("b"), &meta, "")?;
    ensure!(first != second, "both are {first}");
    ensure!(format(&cluster.scratch("c"), &meta, "--osd 77")? == 77);
    Ok(())
}

#[test]
fn osd_run_refuses_disks_that_are_not_its_own() -> Result<()> {
    let (cluster, etcd) = bare()?;
    let (disk, other) = (cluster.scratch("disk"), cluster.scratch("other"));
    let (here, there) = (etcd.url("here"), etcd.url("there"));
    let number = format(&disk, &here, "")?;
    format(&other, &there, "")?;
    refused(&run(&disk, &there)?, &["cluster"]).context("a disk of another cluster")?;
    let blank = cluster.scratch("blank");
    std::fs::File::create(&blank)?.set_len(1 << 30)?;
    refused(&run(&blank, &here)?, &["format"]).context("an unformatted file")?;
    refused(&run(&cluster.scratch("none"), &here)?, &["none"]).context("no file")?;
    wiped(&disk, &here, number)?;
    Ok(())
}

/// The number of a disk that is gone must not be given to an empty one: what it held would be taken for lost writes
/// of an OSD that is up. Either of the two commands may say so.
fn wiped(disk: &Path, meta: &str, number: u64) -> Result<()> {
    std::fs::remove_file(disk)?;
    let again = format!("osd format {} --meta {meta} --size 1G --osd {number}", disk.display());
    let formatted = Tool::new(binary()?).args(&again).within(30).end()?;
    let last = if formatted.status.success() {
        run(disk, meta)?
    } else {
        formatted
    };
    refused(&last, &[&number.to_string()]).context("a wiped disk under an old number")
}

#[test]
fn a_disk_has_one_process() -> Result<()> {
    let (cluster, etcd) = bare()?;
    let (disk, meta) = (cluster.scratch("disk"), etcd.url("twice"));
    format(&disk, &meta, "")?;
    let mut first = serving(&disk, &meta, &cluster.scratch(""))?;
    refused(&run(&disk, &meta)?, &["use", "lock"]).context("a second process on the same disk")?;
    ensure!(first.runs()?, "the first one ended: {}", first.last_words(20));
    first.kill()?;
    // The lock goes with the process that held it.
    serving(&disk, &meta, &cluster.scratch(""))?.kill()
}

#[test]
fn without_a_pool_the_error_says_how_to_make_one() -> Result<()> {
    let fleet = Fleet::start(&ONE_ETCD)?;
    let ended = fleet.cli(0, "image create disk --size 1G")?;
    refused(&ended, &["pool create"])?;
    fleet.finish()
}
