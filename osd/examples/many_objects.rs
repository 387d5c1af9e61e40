//! What an OSD with very many objects costs whom: the processor's time of a listing, of an activation, of the start of a
//! scrub, and of taking over all of its PGs at once. The disk is simulated, takes no time, and keeps only pages that are not
//! zero.
//!
//! `cargo run --release -p trivet-osd --example many_objects [OBJECTS] [PGS]`

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use trivet_core::disk::{DiskDone, DiskOp, DiskOpKind};
use trivet_core::keys::{self, OsdConfig, PgPlan, Plan, Pool, ScrubRequest};
use trivet_core::kv::{Change, Event as Kv, KeyValue, LeaseId, Notice, TxnOutcome};
use trivet_core::map::encode;
use trivet_core::message::{Message, Peer, PeerBody};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::{Epoch, ImageId, NodeId, Now, ObjectId, OsdId, PgId, PoolId, UNIT_SIZE, UnitMask, Version};
use trivet_osd::{Effect, Event, Identity, Osd};
use trivet_store::api::{Output, Request, Ticket};
use trivet_store::{Format, Options, State, Store, format};

const ME: OsdId = OsdId(1);
const OTHER: OsdId = OsdId(2);
const POOL: PoolId = PoolId(1);
const CLUSTER: [u8; 16] = [9; 16];

/// A disk of pages that are zero unless written.
#[derive(Default)]
struct Disk(HashMap<u64, Bytes>);

impl Disk {
    fn run(&mut self, op: DiskOp) -> DiskDone {
        let result = match op.kind {
            DiskOpKind::Flush => Bytes::new(),
            DiskOpKind::Write { offset, data } => {
                for (page, data) in (offset / 4096..).zip(data.chunks(4096)) {
                    if data.iter().all(|byte| *byte == 0) {
                        self.0.remove(&page);
                    } else {
                        self.0.insert(page, Bytes::copy_from_slice(data));
                    }
                }
                Bytes::new()
            }
            DiskOpKind::Read { offset, len } => {
                let mut data = vec![0; len];
                for (page, data) in (offset / 4096..).zip(data.chunks_mut(4096)) {
                    if let Some(written) = self.0.get(&page) {
                        data.copy_from_slice(written);
                    }
                }
                Bytes::from(data)
            }
        };
        DiskDone {
            id: op.id,
            result: Ok(result),
        }
    }
}

/// An open store with so many objects of one unit, written in one epoch.
fn filled(objects: u64, disk: &mut Disk) -> (u64, Store) {
    let size = (objects + objects / 4) * (128 << 10) + (4 << 30);
    let parameters = Format {
        cluster: CLUSTER,
        osd: ME,
        store: [3; 16],
        size,
        log_size: Some(1 << 30),
    };
    for op in format(&parameters).expect("a size that fits") {
        disk.run(op);
    }
    let mut output = Output::default();
    let mut store = Store::open(size, Options::default(), &mut output);
    let mut drive = |store: &mut Store, output: &mut Output| loop {
        store.pump(output);
        output.done.clear();
        output.changed.clear();
        let Some(op) = (!output.disk.is_empty()).then(|| output.disk.remove(0)) else {
            return;
        };
        store.completed(disk.run(op), output);
    };
    drive(&mut store, &mut output);
    assert_eq!(store.state(), State::Ready);
    let unit = Bytes::from(vec![0; UNIT_SIZE]);
    for number in 0..objects {
        let object = object(number);
        let mutation = Mutation {
            version: Version {
                epoch: Epoch(1),
                counter: 1,
            },
            ops: Ops::Exactly(Vec::new()),
            zero: UnitMask::ALL,
            patches: vec![Patch::seal(object, 0, unit.clone())],
            tombstone: false,
        };
        store.submit(Ticket(number), Request::Write { object, mutation }, &mut output);
        if number % 64 == 63 {
            drive(&mut store, &mut output);
        }
    }
    drive(&mut store, &mut output);
    (size, store)
}

fn object(number: u64) -> ObjectId {
    ObjectId {
        image: ImageId::new(POOL, 1 + number % 50),
        number,
    }
}

/// The OSD with its disk and a metadata store that agrees to everything.
struct World {
    osd: Osd,
    disk: Disk,
    kv: BTreeMap<String, KeyValue>,
    revision: u64,
    now: Now,
    /// Messages to others, and to itself.
    sent: Vec<(NodeId, Message)>,
    /// The longest step.
    longest: Duration,
}

