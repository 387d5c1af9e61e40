//! The contract of the command line: others script against it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trivet_e2e::command::Ended;
use trivet_e2e::server::{Ports, binary, up_args};
use trivet_e2e::{Cluster, Server, Tool};

/// Whether `wanted` stands anywhere in `json`, as a value.
fn contains(json: &Value, wanted: &Value) -> bool {
    match json {
        Value::Array(items) => items.iter().any(|item| contains(item, wanted)),
        Value::Object(fields) => fields.values().any(|field| contains(field, wanted)),
        other => other == wanted,
    }
}

/// One clear line on standard error, exit code 1, no `ready`.
pub fn refused(ended: &Ended, mentions: &[&str]) -> Result<()> {
    ensure!(
        ended.status.code() == Some(1),
        "{}: {}{}",
        ended.status,
        ended.text(),
        ended.stderr
    );
    ensure!(!ended.text().lines().any(|line| line == "ready"), "said ready");
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "not one line: {lines:#?}");
    ensure!(!lines[0].contains("panicked"), "{lines:?}");
    let line = lines[0].to_lowercase();
    ensure!(
        mentions.iter().any(|word| line.contains(word)),
        "{line} mentions none of {mentions:?}"
    );
    Ok(())
}

fn names(server: &Server) -> Result<Value> {
    server.json("image ls")
}

#[test]
fn up_prints_commands_and_ready_and_makes_demo() -> Result<()> {
    let cluster = Cluster::new()?.plain();
    let server = cluster.start()?;
    let said = server.said.join("\n");
    for port in [server.ports.nbd, server.ports.iscsi, server.ports.nfs] {
        assert!(
            said.contains(&port.to_string()),
            "no command for port {port} in:\n{said}"
        );
    }
    assert!(contains(&server.json("image info demo")?, &Value::from(1u64 << 30)));
    let nbd = trivet_e2e::nbd::Nbd::open(server.ports.nbd, "demo")?;
    assert_eq!(nbd.size, 1 << 30);
    // TRIM and the like are advertised: HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN.
    for bit in [0, 2, 3, 5, 6, 8] {
        assert!(
            nbd.flags & (1 << bit) != 0,
            "transmission flag {bit} in {:#b}",
            nbd.flags
        );
    }
    drop(nbd);
    assert!(server.stop()? < Duration::from_secs(5));
    Ok(())
}

#[test]
fn images_are_made_listed_resized_renamed_removed() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create one --size 64M")?;
    assert!(contains(&names(&server)?, &Value::from("one")));
    assert!(server.admin("image ls")?.text().contains("one"));
    assert!(contains(&server.json("image info one")?, &Value::from(64u64 << 20)));
    server.admin("image resize one --size 128M")?;
    assert!(contains(&server.json("image info one")?, &Value::from(128u64 << 20)));
    assert_eq!(trivet_e2e::nbd::Nbd::open(server.ports.nbd, "one")?.size, 128 << 20);
    server.admin("image rename one two")?;
    assert!(contains(&names(&server)?, &Value::from("two")) && !contains(&names(&server)?, &Value::from("one")));
    assert!(trivet_e2e::nbd::Nbd::open(server.ports.nbd, "one").is_err());
    server.admin("image rm two")?;
    assert!(!contains(&names(&server)?, &Value::from("two")));
    server.stop()?;
    Ok(())
}

#[test]
fn data_outlives_rename_and_restart_and_not_removal() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create one --size 64M")?;
    let data = trivet_e2e::Rng::new(5).bytes(1 << 20);
    trivet_e2e::nbd::Nbd::open(server.ports.nbd, "one")?.write(4096, &data)?;
    server.admin("image rename one two")?;
    server.stop()?;
    let server = cluster.start()?;
    assert!(trivet_e2e::nbd::Nbd::open(server.ports.nbd, "two")?.read(4096, 1 << 20)? == data);
    server.admin("image rm two")?;
    server.admin("image create two --size 64M")?;
    assert!(trivet_e2e::nbd::Nbd::open(server.ports.nbd, "two")?.read(4096, 1 << 20)? == vec![0; 1 << 20]);
    server.stop()?;
    Ok(())
}

