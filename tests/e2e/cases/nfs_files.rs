//! The namespace over NFS: files are images, images are files, directories last.

use anyhow::{Result, ensure};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::{Cluster, Rng, Server, Tool, client};

fn nfs(server: &Server, args: &str) -> Result<String> {
    Ok(client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args(args)
        .ok()?
        .text()
        .trim()
        .to_owned())
}

/// libnfs's words about a refusal.
fn nfs_refused(server: &Server, args: &str) -> Result<String> {
    let ended = client("nfs-io").arg(server.ports.nfs.to_string()).args(args).end()?;
    ensure!(ended.status.code() == Some(1), "{args}: {}", ended.status);
    Ok(ended.stderr)
}

fn listing(server: &Server, path: &str) -> Result<String> {
    Ok(Tool::new("nfs-ls").arg(server.nfs_url(path)).ok()?.text())
}

#[test]
fn a_file_made_over_nfs_is_an_export_and_a_lun() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    nfs(&server, "mkdir /vms")?;
    nfs(&server, "create /vms/disk")?;
    nfs(&server, "truncate /vms/disk 1048576")?;
    assert_eq!(nfs(&server, "stat /vms/disk")?, "file 1048576");
    let data = Rng::new(3).bytes(1 << 20);
    client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args("write /vms/disk 0")
        .input(&data)
        .ok()?;

    let mut nbd = Nbd::open(server.ports.nbd, "vms/disk")?;
    assert_eq!(nbd.size, 1 << 20);
    assert!(nbd.read(0, 1 << 20)? == data);
    let url = server.iscsi_url("vms/disk");
    assert_eq!(client("iscsi-io").arg("size").arg(&url).ok()?.text().trim(), "1048576");
    let read = client("iscsi-io").arg("read").arg(&url).args("0 1048576").ok()?;
    assert!(read.stdout == data);
    let portals = format!("iscsi://127.0.0.1:{}", server.ports.iscsi);
    assert!(Tool::new("iscsi-ls").arg(portals).ok()?.text().contains(":vms:disk"));

    // Open handles survive a rename: identity is the id, not the name.
    nfs(&server, "rename /vms/disk /moved")?;
    nbd.write(512, &[0x99; 512])?;
    drop(nbd);
    let moved = client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args("read /moved 512 512")
        .ok()?;
    assert!(moved.stdout == [0x99; 512]);
    server.stop()?;
    Ok(())
}

#[test]
fn a_write_beyond_the_end_grows_the_file() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    nfs(&server, "create /grows")?;
    assert_eq!(nfs(&server, "stat /grows")?, "file 0");
    client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args("write /grows 1000")
        .input(&[7; 100])
        .ok()?;
    assert_eq!(nfs(&server, "stat /grows")?, "file 1100");
    let all = client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args("read /grows 0 1100")
        .ok()?
        .stdout;
    assert!(all[..1000].iter().all(|byte| *byte == 0) && all[1000..].iter().all(|byte| *byte == 7));
    server.stop()?;
    Ok(())
}

#[test]
fn files_are_copied_listed_and_removed() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    let (local, back) = (cluster.scratch("local"), cluster.scratch("back"));
    // Not whole sectors, more than one object.
    std::fs::write(&local, Rng::new(4).bytes(700_001))?;
    Tool::new("nfs-cp").arg(&local).arg(server.nfs_url("copied")).ok()?;
    assert!(listing(&server, "")?.contains("copied"));
    assert!(Tool::new("nfs-cat").arg(server.nfs_url("copied")).ok()?.stdout == std::fs::read(&local)?);
    Tool::new("nfs-cp").arg(server.nfs_url("copied")).arg(&back).ok()?;
    assert!(std::fs::read(&back)? == std::fs::read(&local)?);
    nfs(&server, "rm /copied")?;
    assert!(!listing(&server, "")?.contains("copied"));
    assert!(Nbd::open(server.ports.nbd, "copied").is_err());
    server.stop()?;
    Ok(())
}

#[test]
fn directories_last_and_refuse_what_they_must() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    for path in ["/a", "/a/b", "/a/b/c", "/empty"] {
        nfs(&server, &format!("mkdir {path}"))?;
    }
    nfs(&server, "create /a/b/file")?;
    let table = [
        ("mkdir /a", "EXIST"),
        ("rmdir /a", "NOTEMPTY"),
        ("rmdir /nothing", "NOENT"),
        ("stat /nothing", "NOENT"),
        ("rm /a", "ISDIR"),
        ("rmdir /a/b/file", "NOTDIR"),
        ("create /a/b/file/x", "NOTDIR"),
        ("rename /a /a/b/a", "INVAL"),
    ];
    for (args, word) in table {
        let said = nfs_refused(&server, args)?;
        assert!(said.contains(word), "{args}: {said}");
    }
    nfs(&server, "rmdir /empty")?;
    // SYMLINK is either done or said not to be supported.
    let link = client("nfs-io")
        .arg(server.ports.nfs.to_string())
        .args("symlink target /link")
        .end()?;
    ensure!(
        link.status.success() || link.stderr.contains("NOTSUPP"),
        "symlink: {}",
        link.stderr
    );
    server.stop()?;
    let server = cluster.start()?;
    assert_eq!(nfs(&server, "stat /a/b/c")?, "dir");
    assert_eq!(nfs(&server, "stat /a/b/file")?, "file 0");
    assert!(nfs_refused(&server, "stat /empty")?.contains("NOENT"));
    server.stop()?;
    Ok(())
}

#[test]
fn a_large_directory_is_listed_whole() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    nfs(&server, "mkdir /many")?;
    for number in 0..300 {
        server.admin(&format!("image create many/image-{number:04} --size 1M"))?;
    }
    let list = Tool::new("nfs-ls").args("-R").arg(server.nfs_url("")).ok()?.text();
    let seen = (0..300)
        .filter(|number| list.contains(&format!("image-{number:04}")))
        .count();
    assert_eq!((seen, list.matches("image-").count()), (300, 300), "each once");
    server.stop()?;
    Ok(())
}
