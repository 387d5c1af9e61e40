//! fio over NBD, four connections, mixed sizes, everything read back and checked.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trivet_e2e::command::Running;
use trivet_e2e::{Cluster, Server, Tool, sized};

const JOBS: u64 = 4;

/// Bytes that all jobs write together.
pub fn total() -> u64 {
    sized(128 << 20, 1 << 30)
}

/// The same load again with `more`: the same seed writes and expects the same bytes.
pub fn fio(server: &Server, image: &str, more: &str) -> Tool {
    let each = total() / JOBS;
    Tool::new("fio")
        .args("--name=verified --ioengine=nbd --rw=randwrite --randseed=7 --output-format=json")
        .args("--bssplit=512/25:1536/10:4k/25:65024/10:64k/15:1m/15 --blockalign=512")
        .args("--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0")
        .args(&format!(
            "--numjobs={JOBS} --size={each} --offset_increment={each} {more}"
        ))
        .arg(format!("--uri={}", server.nbd_url(image)))
        .within(sized(180, 1200))
}

/// Waits for fio and returns the bytes written and the bytes read and checked.
pub fn finish(fio: Running) -> Result<(u64, u64)> {
    let ended = fio.ok()?;
    let text = ended.text();
    let json = text.find('{').map(|at| &text[at..]).context("fio prints JSON")?;
    let json: Value = serde_json::from_str(json)?;
    let jobs = json["jobs"].as_array().context("fio's jobs")?;
    ensure!(jobs.len() as u64 == JOBS, "{} jobs reported", jobs.len());
    let sum = |key: &str| jobs.iter().map(|job| job[key]["io_bytes"].as_u64().unwrap_or(0)).sum();
    ensure!(jobs.iter().all(|job| job["error"] == 0), "fio: {}", ended.stderr);
    Ok((sum("write"), sum("read")))
}

#[test]
fn fio_verifies_four_connections_of_mixed_sizes() -> Result<()> {
    let cluster = Cluster::alone()?.plain();
    let server = cluster.start()?;
    server.admin("image create verified --size 2G")?;
    let (written, checked) = finish(fio(&server, "verified", "").start()?)?;
    assert!(
        written >= total() && checked >= total(),
        "wrote {written}, checked {checked}"
    );
    println!("fio: {written} bytes written, {checked} read back and checked, 0 errors");
    server.stop()?;
    Ok(())
}

/// The check above would notice a wrong byte: one is put there behind fio's back.
#[test]
fn fio_notices_a_changed_sector() -> Result<()> {
    let cluster = Cluster::alone()?.plain();
    let server = cluster.start()?;
    server.admin("image create verified --size 2G")?;
    finish(fio(&server, "verified", "--do_verify=0").start()?)?;
    let mut nbd = trivet_e2e::nbd::Nbd::open(server.ports.nbd, "verified")?;
    nbd.write(3 << 20, &[0x77; 512])?;
    let again = fio(&server, "verified", "--verify_only=1").end()?;
    assert!(!again.status.success(), "fio accepted a sector that it did not write");
    server.stop()?;
    Ok(())
}