#[test]
fn shrinking_drops_what_is_beyond() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create one --size 1M")?;
    let open = || trivet_e2e::nbd::Nbd::open(server.ports.nbd, "one");
    open()?.write(0, &[0x33; 1 << 20])?;
    server.admin("image resize one --size 300K")?;
    server.admin("image resize one --size 1M")?;
    let data = open()?.read(0, 1 << 20)?;
    let kept = 300 << 10;
    assert!(data[..kept].iter().all(|byte| *byte == 0x33), "the kept part changed");
    assert!(data[kept..].iter().all(|byte| *byte == 0), "what was cut off is back");
    server.stop()?;
    Ok(())
}

#[test]
fn every_command_speaks_json() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut server = cluster.start()?;
    server.expect_log("OSD ");
    for command in [
        "status",
        "osd ls",
        "image ls",
        "image create j --size 1M",
        "image info j",
        "image resize j --size 2M",
        "image rename j k",
        "image rm k",
        "osd stop 1",
        "osd start 1",
    ] {
        server.json(command)?;
    }
    server.stop()?;
    Ok(())
}

#[test]
fn commands_that_cannot_be_done_fail_with_one_line() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    let table: &[(&str, &[&str])] = &[
        ("image create demo --size 1G", &["exist"]),
        ("image info nothing", &["no ", "not "]),
        ("image rm nothing", &["no ", "not "]),
        ("image resize nothing --size 1M", &["no ", "not "]),
        ("image rename nothing other", &["no ", "not "]),
        ("image create x --size 1Q", &["size", "1q"]),
        ("image create x --size 0", &["size", "0"]),
        ("image create x --size=-1", &["size", "-1"]),
        ("image create x --size 99999999999G", &["size", "large", "big"]),
        ("image create a/../b --size 1M", &["name", "path", ".."]),
        ("osd stop 99", &["osd", "99"]),
    ];
    let before = names(&server)?;
    for (command, mentions) in table {
        let ended = server.cli(command)?.end()?;
        refused(&ended, mentions).with_context(|| (*command).to_owned())?;
    }
    assert_eq!(names(&server)?, before, "a refused command changed something");
    server.stop()?;
    Ok(())
}

#[test]
fn a_missing_server_is_one_line() -> Result<()> {
    let port = Ports::free()?.http;
    let ended = Tool::new(binary()?)
        .args(&format!("--api http://127.0.0.1:{port} status"))
        .within(20)
        .end()?;
    refused(&ended, &["connect", "reach", "refused"])
}

#[test]
fn a_second_up_on_the_same_folder_is_refused() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    let mut up = Tool::new(binary()?).within(20);
    for arg in up_args(&cluster.data(), Ports::free()?, &[]) {
        up = up.arg(arg);
    }
    refused(&up.end()?, &["use", "lock", "running"])?;
    let data = [0x42; 4096];
    let mut nbd = trivet_e2e::nbd::Nbd::open(server.ports.nbd, "demo")?;
    nbd.write(0, &data)?;
    assert!(nbd.read(0, 4096)? == data, "the first one is unharmed");
    drop(nbd);
    server.stop()?;
    Ok(())
}

#[test]
fn a_folder_keeps_its_cluster() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.start()?.stop()?;
    for (option, mentions) in [
        ("--osds 4", "3 osds"),
        ("--replicas 3", "2 copies"),
        ("--osd-size 2G", "1.0 gib"),
    ] {
        let mut up = Tool::new(binary()?).within(30);
        for arg in up_args(&cluster.data(), cluster.ports, &[]) {
            up = up.arg(arg);
        }
        refused(&up.args(option).end()?, &[mentions])?;
    }
    // Saying what is so, or nothing, is no contradiction.
    cluster.with("--osds 3 --replicas 2").start()?.stop()?;
    Ok(())
}