impl World {
    /// A store with so many objects of one unit, in a pool of so many PGs, which another OSD leads.
    fn new(objects: u64, pgs: u32) -> World {
        let mut disk = Disk::default();
        let before = resident();
        let (size, store) = filled(objects, &mut disk);
        let each = |bytes: u64| bytes / objects;
        println!(
            "{objects} objects in {pgs} PGs; {} bytes of memory for each, {} of them the simulated disk's pages",
            each(resident() - before),
            each(disk.0.len() as u64 * 4096),
        );
        let identity = Identity {
            id: ME,
            boot: 1,
            size,
            address: None,
        };
        let mut world = World {
            osd: Osd::new(identity, trivet_osd::Options::default(), store, Output::default()),
            disk,
            kv: BTreeMap::new(),
            revision: 0,
            now: Now(1_000_000_000),
            sent: Vec::new(),
            longest: Duration::ZERO,
        };
        let pool = Pool {
            replicas: 1,
            min_size: 1,
            pg_count: pgs,
            ..Pool::default()
        };
        world.commit(vec![
            Change::put(keys::pool(POOL), encode(&pool)),
            Change::put(keys::osd_config(ME), encode(&OsdConfig::default())),
            Change::put(keys::plan(POOL), led_by(OTHER, pgs)),
        ]);
        world
    }

    /// One step, and all that follows from it at once.
    fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut out = Vec::new();
            let began = Instant::now();
            self.osd.step(self.now, event, &mut out);
            self.osd.flush(&mut out);
            self.longest = self.longest.max(began.elapsed());
            for effect in out {
                match effect {
                    Effect::Send(NodeId::Osd(ME), message) => events.push(Event::Message(NodeId::Osd(ME), message)),
                    Effect::Send(to, message) => self.sent.push((to, message)),
                    Effect::Disk(op) => events.push(Event::Disk(self.disk.run(op))),
                    Effect::Txn(ticket, txn) => {
                        let notice = self.commit(txn.changes);
                        events.push(Event::Notice(notice));
                        events.push(Event::Txn(ticket, TxnOutcome::Committed(self.revision)));
                    }
                }
            }
        }
    }

    fn commit(&mut self, changes: Vec<Change>) -> Notice {
        self.revision += 1;
        let revision = self.revision;
        let events = changes.into_iter().map(|change| match change {
            Change::Put { key, value, .. } => {
                let pair = KeyValue {
                    key: key.clone(),
                    value,
                    mod_revision: revision,
                };
                self.kv.insert(key, pair.clone());
                Kv::Put(pair)
            }
            Change::Delete(key) => {
                self.kv.remove(&key);
                Kv::Delete { key, revision }
            }
        });
        Notice::Changes {
            revision,
            events: events.collect(),
        }
    }

    fn put(&mut self, key: impl Into<String>, value: Bytes) {
        let notice = self.commit(vec![Change::put(key, value)]);
        self.step(Event::Notice(notice));
    }

    /// What a part of the work took, and its longest step.
    fn measure(&mut self, what: &str, work: impl FnOnce(&mut World)) {
        self.longest = Duration::ZERO;
        let began = Instant::now();
        work(self);
        println!("{what}: {:.2?}, longest step {:.2?}", began.elapsed(), self.longest);
    }

    /// How many objects were listed.
    fn listed(&mut self) -> usize {
        let listed = self.sent.drain(..).map(|(_, message)| match message {
            Message::Peer(Peer {
                body: PeerBody::Listing { objects, .. },
                ..
            }) => objects.len(),
            _ => 0,
        });
        listed.sum()
    }

    fn active(&self) -> usize {
        self.osd.status().pgs.iter().filter(|pg| pg.active).count()
    }
}

/// A plan in which this OSD has all PGs, and `primary` leads them.
fn led_by(primary: OsdId, pgs: u32) -> Bytes {
    let plan = PgPlan {
        osds: vec![ME],
        primary: Some(primary),
    };
    encode(&Plan {
        generation: 0,
        pgs: vec![plan; pgs as usize],
    })
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut argument = |default| arguments.next().map_or(default, |n| n.expect("a number"));
    let objects = argument(2_000_000);
    let pgs = u32::try_from(argument(64)).expect("a number of PGs");
    let mut world = World::new(objects, pgs);
    let snapshot = Notice::Snapshot {
        revision: world.revision,
        keys: world.kv.values().cloned().collect(),
    };
    world.measure("load", |world| {
        world.step(Event::Notice(snapshot));
        world.step(Event::Lease(Some(LeaseId(1))));
    });
    let fence = Peer {
        pg: PgId::first(POOL, 3 % pgs),
        epoch: Epoch(5),
        body: PeerBody::Fence,
    };
    world.measure("listing of a PG", |world| {
        world.step(Event::Message(NodeId::Osd(OTHER), Message::Peer(fence)));
    });
    println!("  ({} objects)", world.listed());
    world.measure("take over all PGs", |world| {
        let plan = led_by(ME, pgs);
        world.put(keys::plan(POOL), plan);
        while world.active() < pgs as usize {
            world.now = Now(world.now.0 + 100_000_000);
            world.step(Event::Tick);
        }
    });
    world.measure("a tick", |world| world.step(Event::Tick));
    world.measure("start of a scrub", |world| {
        let request = ScrubRequest { number: 1, at: 0 };
        world.put(keys::SCRUB, encode(&request));
        world.step(Event::Tick);
    });
}
