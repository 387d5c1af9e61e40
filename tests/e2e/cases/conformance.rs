//! What others wrote to judge servers: libiscsi's `iscsi-test-cu`, `nbdinfo`,
//! `qemu-io`. A skipped test prints as passed; it is counted as skipped here.

use anyhow::{Result, ensure};
use trivet_e2e::{Cluster, Tool};

/// The suites whose commands this server has.
const SUITES: &[&str] = &[
    "Inquiry",
    "Mandatory",
    "ModeSense6",
    "Read6",
    "Read10",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "TestUnitReady",
    "Unmap",
    "Write10",
    "Write16",
    "iSCSIcmdsn",
    "iSCSIdatasn",
    "iSCSIResiduals",
    "iSCSITMF",
    "NoMedia",
    "ReadOnly",
];

/// Tests that fail or skip for a reason that is not this server's.
const EXCUSED: &[(&str, &str)] = &[];

/// What a run of `iscsi-test-cu` said about its tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdicts {
    passed: Vec<String>,
    skipped: Vec<String>,
    failed: Vec<String>,
}

/// Reads the verbose output of CUnit: the name, lines about it, then a verdict.
fn verdicts(output: &str) -> Verdicts {
    let mut all = Verdicts::default();
    let mut suite = "";
    for part in output.split("\nSuite: ").skip(1) {
        suite = part.lines().next().unwrap_or(suite);
        for test in part.split("  Test: ").skip(1) {
            let test = test.split("\nRun Summary").next().unwrap_or(test);
            let name = format!("{suite}.{}", test.split(' ').next().unwrap_or_default());
            // The verdict follows the dots or stands on a line of its own; what comes later is clean-up.
            let end = test.find("...passed").or_else(|| test.find("\npassed"));
            let verdict = match end.map(|end| &test[..end]) {
                None => &mut all.failed,
                Some(remarks) if remarks.contains("[SKIPPED]") => &mut all.skipped,
                Some(_) => &mut all.passed,
            };
            verdict.push(name);
        }
    }
    all
}

#[test]
fn skips_are_not_passes() {
    let output = "\n\nSuite: Unmap\n  Test: Simple ...    [SKIPPED] Logical unit is fully provisioned.\npassed\n\
        \x20 Test: VPD ...passed    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n  Test: ZeroBlocks ...FAILED\n    1. test.c:1  - CU_FAIL(\"x\")\n\nRun Summary: passed\n\
        \n    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n\nSuite: Read10\n\
        \x20 Test: Simple ...    [FAILED] as it should\npassed\n  Test: Dead ...";
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = Verdicts {
        passed: names(&["Unmap.VPD", "Read10.Simple"]),
        skipped: names(&["Unmap.Simple"]),
        failed: names(&["Unmap.ZeroBlocks", "Read10.Dead"]),
    };
    assert_eq!(verdicts(output), expected);
}

#[test]
fn libiscsi_test_suites() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("127.0.0.1:");
    server.admin("image create cu --size 64M")?;
    let mut all = Verdicts::default();
    let mut words = Vec::new();
    for suite in SUITES {
        let test = Tool::new("iscsi-test-cu")
            .args(&format!("-d -t ALL.{suite}"))
            .arg(server.iscsi_url("cu"));
        let ended = test.within(60).end()?;
        let text = format!("{}{}", ended.text(), ended.stderr);
        let mut found = verdicts(&text);
        ensure!(
            !(found.passed.is_empty() && found.skipped.is_empty() && found.failed.is_empty()),
            "{suite}: {text}"
        );
        if !found.failed.is_empty() {
            words.push(text);
        }
        all.passed.append(&mut found.passed);
        all.skipped.append(&mut found.skipped);
        all.failed.append(&mut found.failed);
    }
    println!(
        "iscsi-test-cu: {} passed, {} skipped, {} failed",
        all.passed.len(),
        all.skipped.len(),
        all.failed.len()
    );
    println!("skipped: {:?}\nfailed: {:?}", all.skipped, all.failed);
    all.failed
        .retain(|name| !EXCUSED.iter().any(|(excused, _)| excused == name));
    ensure!(all.failed.is_empty(), "failed: {:?}\n{}", all.failed, words.join("\n"));
    ensure!(all.passed.len() >= 40, "too few really ran");
    server.stop()?;
    Ok(())
}

#[test]
fn libnbd_and_qemu_agree_on_an_export() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    let url = server.nbd_url("demo");
    assert_eq!(
        Tool::new("nbdinfo").args("--size").arg(&url).ok()?.text().trim(),
        "1073741824"
    );
    let list = Tool::new("nbdinfo").args("--list").arg(server.nbd_url("")).ok()?.text();
    ensure!(list.contains("demo"), "{list}");
    for can in ["connect", "flush", "fua", "multi-conn", "read", "trim", "write", "zero"] {
        let ended = Tool::new("nbdinfo").args(&format!("--can {can}")).arg(&url).end()?;
        ensure!(ended.status.success(), "nbdinfo --can {can}: {}", ended.status);
    }
    let io = Tool::new("qemu-io").args("-f raw").arg(&url);
    let io = [
        "write -P 0x5a 1000 70000",
        "flush",
        "read -P 0x5a 1000 70000",
        "write -z 4096 8192",
        "read -P 0 4096 8192",
        "discard 16384 4096",
        "read -P 0x5a 12288 4096",
        "aio_write -P 0xa5 65536 1M",
        "aio_flush",
        "read -P 0xa5 65536 1M",
    ]
    .iter()
    .fold(io, |io, command| io.arg("-c").arg(command));
    let said = io.ok()?.text();
    ensure!(!said.contains("failed") && !said.contains("error"), "{said}");
    server.stop()?;
    Ok(())
}