#[test]
fn a_port_in_use_is_refused() -> Result<()> {
    for taken in 0..4 {
        let cluster = Cluster::new()?;
        let Ports { nbd, iscsi, nfs, http } = cluster.ports;
        let port = [nbd, iscsi, nfs, http][taken];
        let held = std::net::TcpListener::bind(("127.0.0.1", port))?;
        let mut up = Tool::new(binary()?).within(30);
        for arg in cluster.up_args() {
            up = up.arg(arg);
        }
        refused(&up.end()?, &[&port.to_string()])?;
        drop(held);
        // Nothing is harmed: the same command works once the port is free.
        cluster.start()?.stop()?;
    }
    Ok(())
}

#[test]
fn bad_arguments_of_up_are_refused() -> Result<()> {
    let table: &[(&str, &[&str])] = &[
        ("--osd-size 4Q", &["size", "4q"]),
        ("--osd-size 0", &["size"]),
        ("--osd-size 1K", &["size", "small"]),
        ("--osd-size 900000T", &["size", "space", "large", "big"]),
        ("--osds 0", &["osds"]),
        ("--osds 1 --replicas 2", &["replicas", "osds"]),
        ("--replicas 0", &["replicas"]),
    ];
    for (args, mentions) in table {
        let cluster = Cluster::new()?.plain().with(args);
        let mut up = Tool::new(binary()?).within(30);
        for arg in cluster.up_args() {
            up = up.arg(arg);
        }
        refused(&up.end()?, mentions).with_context(|| (*args).to_owned())?;
    }
    Ok(())
}

/// A file system of 24 MiB, of its own mount namespace: no privilege needed where user namespaces are.
#[test]
fn a_full_disk_is_refused() -> Result<()> {
    let cluster = Cluster::new()?;
    let folder = cluster.scratch("small");
    std::fs::create_dir(&folder)?;
    let script = "mount -t tmpfs -o size=24m tmpfs \"$1\" && shift && exec \"$@\"";
    let mut up = Tool::new("unshare")
        .args("-r -m sh -c")
        .arg(script)
        .arg("sh")
        .arg(&folder)
        .arg(binary()?)
        .within(30);
    for arg in up_args(&folder.join("data"), cluster.ports, &[]) {
        up = up.arg(arg);
    }
    refused(&up.end()?, &["space", "full"])
}

#[test]
fn metrics_and_health_are_served() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    assert!(http(&server, "/healthz")?.starts_with("HTTP/1.1 200"));
    let metrics = http(&server, "/metrics")?;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.contains("# TYPE"),
        "{metrics}"
    );
    server.stop()?;
    Ok(())
}

pub fn http(server: &Server, path: &str) -> Result<String> {
    http_at(server.ports.http, path)
}

/// The same of the server at a port.
pub fn http_at(port: u16, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_terminal_that_closes_ends_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.hang_up()?;
    server.hang_up()?;
    assert!(http(&server, "/readyz")?.starts_with("HTTP/1.1 200"));
    let log = server.log.clone();
    server.stop()?;
    assert!(!log.with("SIGHUP").is_empty(), "{:#?}", log.lines());
    Ok(())
}

#[test]
fn sigterm_under_load_stops_in_time_and_keeps_everything() -> Result<()> {
    let cluster = Cluster::alone()?;
    let server = cluster.start()?;
    let port = server.ports.nbd;
    let mut ledger = trivet_e2e::ledger::Ledger::new(0, 16 * 1024);
    let count = std::sync::atomic::AtomicU64::new(0);
    let took = std::thread::scope(|scope| -> Result<Duration> {
        let (ledger, count) = (&mut ledger, &count);
        let writer = scope.spawn(move || {
            trivet_e2e::storm::write_until_death(port, "demo", ledger, &mut trivet_e2e::Rng::new(9), count)
        });
        std::thread::sleep(Duration::from_secs(1));
        let took = server.stop()?;
        // A server on its way out may say that it is (NBD_ESHUTDOWN): not an acknowledgement.
        drop(writer.join().expect("a writer that does not panic"));
        Ok(took)
    })?;
    let server = cluster.start()?;
    let sectors = trivet_e2e::storm::compare_all(server.ports.nbd, "demo", &mut ledger)?;
    println!(
        "SIGTERM under load: {took:?}, {} writes acknowledged, {sectors} sectors checked",
        count.into_inner()
    );
    server.stop()?;
    Ok(())
}
