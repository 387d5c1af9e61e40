//! One key of each kind that the metadata store can have, with a value in which nothing is absent.
//!
//! The values name every field, so that one which is added does not compile here before it is written down.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use trivet_core::keys::{self, *};
use trivet_core::mark::{Halted, Mark, Marks};
use trivet_core::usage::{self, ImageUsage, ImagesUsage, OpCount, Ops, PoolUsage, PoolsUsage};
use trivet_core::witness::{self, Head, OfImages, OfPool};
use trivet_core::{ClientId, Epoch, ImageId, OsdId, PgId, PoolId};

/// A key, and what there is to say of it.
pub struct Specimen {
    /// The function or constant of `trivet_core` that makes it, as "module::name"; none if it is made elsewhere.
    pub from: Option<&'static str>,
    /// The key.
    pub key: String,
    /// Its value; null if it is not JSON with fields.
    pub value: Value,
}

const OSD: OsdId = OsdId(7);
const POOL: PoolId = PoolId(3);
const PG: PgId = PgId {
    pool: POOL,
    generation: 2,
    number: 5,
};
const MARK_MADE: Mark = Mark { count: 1, draw: 2 };

/// All of them.
pub fn specimens() -> Vec<Specimen> {
    let names = trivet_namespace::specimens();
    let names = names
        .into_iter()
        .map(|(key, value)| Specimen { from: None, key, value });
    let all = [cluster(), osds(), nodes(), placement(), pgs(), reports()];
    all.into_iter().flatten().chain(names).collect()
}

fn of(from: &'static str, key: impl Into<String>, value: &impl Serialize) -> Specimen {
    Specimen {
        from: Some(from),
        key: key.into(),
        value: serde_json::to_value(value).expect("plain structs"),
    }
}

fn cluster() -> Vec<Specimen> {
    let cluster = Cluster {
        id: String::new(),
        secret: String::new(),
    };
    let settings = Settings {
        osd_out_s: 1,
        backfill_full_pct: 2,
        no_recovery: true,
    };
    let halted = Halted {
        reason: String::new(),
        by: OSD,
    };
    vec![
        of("keys::CLUSTER", CLUSTER, &cluster),
        of("keys::SETTINGS", SETTINGS, &settings),
        of("keys::MARK", MARK, &Marks::first(MARK_MADE)),
        of("keys::HALTED", HALTED, &halted),
        of("keys::NEXT_POOL", NEXT_POOL, &()),
        of("keys::NEXT_IMAGE", NEXT_IMAGE, &()),
        of("keys::SCRUB", SCRUB, &ScrubRequest { number: 1, at: 2 }),
    ]
}

fn osds() -> Vec<Specimen> {
    let config = OsdConfig {
        size: 1,
        host: Some("h".into()),
        store: Some("s".into()),
        tags: vec!["t".into()],
        reweight: 1,
        noout: true,
        out: true,
        dropped: true,
    };
    let state = OsdState {
        boot: 1,
        size: 2,
        address: Some("a".into()),
    };
    let stats = OsdStats {
        path: "p".into(),
        capacity: 1,
        used: 2,
        objects: 3,
    };
    vec![
        of("keys::osd_config", keys::osd_config(OSD), &config),
        of("keys::osd_state", keys::osd_state(OSD), &state),
        of("keys::osd_stats", keys::osd_stats(OSD), &stats),
    ]
}

fn nodes() -> Vec<Specimen> {
    let id = ClientId(0x1112_1314_1516_1718);
    let gateway = GatewayState {
        name: "n".into(),
        http: Some("a".into()),
    };
    let monitor = MonitorState { host: "h".into() };
    vec![
        of("keys::gateway_state", keys::gateway_state(id), &gateway),
        of("keys::gateway_beat", keys::gateway_beat(id), &()),
        of("keys::client", keys::client(id), &ClientState {}),
        of("keys::monitor_state", keys::monitor_state(1), &monitor),
        of("keys::LEADER", LEADER, &Leader { id: 1 }),
    ]
}

fn placement() -> Vec<Specimen> {
    let pool = Pool {
        name: "p".into(),
        replicas: 2,
        min_size: 1,
        pg_count: 64,
        generation: 1,
        pgs_before: Some(32),
        pgs_wanted: Some(128),
        failure_domain: "host".into(),
        root: Some("r".into()),
        osd_tags: vec!["t".into()],
        primary_tags: vec!["t".into()],
    };
    let place = TreeNode {
        level: "rack".into(),
        parent: Some("row".into()),
    };
    let pgs = vec![PgPlan {
        osds: vec![OSD],
        primary: Some(OSD),
    }];
    // Gateways alone know this one: `gateway/src/cluster/marks.rs`.
    let removing = Specimen {
        from: None,
        key: format!("{}/removing", keys::pool(POOL)),
        value: Value::Null,
    };
    vec![
        of("keys::pool", keys::pool(POOL), &pool),
        removing,
        of("keys::tree", keys::tree("r1"), &place),
        of("keys::plan", keys::plan(POOL), &Plan { generation: 1, pgs }),
    ]
}

fn pgs() -> Vec<Specimen> {
    let acting = vec![OSD];
    let claim = Claim {
        primary: OSD,
        epoch: Epoch(1),
        acting: acting.clone(),
        active: true,
        missing: 1,
    };
    let interval = Interval {
        epoch: Epoch(1),
        acting,
        active: true,
        of: Some(Earlier { count: 1, number: 0 }),
    };
    let history = History {
        epoch: Epoch(1),
        intervals: vec![interval],
    };
    let report = ScrubReport {
        number: 1,
        objects: 2,
        repaired: 3,
        inconsistent: 4,
        lost: 5,
    };
    vec![
        of("keys::claim", keys::claim(PG), &claim),
        of("keys::history", keys::history(PG), &history),
        of("keys::scrub", keys::scrub(PG), &report),
    ]
}

fn reports() -> Vec<Specimen> {
    let used = PoolUsage {
        used: 1,
        objects: 2,
        copies: 3,
    };
    let count = OpCount {
        count: 1,
        bytes: 2,
        micros: 3,
    };
    let image = ImageUsage {
        used: 1,
        objects: 2,
        ops: Ops {
            read: count,
            write: count,
            zero: count,
        },
    };
    let pools = PoolsUsage {
        pools: BTreeMap::from([(POOL, used)]),
    };
    let images = ImagesUsage {
        boot: 1,
        images: BTreeMap::from([(ImageId(1), image)]),
    };
    let mut all = witnesses();
    all.push(of("usage::pools", usage::pools(OSD), &pools));
    all.push(of("usage::images", usage::images(OSD, 4), &images));
    all
}

fn witnesses() -> Vec<Specimen> {
    let head = Head {
        boot: 1,
        size: 2,
        mark: Some(MARK_MADE),
        next_image: 3,
        next_pool: 4,
        pools: vec![POOL],
        parts: 1,
    };
    let pool = OfPool {
        boot: 1,
        epoch: Epoch(2),
        generation: 3,
        count: 4,
        pgs: "0f".into(),
    };
    let images = OfImages {
        boot: 1,
        images: BTreeMap::from([("1".into(), 2)]),
    };
    vec![
        of("witness::head", witness::head(OSD), &head),
        of("witness::pool", witness::pool(OSD, POOL), &pool),
        of("witness::images", witness::images(OSD, 4), &images),
    ]
}
