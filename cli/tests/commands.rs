//! The binary against the real HTTP server, with threads that play the data path and the clerk: what is asked, what is
//! printed, and that every failure is one line and exit code 1.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::process::{Command, Output};
use std::sync::mpsc;

use serde_json::Value;
use tokio::net::TcpListener;
use trivet_api::{
    AdminAnswer, AdminCall, AdminError, AdminResult, Adopt, ClusterChange, ClusterQuestion, CreatePool, Df, ErrorKind,
    GatewayList, Health, ImageInfo, ImageList, MonitorList, OpTotals, OsdInfo, OsdList, PatchOsd, PatchPool,
    PatchSettings, PgExplained, PgFilter, PgList, PoolInfo, PoolList, Scrub, ScrubAsked, SetPlace, Status, Thousandths,
    Tree,
};
use trivet_control::{Administration, Clerk, Errand, Request, channel, http};
use trivet_core::keys::Settings;
use trivet_gateway::overview::Inside;

struct Server {
    api: String,
    asked: mpsc::Receiver<AdminCall>,
    _runtime: tokio::runtime::Runtime,
}

fn start() -> Server {
    start_with(0)
}

/// Its scrubs find so many objects lost.
fn start_with(lost: u64) -> Server {
    let (woken, wakes) = mpsc::channel();
    let (asking, asked) = mpsc::channel();
    let (engine, mut receiver) = channel(move || woken.send(()).unwrap_or_default());
    let asked_of_engine = asking.clone();
    std::thread::spawn(move || {
        while wakes.recv().is_ok() {
            while let Some(request) = receiver.try_recv() {
                match request {
                    Request::Look(reply) => drop(reply.send(Inside::default())),
                    Request::Change(call, reply) => {
                        asked_of_engine.send(call.clone()).unwrap_or_default();
                        drop(reply.send(answer(call, lost)));
                    }
                }
            }
        }
    });
    let (clerk, errands) = Clerk::absent();
    std::thread::spawn(move || {
        for errand in errands {
            match errand {
                Errand::Answer(call, _, reply) => {
                    asking.send(call.clone()).unwrap_or_default();
                    drop(reply.send(answer(call, lost)));
                }
                Errand::Show(_, _, reply) => drop(reply.send(Ok(AdminAnswer::Done {}))),
                Errand::Notice(_) | Errand::Scrape(..) => {}
            }
        }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(http::serve(
        listener,
        Administration { engine, clerk },
        std::future::pending(),
    ));
    Server {
        api,
        asked,
        _runtime: runtime,
    }
}

fn answer(call: AdminCall, lost: u64) -> AdminResult {
    let image = |path: &str, size| Ok(AdminAnswer::Image(ImageInfo::new(path, "1f", size)));
    match call {
        AdminCall::ImageInfo { path } if path == "none" => {
            Err(AdminError::new(ErrorKind::NotFound, "there is no image none\nat all"))
        }
        AdminCall::ImageInfo { path } if path == "used" => {
            let mut used = ImageInfo::new(&path, "1f", 1 << 20);
            (used.used, used.objects, used.ops) = (Some(8192), Some(2), Some(OpTotals::default()));
            Ok(AdminAnswer::Image(used))
        }
        AdminCall::ImageInfo { path } => image(&path, 512),
        AdminCall::ImageCreate { path, size, .. } | AdminCall::ImageResize { path, size } => image(&path, size),
        AdminCall::ImageRename { to, .. } => image(&to, 512),
        AdminCall::ImageList => {
            let images = vec![ImageInfo::new("demo", "1f", 1 << 30)];
            Ok(AdminAnswer::Images(ImageList { images }))
        }
        AdminCall::Status => Ok(AdminAnswer::Status(Box::new(Status {
            health: Health::Ok,
            scrub: Scrub {
                number: 3,
                age_s: 1,
                pgs: 8,
                done: 8,
                objects: 1_000,
                lost,
                ..Scrub::default()
            },
            ..Status::default()
        }))),
        AdminCall::Scrub => Ok(AdminAnswer::Scrub(ScrubAsked { number: 3 })),
        AdminCall::OsdList => Ok(AdminAnswer::Osds(OsdList {
            osds: vec![OsdInfo::default()],
        })),
        AdminCall::Change(change) => Ok(changed(change)),
        AdminCall::Ask(question) => Ok(told(&question)),
        _ => Ok(AdminAnswer::Done {}),
    }
}

fn pool(name: &str) -> PoolInfo {
    PoolInfo {
        name: name.to_owned(),
        ..PoolInfo::default()
    }
}

fn changed(change: ClusterChange) -> AdminAnswer {
    match change {
        ClusterChange::PoolCreate(CreatePool { name: pool_name, .. })
        | ClusterChange::PoolModify { pool: pool_name, .. } => AdminAnswer::Pool(pool(&pool_name)),
        ClusterChange::OsdModify { .. } => AdminAnswer::Osd(OsdInfo::default()),
        ClusterChange::Settings(patch) => AdminAnswer::Settings(patch.on(&Settings::default())),
        _ => AdminAnswer::Done {},
    }
}

fn told(question: &ClusterQuestion) -> AdminAnswer {
    match question {
        ClusterQuestion::Pools => AdminAnswer::Pools(PoolList {
            pools: vec![pool("fast")],
        }),
        ClusterQuestion::Df => AdminAnswer::Df(Df {
            pools: vec![PoolInfo {
                used: Some(8192),
                raw_used: Some(4 << 20),
                objects: Some(16),
                ..pool("fast")
            }],
            ..Df::default()
        }),
        ClusterQuestion::Tree => AdminAnswer::Tree(Tree::default()),
        ClusterQuestion::Pgs(_) => AdminAnswer::Pgs(PgList::default()),
        ClusterQuestion::Pg { .. } => AdminAnswer::Pg(PgExplained {
            reasons: vec!["start OSD 2".to_owned()],
            ..PgExplained::default()
        }),
        ClusterQuestion::Monitors => AdminAnswer::Monitors(MonitorList::default()),
        ClusterQuestion::Gateways => AdminAnswer::Gateways(GatewayList::default()),
        ClusterQuestion::Settings => AdminAnswer::Settings(Settings::default()),
    }
}

fn trivet(api: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trivet"));
    // A proxy must not come between.
    command.env("TRIVET_API", api).env("http_proxy", "http://127.0.0.1:1");
    command.args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of a failure.
fn failure(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(text.starts_with("trivet: ") && text.ends_with('\n'), "{text:?}");
    assert_eq!(text.lines().count(), 1, "{text:?}");
    text
}

/// Runs a command, and compares what was asked and a line of what was printed.
fn check(server: &Server, arguments: &[&str], call: &AdminCall, line: &str) {
    let text = stdout(&trivet(&server.api, arguments));
    assert_eq!(server.asked.recv().unwrap(), *call, "{arguments:?}");
    assert!(
        text.lines().any(|given| given == line),
        "{arguments:?}: {line:?} not in\n{text}"
    );
}

#[test]
fn image_commands_ask_and_print() {
    let server = start();
    let create = |path: &str, size| AdminCall::ImageCreate {
        path: path.to_owned(),
        size,
        pool: None,
    };
    let resize = |path: &str, size| AdminCall::ImageResize {
        path: path.to_owned(),
        size,
    };
    let info = |path: &str| AdminCall::ImageInfo { path: path.to_owned() };
    let remove = |path: &str| AdminCall::ImageRemove { path: path.to_owned() };
    let rename = AdminCall::ImageRename {
        from: "a".to_owned(),
        to: "b/c".to_owned(),
    };
    let table: [(&str, AdminCall, &str); 8] = [
        (
            "create;/vms/a b;--size;1.5G",
            create("vms/a b", 3 << 29),
            "size          1.5 GiB (1610612736 bytes)",
        ),
        ("ls", AdminCall::ImageList, "demo  1.0 GiB     -  1f"),
        ("info;a%2f?b", info("a%2f?b"), "image         a%2f?b"),
        ("info;--;-x", info("-x"), "image         -x"),
        ("info;used", info("used"), "used          8.0 KiB (8192 bytes)"),
        ("resize;a/b;--size;64K", resize("a/b", 65536), "image         a/b"),
        ("rm;a/ü", remove("a/ü"), "removed a/ü"),
        ("rename;a;b/c", rename, "nfs path      /b/c"),
    ];
    for (words, call, line) in table {
        let arguments: Vec<&str> = std::iter::once("image").chain(words.split(';')).collect();
        check(&server, &arguments, &call, line);
    }
}

#[test]
fn cluster_commands_ask_and_print() {
    let server = start();
    let osd = "  0  down   -      0 B   0 B        0    0        0     1.000  -";
    check(&server, &["status"], &AdminCall::Status, "health    ok");
    check(&server, &["osd", "ls"], &AdminCall::OsdList, osd);
    check(
        &server,
        &["osd", "stop", "2"],
        &AdminCall::OsdStop { osd: 2 },
        "OSD 2 is stopped",
    );
    check(
        &server,
        &["osd", "start", "2"],
        &AdminCall::OsdStart { osd: 2 },
        "OSD 2 is started",
    );
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Every line of words is a command; what it asks for, and a line of what it prints.
fn check_all(table: &[(&str, AdminCall, &str)]) {
    let server = start();
    for (command, call, line) in table {
        check(&server, &command.split(' ').collect::<Vec<_>>(), call, line);
    }
}

#[test]
fn pool_commands_ask_and_print() {
    let least = CreatePool {
        name: "fast".to_owned(),
        replicas: 2,
        ..CreatePool::default()
    };
    let all = CreatePool {
        min_size: Some(1),
        pg_count: Some(32),
        failure_domain: Some("rack".to_owned()),
        root: Some("room".to_owned()),
        osd_tags: words(&["nvme", "ssd"]),
        primary_tags: words(&["near"]),
        ..least.clone()
    };
    let patch = PatchPool {
        replicas: Some(3),
        osd_tags: Some(Vec::new()),
        ..PatchPool::default()
    };
    let change = AdminCall::Change;
    let pool = || "fast".to_owned();
    check_all(&[
        (
            "pool create fast --replicas 2",
            change(ClusterChange::PoolCreate(least)),
            "pool            fast",
        ),
        (
            "pool create fast --replicas 2 --min-size 1 --pgs 32 --failure-domain rack --root room --osd-tags ssd,nvme \
             --primary-tags near",
            change(ClusterChange::PoolCreate(all)),
            "pool            fast",
        ),
        (
            "pool modify fast --replicas 3 --osd-tags ",
            change(ClusterChange::PoolModify { pool: pool(), patch }),
            "pool            fast",
        ),
        (
            "pool rm fast",
            change(ClusterChange::PoolRemove { pool: pool() }),
            "removed pool fast",
        ),
        (
            "pool ls",
            AdminCall::Ask(ClusterQuestion::Pools),
            " 0  fast         0    0    0          -     -         -                  0    0 B",
        ),
        (
            "image create a --size 1M --pool fast",
            AdminCall::ImageCreate {
                path: "a".to_owned(),
                size: 1 << 20,
                pool: Some(pool()),
            },
            "image         a",
        ),
    ]);
}

fn modified(osd: u32, patch: PatchOsd) -> AdminCall {
    AdminCall::Change(ClusterChange::OsdModify { osd, patch })
}

#[test]
fn osd_commands_ask_and_print() {
    let none = PatchOsd::default;
    let out = |out| PatchOsd {
        out: Some(out),
        ..none()
    };
    let noout = |noout| PatchOsd {
        noout: Some(noout),
        ..none()
    };
    let add = PatchOsd {
        add_tags: words(&["a", "b"]),
        ..none()
    };
    let remove = PatchOsd {
        remove_tags: words(&["a"]),
        ..none()
    };
    let half = PatchOsd {
        reweight: Some(Thousandths::new(500)),
        ..none()
    };
    let place = SetPlace {
        level: "rack".to_owned(),
        parent: Some("room".to_owned()),
    };
    let name = || "r1".to_owned();
    let set = AdminCall::Change(ClusterChange::TreeSet { name: name(), place });
    let unset = AdminCall::Change(ClusterChange::TreeRemove { name: name() });
    check_all(&[
        ("osd reweight 3 0.5", modified(3, half), "OSD 3 has weight 0.500"),
        ("osd tag add 3 b,a", modified(3, add), "OSD 3 has b, a"),
        ("osd tag rm 3 a", modified(3, remove), "OSD 3 has a no more"),
        (
            "osd out 3",
            modified(3, out(true)),
            "OSD 3 is out: its PGs move to others",
        ),
        ("osd in 3", modified(3, out(false)), "OSD 3 is in"),
        (
            "osd noout 3",
            modified(3, noout(true)),
            "OSD 3 keeps its PGs while it is down",
        ),
        (
            "osd noout 3 off",
            modified(3, noout(false)),
            "OSD 3 loses its PGs when it is down for too long",
        ),
        (
            "osd rm 3",
            AdminCall::Change(ClusterChange::OsdRemove { osd: 3 }),
            "removed OSD 3",
        ),
        (
            "osd tree set r1 --level rack --parent room",
            set,
            "r1 is a rack in room",
        ),
        ("osd tree rm r1", unset, "removed r1"),
        (
            "osd tree",
            AdminCall::Ask(ClusterQuestion::Tree),
            "PLACE  WEIGHT  CAPACITY  USED  AVAIL  USE  STATE  REWEIGHT  TAGS",
        ),
        (
            "osd df",
            AdminCall::OsdList,
            "all                0 B         -     -      -    -    0        0",
        ),
    ]);
}

#[test]
fn questions_about_the_cluster_ask_and_print() {
    let filter = PgFilter {
        pool: Some("fast".to_owned()),
        osd: Some(2),
        state: Some("inactive".to_owned()),
    };
    let patch = PatchSettings {
        osd_out_s: Some(60),
        ..PatchSettings::default()
    };
    let ask = AdminCall::Ask;
    check_all(&[
        ("df", ask(ClusterQuestion::Df), "all OSDs       0 B   0 B    0 B    -"),
        (
            "df",
            ask(ClusterQuestion::Df),
            "fast         0       0       16          0 B  8.0 KiB   4.0 MiB    0 B",
        ),
        (
            "pg ls --pool fast --osd 2 --state inactive",
            ask(ClusterQuestion::Pgs(filter)),
            "PG  POOL  STATE  UP  ACTING  PRIMARY  EPOCH  MISSING",
        ),
        (
            "pg explain fast.3",
            ask(ClusterQuestion::Pg {
                pg: "fast.3".to_owned(),
            }),
            "why         start OSD 2",
        ),
        ("mon ls", ask(ClusterQuestion::Monitors), "MONITOR  STATE  HOST"),
        ("gateway ls", ask(ClusterQuestion::Gateways), "GATEWAY  NAME  HTTP"),
        ("settings", ask(ClusterQuestion::Settings), "backfill_full_pct  90 %"),
        (
            "settings show",
            ask(ClusterQuestion::Settings),
            "osd_out_s          600 (10m 0s)",
        ),
        (
            "settings set osd_out_s 60",
            AdminCall::Change(ClusterChange::Settings(patch)),
            "osd_out_s          60 (1m 0s)",
        ),
        (
            "meta adopt --without 3,4",
            AdminCall::Change(ClusterChange::Adopt(Adopt { without: vec![3, 4] })),
            "the metadata is adopted; look into /lost+found for images without names",
        ),
    ]);
}

#[test]
fn a_scrub_is_asked_for_and_waited_for() {
    let server = start();
    let line = "scrub 3 is asked for; 'trivet status' shows how far it is";
    check(&server, &["scrub"], &AdminCall::Scrub, line);
    let found =
        |lost| format!("8 of 8 PGs, 1,000 objects compared, 0 repaired, 0 inconsistent, {lost} lost (asked 1s ago)\n");
    assert_eq!(stdout(&trivet(&server.api, &["scrub", "--wait"])), found(0));
    let json: Value = serde_json::from_str(&stdout(&trivet(&server.api, &["scrub", "--wait", "--json"]))).unwrap();
    assert_eq!(json["objects"], 1_000, "{json}");

    let bad = start_with(2);
    let output = trivet(&bad.api, &["scrub", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), found(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.starts_with("trivet: the scrub found ") && text.contains("2 without a good copy"),
        "{text}"
    );
}

#[test]
fn json_is_the_api_s() {
    let server = start();
    let table: [(&[&str], &str, Value); 7] = [
        (&["--json", "image", "ls"], "/images/0/size", Value::from(1u64 << 30)),
        (&["image", "info", "a/b", "--json"], "/path", Value::from("a/b")),
        (&["image", "info", "used", "--json"], "/used", Value::from(8192)),
        (&["image", "info", "used", "--json"], "/ops/read/count", Value::from(0)),
        (&["df", "--json"], "/pools/0/raw_used", Value::from(4 << 20)),
        (&["status", "--json"], "/health", Value::from("ok")),
        (
            &["osd", "stop", "1", "--json"],
            "",
            Value::Object(serde_json::Map::new()),
        ),
    ];
    for (arguments, pointer, value) in table {
        let text = stdout(&trivet(&server.api, arguments));
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.pointer(pointer), Some(&value), "{arguments:?}: {text}");
    }
}

#[test]
fn failures_are_one_line() {
    let server = start();
    let table: [(&[&str], &str); 13] = [
        (
            &["image", "info", "none"],
            "cannot show image none: there is no image none\\nat all",
        ),
        (&["image", "create", "a", "--size", "12Q"], "bad size \"12Q\""),
        (&["image", "create", "a", "--size", "513"], "multiple of 512"),
        (&["image", "create", "a", "--size", "0"], "bad size"),
        (&["image", "create", "a/../b", "--size", "1G"], "bad image name"),
        (&["osd", "stop", "x"], "bad OSD number \"x\""),
        (&["osd", "reweight", "1", "1.5"], "bad fraction 1.5"),
        (&["osd", "tag", "add", "1", "a b"], "bad name \"a b\""),
        (&["pool", "create", "7", "--replicas", "2"], "bad pool name \"7\""),
        (&["settings", "set", "osd_out_s", "0"], "bad osd_out_s 0"),
        (
            &["up", "--data", "d", "--osd-size", "big"],
            "--osd-size <SIZE>: bad size",
        ),
        (
            &["up", "--data", "d", "--osds", "1"],
            "--replicas 2: there is only 1 OSD;",
        ),
        (&["--api", "https://127.0.0.1", "status"], "bad API address"),
    ];
    for (arguments, part) in table {
        let line = failure(&trivet(&server.api, arguments));
        assert!(line.contains(part), "{arguments:?}: {line}");
    }
}

#[test]
fn with_json_failures_are_json_too() {
    let server = start();
    let table: [(&[&str], &str, &str); 5] = [
        (
            &["image", "info", "none", "--json"],
            "not_found",
            "cannot show image none: ",
        ),
        (
            &["--json", "image", "create", "a", "--size", "-1"],
            "invalid",
            "not negative",
        ),
        (&["--json", "frobnicate"], "invalid", "unrecognized subcommand"),
        (&["--json", "--api", "ftp://x", "status"], "invalid", "bad API address"),
        (
            &["up", "--json", "--data", "d", "--osds", "1"],
            "internal",
            "only 1 OSD",
        ),
    ];
    for (arguments, kind, part) in table {
        let output = trivet(&server.api, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let error = &serde_json::from_str::<Value>(&text).unwrap()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(
            error["kind"] == kind && message.contains(part),
            "{arguments:?}: {error}"
        );
    }
    let absent = trivet("http://127.0.0.1:1", &["--json", "status"]);
    let error: Value = serde_json::from_slice(&absent.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "unavailable");
}

#[test]
fn a_log_level_that_is_none_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trivet"));
    command
        .env("TRIVET_LOG", "info,trivet_osd=loud")
        .arg("up")
        .arg("--data")
        .arg(&data);
    let line = failure(&command.output().unwrap());
    assert!(line.contains("TRIVET_LOG: \"loud\" is no level"), "{line}");
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let line = failure(&trivet(&api, &["status"]));
    assert!(line.contains(&api) && line.contains("trivet up"), "{line}");
}

#[test]
fn usage_errors_exit_with_1_and_help_with_0() {
    for arguments in [&["image", "create", "a"][..], &["frobnicate"], &["up"]] {
        let output = trivet("", arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = stdout(&trivet("", &["--help"]));
    assert!(help.contains("TRIVET_API") && help.contains("image"), "{help}");
}
