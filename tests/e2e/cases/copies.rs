//! A real disk image goes in through NBD and comes out of all three legs the same.

use std::fs;
use std::path::Path;

use anyhow::Result;
use trivet_e2e::{Cluster, Tool, client, image_file};

const IMAGE_MIB: u64 = 200;

/// Writes what a program puts out to `path`, and compares it with `original`.
fn same(original: &Path, path: &Path, data: &[u8]) -> Result<u64> {
    fs::write(path, data)?;
    let compared = image_file::compare(original, path)?;
    fs::remove_file(path)?;
    Ok(compared)
}

#[test]
fn a_disk_image_is_the_same_through_all_three() -> Result<()> {
    let cluster = Cluster::alone()?;
    let server = cluster.start()?;
    let (original, copy) = (cluster.scratch("ext4.img"), cluster.scratch("copy"));
    image_file::make_ext4(&original, &cluster.scratch("tree"), IMAGE_MIB)?;
    Tool::new("qemu-img")
        .args("convert -n -f raw -O raw")
        .arg(&original)
        .arg(server.nbd_url("demo"))
        .ok()?;

    Tool::new("nbdcopy").arg(server.nbd_url("demo")).arg(&copy).ok()?;
    let whole = image_file::compare(&original, &copy)?;
    assert_eq!(whole, 1 << 30, "all of demo is compared, what was never written too");
    Tool::new("e2fsck").args("-fn").arg(&copy).ok()?;

    let len = IMAGE_MIB << 20;
    let read = client("iscsi-io")
        .arg("read")
        .arg(server.iscsi_url("demo"))
        .args(&format!("0 {len}"));
    assert_eq!(same(&original, &copy, &read.ok()?.stdout)?, len);

    Tool::new("nfs-cp").arg(server.nfs_url("demo")).arg(&copy).ok()?;
    assert_eq!(image_file::compare(&original, &copy)?, 1 << 30);

    println!("{IMAGE_MIB} MiB written by qemu-img; the same bytes by nbdcopy, libiscsi and libnfs");
    server.stop()?;
    Ok(())
}

#[test]
fn what_one_protocol_writes_the_others_read() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create shared --size 64M")?;
    // Odd places and sizes: inside a sector, across sectors, across objects.
    for (at, len) in [(0, 512), (512, 4096), (131_072 - 512, 1024), (1_000_448, 300_032)] {
        for writer in ["nbd", "iscsi", "nfs"] {
            let data = trivet_e2e::Rng::new(at + writer.len() as u64).bytes(len);
            write(&server, writer, at, &data)?;
            for reader in ["nbd", "iscsi", "nfs"] {
                assert!(
                    read(&server, reader, at, len)? == data,
                    "{writer} to {reader}, {len} bytes at {at}"
                );
            }
        }
    }
    server.stop()?;
    Ok(())
}

fn write(server: &trivet_e2e::Server, protocol: &str, at: u64, data: &[u8]) -> Result<()> {
    match protocol {
        "nbd" => trivet_e2e::nbd::Nbd::open(server.ports.nbd, "shared")?.write(at, data)?,
        "iscsi" => {
            let tool = client("iscsi-io").arg("write").arg(server.iscsi_url("shared"));
            tool.arg(at.to_string()).input(data).ok()?;
        }
        _ => {
            let tool = client("nfs-io").arg(server.ports.nfs.to_string());
            tool.args(&format!("write /shared {at}")).input(data).ok()?;
        }
    }
    Ok(())
}

fn read(server: &trivet_e2e::Server, protocol: &str, at: u64, len: usize) -> Result<Vec<u8>> {
    Ok(match protocol {
        "nbd" => trivet_e2e::nbd::Nbd::open(server.ports.nbd, "shared")?.read(at, u32::try_from(len)?)?,
        "iscsi" => {
            let tool = client("iscsi-io").arg("read").arg(server.iscsi_url("shared"));
            tool.args(&format!("{at} {len}")).ok()?.stdout
        }
        _ => {
            let tool = client("nfs-io").arg(server.ports.nfs.to_string());
            tool.args(&format!("read /shared {at} {len}")).ok()?.stdout
        }
    })
}

/// A write of one byte inside a sector keeps the sector's other bytes (NBD and NFS address bytes).
#[test]
fn parts_of_a_sector_are_merged() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create shared --size 64M")?;
    let mut expected = vec![0x11; 8192];
    write(&server, "nbd", 0, &expected)?;
    for (protocol, at, len) in [("nbd", 1, 1), ("nfs", 511, 2), ("nbd", 700, 4000), ("nfs", 4095, 1)] {
        expected[at..at + len].fill(0xee);
        write(&server, protocol, at as u64, &vec![0xee; len])?;
    }
    assert!(read(&server, "iscsi", 0, 8192)? == expected);
    assert!(read(&server, "nfs", 3, 1000)? == expected[3..1003]);
    server.stop()?;
    Ok(())
}
