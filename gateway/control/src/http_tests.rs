//! The API over a real listener, with threads that play the data path and the clerk.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use trivet_api::*;
use trivet_gateway::overview::Inside;

use crate::administration::Administration;
use crate::calls::{AdminHandle, Request, channel};
use crate::clerk::{Clerk, Errand};
use crate::http::serve;
use crate::scrape::{Shown, scrape};

struct Server {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// A server whose data path and clerk answer like this.
fn start(answer: impl Fn(AdminCall) -> AdminResult + Send + Clone + 'static) -> Server {
    let (woken, wakes) = mpsc::channel();
    let (engine, mut receiver) = channel(move || woken.send(()).unwrap_or_default());
    let data_path = answer.clone();
    std::thread::spawn(move || {
        while wakes.recv().is_ok() {
            while let Some(request) = receiver.try_recv() {
                match request {
                    Request::Change(call, reply) => drop(reply.send(data_path(call))),
                    Request::Look(reply) => drop(reply.send(inside(&data_path))),
                }
            }
        }
    });
    start_with(engine, answer)
}

/// The data path says of itself what the status says of it.
fn inside(answer: impl Fn(AdminCall) -> AdminResult) -> Inside {
    let Ok(AdminAnswer::Status(status)) = answer(AdminCall::Status) else {
        panic!("there is a status");
    };
    Inside {
        gateway: status.gateway,
        ..Inside::default()
    }
}

/// One that answers like this, with another data path.
fn start_with(engine: AdminHandle, answer: impl Fn(AdminCall) -> AdminResult + Send + 'static) -> Server {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (clerk, errands) = Clerk::absent();
    std::thread::spawn(move || {
        for errand in errands {
            match errand {
                Errand::Notice(_) => {}
                Errand::Answer(call, _, reply) => drop(reply.send(answer(call))),
                Errand::Show(_, _, reply) => drop(reply.send(Ok(AdminAnswer::Done {}))),
                Errand::Scrape(inside, format, reply) => {
                    drop(reply.send(format.write(text(&answer, inside.as_ref()))));
                }
            }
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let served = runtime.spawn(serve(listener, Administration { engine, clerk }, shutdown));
    Server {
        runtime,
        address,
        stop,
        served,
    }
}

fn text(answer: impl Fn(AdminCall) -> AdminResult, inside: Option<&Inside>) -> String {
    let mut shown = Shown::default();
    if let (Some(_), Ok(AdminAnswer::Status(status))) = (inside, answer(AdminCall::Status)) {
        shown.status = Some(*status);
    }
    if let Ok(AdminAnswer::Pools(list)) = answer(AdminCall::Ask(ClusterQuestion::Pools)) {
        shown.pools = list.pools;
    }
    scrape(Vec::new(), shown)
}

impl Server {
    /// Sends bytes, returns the head and the body of the answer.
    fn whole(&self, request: &[u8]) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// The same with the status in place of the head.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let (head, body) = self.whole(request);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    fn send(&self, line: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.raw(&[head.as_bytes(), body.as_bytes()].concat())
    }

    fn json(&self, line: &str, body: &str) -> (u16, Value) {
        let headers = "Host: localhost\r\nContent-Type: application/json\r\n";
        let (status, body) = self.send(line, headers, body);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }
}

/// Answers every image call with the image asked for, so that the tests see what arrived.
fn obliging(call: AdminCall) -> AdminResult {
    let image = |path: &str, size| Ok(AdminAnswer::Image(ImageInfo::new(path, "1f", size)));
    match call {
        AdminCall::ImageCreate { path, size, .. } if path == "full" => {
            Err(AdminError::new(ErrorKind::NoSpace, format!("no room for {size} bytes")))
        }
        AdminCall::ImageCreate { path, size, .. } | AdminCall::ImageResize { path, size } => image(&path, size),
        AdminCall::ImageInfo { path } if path == "none" => Err(AdminError::new(ErrorKind::NotFound, "no image none")),
        AdminCall::ImageInfo { path } => image(&path, 512),
        AdminCall::ImageRename { from, to } => image(&format!("{from}>{to}"), 512),
        AdminCall::ImageList => {
            let images = vec![ImageInfo::new("a", 1, 512), ImageInfo::new("b/c", 2, 1024)];
            Ok(AdminAnswer::Images(ImageList { images }))
        }
        AdminCall::Status => {
            let status = Status {
                health: Health::Warn,
                images: 2,
                gateway: GatewayStatus {
                    serves: true,
                    opens: true,
                    metadata_age_ms: Some(1_500),
                    log_lines_lost: 3,
                    ..GatewayStatus::default()
                },
                ..Status::default()
            };
            Ok(AdminAnswer::Status(Box::new(status)))
        }
        AdminCall::OsdList => {
            let osds = vec![OsdInfo {
                id: 1,
                state: OsdState::Up,
                ..OsdInfo::default()
            }];
            Ok(AdminAnswer::Osds(OsdList { osds }))
        }
        AdminCall::ImageRemove { .. } | AdminCall::OsdStop { osd: 1 } | AdminCall::OsdStart { osd: 1 } => {
            Ok(AdminAnswer::Done {})
        }
        AdminCall::Scrub => Ok(AdminAnswer::Scrub(ScrubAsked { number: 4 })),
        AdminCall::Ask(ClusterQuestion::Pools) => Ok(AdminAnswer::Pools(PoolList {
            pools: vec![PoolInfo {
                name: "fast".into(),
                images: 3,
                ..PoolInfo::default()
            }],
        })),
        // So that the tests see what arrived.
        AdminCall::Change(_) | AdminCall::Ask(_) => Err(AdminError::new(ErrorKind::Conflict, format!("{call:?}"))),
        AdminCall::OsdStop { osd } | AdminCall::OsdStart { osd } => {
            Err(AdminError::new(ErrorKind::NotFound, format!("no OSD {osd}")))
        }
    }
}

#[test]
fn routes_ask_and_answer() {
    let server = start(obliging);
    let create = r#"{"path": "/vms/a", "size": 1024}"#;
    let images = "POST /api/v1/images";
    let table = [
        (images, create, 201, "/path", json!("vms/a")),
        (images, create, 201, "/size", json!(1024)),
        ("GET /api/v1/images", "", 200, "/images/1/path", json!("b/c")),
        ("GET /api/v1/images/vms/web%2001", "", 200, "/path", json!("vms/web 01")),
        ("GET /api/v1/images/vms%2fa", "", 200, "/path", json!("vms/a")),
        (
            "GET /api/v1/images/vms/a",
            "",
            200,
            "/iscsi",
            json!("iqn.2026-11.io.trivet:vms:a"),
        ),
        (
            "PATCH /api/v1/images/a/b",
            r#"{"size": 512}"#,
            200,
            "/path",
            json!("a/b"),
        ),
        (
            "PATCH /api/v1/images/a/b",
            r#"{"path": "c/d"}"#,
            200,
            "/path",
            json!("a/b>c/d"),
        ),
        ("DELETE /api/v1/images/a/b", "", 200, "", json!({})),
        ("GET /api/v1/status", "", 200, "/health", json!("warn")),
        ("GET /api/v1/osds", "", 200, "/osds/0/state", json!("up")),
        ("POST /api/v1/osds/1/stop", "", 200, "", json!({})),
        ("POST /api/v1/osds/1/start", "", 200, "", json!({})),
        ("POST /api/v1/scrub", "", 200, "/number", json!(4)),
        ("GET /api/v1/pools", "", 200, "/pools/0/images", json!(3)),
    ];
    for (line, body, status, pointer, value) in table {
        let (given, answer) = server.json(line, body);
        assert_eq!(given, status, "{line}: {answer}");
        assert_eq!(answer.pointer(pointer), Some(&value), "{line}: {answer}");
    }
}

/// What is asked for a request.
fn heard(server: &Server, line: &str, body: &str) -> String {
    let (_, answer) = server.json(line, body);
    answer["error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn changes_of_the_cluster_reach_the_data_path() {
    let server = start(obliging);
    let pool = || "fast".to_owned();
    let name = || "r1".to_owned();
    let create = CreatePool {
        name: pool(),
        replicas: 3,
        ..CreatePool::default()
    };
    let patch = PatchPool {
        min_size: Some(2),
        ..PatchPool::default()
    };
    let osd = PatchOsd {
        reweight: Some(Thousandths::new(500)),
        ..PatchOsd::default()
    };
    let place = SetPlace {
        level: "rack".into(),
        parent: Some("room".into()),
    };
    let settings = PatchSettings {
        osd_out_s: Some(60),
        ..PatchSettings::default()
    };
    let modify = ClusterChange::PoolModify { pool: pool(), patch };
    let weigh = ClusterChange::OsdModify { osd: 3, patch: osd };
    let set = ClusterChange::TreeSet { name: name(), place };
    let room = r#"{"level": "rack", "parent": "room"}"#;
    let table = [
        (
            "POST /api/v1/pools",
            r#"{"name": "fast", "replicas": 3}"#,
            ClusterChange::PoolCreate(create),
        ),
        ("PATCH /api/v1/pools/fast", r#"{"min_size": 2}"#, modify),
        (
            "DELETE /api/v1/pools/fast",
            "",
            ClusterChange::PoolRemove { pool: pool() },
        ),
        ("PATCH /api/v1/osds/3", r#"{"reweight": 0.5}"#, weigh),
        ("DELETE /api/v1/osds/3", "", ClusterChange::OsdRemove { osd: 3 }),
        ("PUT /api/v1/tree/r1", room, set),
        ("DELETE /api/v1/tree/r1", "", ClusterChange::TreeRemove { name: name() }),
        (
            "PATCH /api/v1/settings",
            r#"{"osd_out_s": 60}"#,
            ClusterChange::Settings(settings),
        ),
        (
            "POST /api/v1/meta/adopt",
            r#"{"without": [3]}"#,
            ClusterChange::Adopt(Adopt { without: vec![3] }),
        ),
    ];
    for (line, body, change) in table {
        let call = AdminCall::Change(change);
        assert_eq!(heard(&server, line, body), format!("{call:?}"), "{line}");
    }
}

#[test]
fn questions_about_the_cluster_reach_the_clerk() {
    let server = start(obliging);
    let filter = PgFilter {
        pool: Some("fast".into()),
        osd: Some(3),
        state: None,
    };
    let table = [
        ("GET /api/v1/tree", ClusterQuestion::Tree),
        ("GET /api/v1/df", ClusterQuestion::Df),
        ("GET /api/v1/pgs?pool=fast&osd=3", ClusterQuestion::Pgs(filter)),
        ("GET /api/v1/pgs/fast.3", ClusterQuestion::Pg { pg: "fast.3".into() }),
        ("GET /api/v1/mons", ClusterQuestion::Monitors),
        ("GET /api/v1/gateways", ClusterQuestion::Gateways),
        ("GET /api/v1/settings", ClusterQuestion::Settings),
    ];
    for (line, question) in table {
        let call = AdminCall::Ask(question);
        assert_eq!(heard(&server, line, ""), format!("{call:?}"), "{line}");
    }
}

#[test]
fn failures_are_json_with_the_right_status() {
    let server = start(obliging);
    let huge = format!(r#"{{"path": "{}", "size": 512}}"#, "x".repeat(1 << 20));
    let table = [
        ("GET /api/v1/images/none", "", 404, "not_found"),
        ("POST /api/v1/osds/9/stop", "", 404, "not_found"),
        ("POST /api/v1/osds/x/stop", "", 400, "invalid"),
        (
            "POST /api/v1/images",
            r#"{"path": "full", "size": 512}"#,
            507,
            "no_space",
        ),
        ("POST /api/v1/images", r#"{"path": "a", "size": 513}"#, 400, "invalid"),
        (
            "POST /api/v1/images",
            r#"{"path": "a/../b", "size": 512}"#,
            400,
            "invalid",
        ),
        ("POST /api/v1/images", r#"{"path": "a", "size": -1}"#, 400, "invalid"),
        ("POST /api/v1/images", r#"{"path": "a"}"#, 400, "invalid"),
        ("POST /api/v1/images", "{", 400, "invalid"),
        ("POST /api/v1/images", "", 400, "invalid"),
        ("POST /api/v1/images", huge.as_str(), 413, "too_large"),
        ("PATCH /api/v1/images/a", "{}", 400, "invalid"),
        ("GET /api/v1/images/a%00b", "", 400, "invalid"),
        ("GET /api/v1/images/a%ff", "", 400, "invalid"),
        ("GET /api/v1/images/a//b", "", 400, "invalid"),
        ("POST /api/v1/pools", r#"{"name": "p"}"#, 400, "invalid"),
        ("POST /api/v1/pools", r#"{"name": "p", "replicas": 0}"#, 400, "invalid"),
        ("PATCH /api/v1/osds/1", "{}", 400, "invalid"),
        ("PATCH /api/v1/osds/1", r#"{"reweight": 1.5}"#, 400, "invalid"),
        ("PATCH /api/v1/osds/x", r#"{"out": true}"#, 400, "invalid"),
        ("PUT /api/v1/tree/a%20b", r#"{"level": "rack"}"#, 400, "invalid"),
        ("PATCH /api/v1/settings", r#"{"osd_out_s": 0}"#, 400, "invalid"),
        ("GET /api/v1/pgs?pol=x", "", 400, "invalid"),
        ("GET /api/v1/pgs?osd=x", "", 400, "invalid"),
        ("GET /api/v1/nothing", "", 404, "not_found"),
        ("GET /", "", 404, "not_found"),
        ("DELETE /api/v1/status", "", 405, "method"),
        ("GET /api/v1/scrub", "", 405, "method"),
    ];
    for (line, body, status, kind) in table {
        let (given, answer) = server.json(line, body);
        assert_eq!(given, status, "{line}: {answer}");
        assert_eq!(answer["error"]["kind"], kind, "{line}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn a_wrong_route_or_method_is_told_before_a_wrong_body() {
    let server = start(obliging);
    let long = format!("POST /api/v1/images/{}", "x".repeat(5_000));
    let table = [
        ("POST /api/v1/nothing", 404, "not_found"),
        ("PUT /api/v1/images", 405, "method"),
        ("POST /api/v1/images/a", 405, "method"),
        ("PATCH /api/v1/osds/1/stop", 405, "method"),
        ("POST /metrics", 405, "method"),
        (long.as_str(), 414, "too_long"),
        ("POST /api/v1/images", 415, "media_type"),
        ("PUT /api/v1/tree/r1", 415, "media_type"),
    ];
    for (line, status, kind) in table {
        // As `curl -d` sends it.
        let headers = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let (given, body) = server.send(line, headers, "size=512");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((given, &answer["error"]["kind"]), (status, &json!(kind)), "{line}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(
            status == 415,
            message.contains("Content-Type: application/json"),
            "{message}"
        );
    }
}

#[test]
fn names_are_given_without_control_characters() {
    let server = start(obliging);
    let table = [
        ("POST /api/v1/images", r#"{"path": "a\u001bb", "size": 512}"#, 400),
        ("POST /api/v1/images", r#"{"path": "a\nb/c", "size": 512}"#, 400),
        ("PATCH /api/v1/images/a", r#"{"path": "a\u007fb"}"#, 400),
        // What has such a name can be shown, renamed and removed.
        ("GET /api/v1/images/a%0Ab", "", 200),
        ("PATCH /api/v1/images/a%0Ab", r#"{"path": "ab"}"#, 200),
        ("DELETE /api/v1/images/a%0Ab", "", 200),
    ];
    for (line, body, status) in table {
        let (given, answer) = server.json(line, body);
        assert_eq!(given, status, "{line} {body}: {answer}");
    }
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let server = start(obliging);
    let scrape = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{accept}\r\n");
        server.whole(request.as_bytes())
    };
    let (head, text) = scrape("");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(
        text.contains("\n# TYPE trivet_log_lines_lost_total counter\n"),
        "{text}"
    );
    assert!(!text.contains("# EOF"), "{text}");
    let (head, text) = scrape("Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.contains("\n# TYPE trivet_log_lines_lost counter\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn strangers_are_kept_out() {
    let server = start(obliging);
    let json = "Content-Type: application/json\r\n";
    let stop = "POST /api/v1/osds/1/stop";
    let table = [
        ("GET /api/v1/status", "Host: 127.0.0.1:8090\r\n", 200),
        ("GET /api/v1/status", "Host: rebound.example.org:8090\r\n", 403),
        ("GET /healthz", "Host: rebound.example.org\r\n", 403),
        ("GET /api/v1/status", "Host: localhost\r\nHost: example.org\r\n", 403),
        (
            stop,
            "Host: localhost\r\nContent-Type: Application/JSON; charset=utf-8\r\n",
            200,
        ),
        (stop, "Host: localhost\r\nContent-Type: text/plain\r\n", 415),
        (stop, "Host: localhost\r\n", 415),
    ];
    for (line, headers, status) in table {
        assert_eq!(server.send(line, headers, "").0, status, "{line} {headers}");
    }
    assert_eq!(server.send("GET /", json, "").0, 403, "no Host");
}

#[test]
fn health_and_metrics() {
    let server = start(obliging);
    let host = "Host: localhost\r\n";
    for probe in ["GET /healthz", "GET /readyz"] {
        assert_eq!(server.send(probe, host, ""), (200, "ok".to_owned()));
    }
    let (status, text) = server.send("GET /metrics", host, "");
    assert_eq!(status, 200);
    for line in [
        "trivet_up 1",
        "trivet_opens 1",
        "trivet_metadata_age_seconds 1.5",
        "trivet_log_lines_lost_total 3",
        "trivet_buffers_bytes{kind=\"used\"} 0",
        "trivet_images 2",
        "trivet_pool_images{pool=\"fast\"} 3",
    ] {
        assert!(text.lines().any(|given| given == line), "{line} not in\n{text}");
    }
}

#[test]
fn probes_are_about_the_gateway_and_tell_the_reasons() {
    for (serves, opens) in [(false, false), (true, false), (true, true)] {
        let server = start(move |_| {
            let status = Status {
                health: Health::Error,
                reasons: vec!["2 PGs are not active".to_owned()],
                gateway: GatewayStatus {
                    serves,
                    opens,
                    ..GatewayStatus::default()
                },
                ..Status::default()
            };
            Ok(AdminAnswer::Status(Box::new(status)))
        });
        for (probe, good) in [("GET /healthz", serves), ("GET /readyz", opens)] {
            let answer = server.send(probe, "Host: localhost\r\n", "");
            let wanted = if good {
                (200, "ok")
            } else {
                (503, "2 PGs are not active")
            };
            assert_eq!(answer, (wanted.0, wanted.1.to_owned()), "{probe} {serves} {opens}");
        }
    }
}

#[test]
fn a_stalled_data_path_is_not_healthy_but_counted() {
    let (engine, _receiver) = channel(|| {});
    let server = start_with(engine, obliging);
    let begun = Instant::now();
    let (status, text) = server.send("GET /healthz", "Host: localhost\r\n", "");
    assert_eq!(status, 503, "{text}");
    let (status, text) = server.send("GET /metrics", "Host: localhost\r\n", "");
    assert_eq!(status, 200);
    assert!(text.contains("\ntrivet_up 0\n"), "{text}");
    assert!(text.contains("trivet_pool_images{pool=\"fast\"} 3"), "{text}");
    // What is not about the data path is shown without it.
    assert_eq!(server.json("GET /api/v1/images", "").0, 200);
    assert_eq!(server.json("GET /api/v1/pools", "").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(server.json("GET /api/v1/status", "").0, 504);
}

#[test]
fn stopping_does_not_wait_for_a_silent_client() {
    let server = start(obliging);
    let mut silent = TcpStream::connect(server.address).unwrap();
    silent.write_all(b"GET /api/v1/sta").unwrap();
    let (status, _) = server.send("GET /healthz", "Host: localhost\r\n", "");
    assert_eq!(status, 200);
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    server.runtime.block_on(server.served).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn garbage_is_refused() {
    let server = start(obliging);
    assert_eq!(server.raw(b"\x16\x03\x01 not http\r\n\r\n").0, 400);
    assert_eq!(server.send("GET /healthz", "Host: localhost\r\n", "").0, 200);
}
