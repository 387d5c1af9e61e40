//! Messages for the tests: a table with every kind, and a generator of any number of them.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{
    ClientId, Epoch, ImageId, OBJECT_SIZE, ObjectId, OpId, OsdId, PgId, PoolId, UNIT_SIZE, UnitMask, Version,
};
use crate::mark::Mark;
use crate::message::{Action, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, Promise, WriteError};
use crate::mutation::{MARK, MAX_OPS, Mutation, Ops, Patch};
use crate::time::{Now, Tick};

const PG: PgId = PgId {
    pool: PoolId(3),
    generation: 0x0102,
    number: 0x0304,
};

const OP: OpId = OpId {
    client: ClientId(0x1112_1314_1516_1718),
    sequence: 0x2122,
};

const STAMP: Tick = Tick(0xd1d2_d3d4_d5d6_d7d8);

const VERSION: Version = Version {
    epoch: Epoch(0x31),
    counter: 0x4142,
};

fn object() -> ObjectId {
    ObjectId {
        image: ImageId::new(PoolId(3), 0x51),
        number: 0x6162,
    }
}

fn op(action: Action) -> Message {
    Message::Op(Op {
        id: OP,
        pg: PG,
        epoch: Epoch(0x32),
        settled: 0x2019,
        answered: 0x2021,
        previous: 0x2022,
        stamp: STAMP,
        action,
    })
}

fn done(result: Result<OpValue, OpError>) -> Message {
    Message::OpDone(OpDone {
        id: OP,
        result,
        tick: STAMP,
    })
}

fn peer(body: PeerBody) -> Message {
    Message::Peer(Peer {
        pg: PG,
        epoch: Epoch(0x32),
        body,
    })
}

fn mutation(patches: Vec<Patch>) -> Mutation {
    Mutation {
        version: VERSION,
        ops: Ops::Add {
            op: OP,
            answered: 0x2021,
        },
        zero: UnitMask(0xf000_0001),
        patches,
        tombstone: false,
    }
}

fn whole(patches: Vec<Patch>, ops: usize) -> Mutation {
    Mutation {
        ops: Ops::Exactly(vec![OP; ops]),
        zero: UnitMask::ALL,
        ..mutation(patches)
    }
}

fn tombstone() -> Mutation {
    Mutation {
        zero: UnitMask::ALL,
        tombstone: true,
        ..mutation(Vec::new())
    }
}

fn patch(first: usize, units: usize) -> Patch {
    Patch::seal(object(), first, Bytes::from(vec![0xa5; units * UNIT_SIZE]))
}

fn listed(number: u64, tombstone: bool) -> Listed {
    Listed {
        object: ObjectId { number, ..object() },
        version: VERSION,
        tombstone,
    }
}

fn client_operations() -> Vec<(&'static str, Message)> {
    let object = object();
    let read = Action::Read {
        object,
        offset: 512,
        len: 1024,
    };
    let write = Action::Write {
        object,
        offset: OBJECT_SIZE - 5,
        data: vec![Bytes::from_static(b"hello")],
    };
    let zero = Action::Zero {
        object,
        offset: 0,
        len: OBJECT_SIZE,
    };
    let list = |from, end| Action::List {
        image: object.image,
        from,
        end,
    };
    vec![
        ("read", op(read)),
        ("write", op(write)),
        ("zero", op(zero)),
        ("remove", op(Action::Remove { object })),
        ("list", op(list(0, u64::MAX))),
        ("list from", op(list(9, 0x1234))),
        ("barrier", op(Action::Barrier { revision: 0x2324 })),
        ("tick request", Message::TickRequest { sent: Now(0x5253) }),
    ]
}

fn answers() -> Vec<(&'static str, Message)> {
    let data = OpValue::Data(vec![Bytes::from_static(b"world")]);
    vec![
        ("changed", done(Ok(OpValue::Changed))),
        ("data", done(Ok(data))),
        ("objects", done(Ok(OpValue::Objects(vec![1, 5])))),
        ("no objects", done(Ok(OpValue::Objects(vec![])))),
        ("passed", done(Ok(OpValue::Passed))),
        ("not primary", done(Err(OpError::NotPrimary))),
        ("no space", done(Err(OpError::NoSpace))),
        ("damaged", done(Err(OpError::Damaged))),
        ("malformed", done(Err(OpError::Malformed))),
        ("other epoch", done(Err(OpError::OtherEpoch(Epoch(0x33))))),
        ("unregistered", done(Err(OpError::Unregistered))),
        ("outdated", done(Err(OpError::Outdated))),
        ("overtaken", done(Err(OpError::Overtaken))),
        (
            "tick",
            Message::Tick {
                sent: Now(0x5253),
                tick: STAMP,
                mark: Some(Mark {
                    count: 0x5455,
                    draw: 0x5657,
                }),
            },
        ),
        (
            "tick, no mark",
            Message::Tick {
                sent: Now(0x5253),
                tick: STAMP,
                mark: None,
            },
        ),
    ]
}

fn listings() -> Vec<(&'static str, PeerBody)> {
    let listing = |part, parts, promise, objects| PeerBody::Listing {
        part,
        parts,
        promise,
        objects,
    };
    let promise = |to, millis| {
        let left = Duration::from_millis(millis);
        Some(Promise { to, left })
    };
    let objects = vec![listed(1, false), listed(2, true)];
    vec![
        ("listing", listing(0, 1, None, objects)),
        (
            "listing, empty part",
            listing(0x8182, 0x9192, promise(None, 600), vec![]),
        ),
        (
            "listing, promise",
            listing(2, 3, promise(Some(OsdId(0x11)), 0x259), vec![]),
        ),
    ]
}

fn writes() -> Vec<(&'static str, PeerBody)> {
    let object = object();
    let write = |after, mutation| PeerBody::Write {
        object,
        after,
        mutation,
    };
    let push = |mutation| PeerBody::Push { object, mutation };
    let two = vec![patch(4, 2), patch(3, 1)];
    let after = Version {
        epoch: Epoch(0x30),
        counter: 0x4041,
    };
    vec![
        ("member write", write(Version::NONE, mutation(vec![patch(1, 1)]))),
        ("member write, two patches", write(after, mutation(two))),
        ("member write, zero", write(after, mutation(vec![]))),
        ("member write, tombstone", write(after, tombstone())),
        ("push", push(whole(vec![patch(1, 1)], 2))),
        ("push, nothing", push(whole(vec![], 0))),
        ("push, tombstone", push(tombstone())),
    ]
}

fn ends_of_writes() -> Vec<(&'static str, PeerBody)> {
    let written = |result| PeerBody::Written {
        object: object(),
        version: VERSION,
        result,
    };
    vec![
        ("written", written(Ok(()))),
        ("written, no space", written(Err(WriteError::NoSpace))),
        ("written, stale", written(Err(WriteError::Stale))),
        ("written, failed", written(Err(WriteError::Failed))),
        ("written, behind", written(Err(WriteError::Behind))),
    ]
}

fn about_objects() -> Vec<(&'static str, PeerBody)> {
    let object = object();
    let fetched = |whole, damaged| PeerBody::Fetched { object, whole, damaged };
    let scrubbed = |version, digest, damaged| PeerBody::Scrubbed {
        object,
        version,
        digest,
        damaged,
    };
    let forget = PeerBody::Forget {
        object,
        version: VERSION,
    };
    let forgotten = PeerBody::Forgotten {
        object,
        version: VERSION,
    };
    let damaged = UnitMask(0x7172_7374);
    vec![
        ("fetch", PeerBody::Fetch { object }),
        ("fetched", fetched(Some(whole(vec![patch(31, 1)], 1)), damaged)),
        ("fetched, none", fetched(None, UnitMask::EMPTY)),
        ("fetched, tombstone", fetched(Some(tombstone()), UnitMask::EMPTY)),
        ("scrub", PeerBody::Scrub { object }),
        ("scrubbed", scrubbed(VERSION, 0xa1a2_a3a4_a5a6_a7a8, damaged)),
        ("scrubbed, none", scrubbed(Version::NONE, 0, UnitMask::EMPTY)),
        ("forget", forget),
        ("forgotten", forgotten),
    ]
}

fn between_members() -> Vec<(&'static str, Message)> {
    let mut bodies = vec![
        ("fence", PeerBody::Fence),
        ("refused", PeerBody::Refused { accepted: Epoch(0x33) }),
        ("stray", PeerBody::Stray),
        ("drop", PeerBody::Drop),
    ];
    bodies.extend(listings());
    bodies.extend(writes());
    bodies.extend(ends_of_writes());
    bodies.extend(about_objects());
    bodies.into_iter().map(|(name, body)| (name, peer(body))).collect()
}

fn pings() -> Vec<(&'static str, Message)> {
    let sent = Now(0xb1b2_b3b4_b5b6_b7b8);
    let free = 0xc1c2_c3c4_c5c6_c7c8;
    let other = PgId::first(PoolId(3), 6);
    let pgs = vec![(PG, Epoch(0x32)), (other, Epoch(1))];
    let refused = vec![(PG, Epoch(0x33))];
    vec![
        ("ping", Message::Ping { sent, pgs }),
        ("pong", Message::Pong { sent, free, refused }),
        (
            "pong, none",
            Message::Pong {
                sent,
                free: 0,
                refused: vec![],
            },
        ),
    ]
}

/// A table of messages with their names: every kind, and every tag within a kind.
pub(super) fn samples() -> Vec<(&'static str, Message)> {
    let mut all = client_operations();
    all.extend(answers());
    all.extend(between_members());
    all.extend(pings());
    all
}

/// SplitMix64: the same numbers for the same seed, on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        let fill = self.next().to_le_bytes();
        Bytes::from_iter((0..len).map(|i| fill[i % 8].wrapping_add(fill[i / 8 % 8])))
    }

    fn op_id(&mut self) -> OpId {
        OpId {
            client: ClientId(self.next()),
            sequence: self.next() & !MARK,
        }
    }

    fn object(&mut self) -> ObjectId {
        ObjectId {
            image: ImageId::new(PG.pool, self.next() >> 16),
            number: self.next(),
        }
    }

    fn version(&mut self) -> Version {
        Version {
            epoch: Epoch(self.next()),
            counter: self.next().max(1),
        }
    }

    /// A range within an object, not empty.
    fn range(&mut self) -> (usize, usize) {
        let offset = self.below(OBJECT_SIZE);
        (offset, 1 + self.below(OBJECT_SIZE - offset))
    }

    fn mutation(&mut self, object: ObjectId) -> Mutation {
        let mask = UnitMask(self.word() & 0x0f0f_1111);
        let patches = mask
            .runs()
            .map(|(first, units)| Patch::seal(object, first, self.bytes(units * UNIT_SIZE)))
            .collect();
        let zero = UnitMask(self.word());
        let ops = self.ops();
        Mutation {
            version: self.version(),
            ops,
            zero,
            patches,
            tombstone: false,
        }
    }

    fn ops(&mut self) -> Ops {
        if self.next().is_multiple_of(2) {
            return Ops::Add {
                op: self.op_id(),
                answered: self.next(),
            };
        }
        Ops::Exactly((0..self.below(MAX_OPS + 1)).map(|_| self.op_id()).collect())
    }

    fn listed(&mut self, object: ObjectId) -> Listed {
        Listed {
            object,
            version: self.version(),
            tombstone: self.next().is_multiple_of(4),
        }
    }

    fn listing(&mut self) -> PeerBody {
        let mut places: Vec<_> = (0..self.below(50)).map(|_| self.object()).collect();
        places.sort_unstable();
        let part = self.word() >> 1;
        let promise = Promise {
            to: self.next().is_multiple_of(2).then(|| OsdId(self.word())),
            left: Duration::from_millis(u64::from(self.word())),
        };
        PeerBody::Listing {
            part,
            parts: part + 1 + (self.word() >> 1),
            promise: self.next().is_multiple_of(2).then_some(promise),
            objects: places.into_iter().map(|o| self.listed(o)).collect(),
        }
    }

    fn ping(&mut self) -> Message {
        let sent = Now(self.next());
        let pgs = (0..self.below(50)).map(|_| (PG, Epoch(self.next()))).collect();
        Message::Ping { sent, pgs }
    }

    /// A message with fields of any value that they can have.
    pub(super) fn message(&mut self) -> Message {
        let object = self.object();
        let (offset, len) = self.range();
        let action = match self.below(9) {
            0 => Action::Read { object, offset, len },
            1 => Action::Write {
                object,
                offset,
                data: vec![self.bytes(len)],
            },
            2 => Action::Zero { object, offset, len },
            3 => Action::List {
                image: object.image,
                from: 0,
                end: self.next().max(1),
            },
            _ => return self.answer(object, len),
        };
        Message::Op(Op {
            id: self.op_id(),
            pg: PG,
            epoch: Epoch(self.next()),
            settled: self.next() & !MARK,
            answered: self.next() & !MARK,
            previous: self.next() & !MARK,
            stamp: Tick(self.next()),
            action,
        })
    }

    fn answer(&mut self, object: ObjectId, len: usize) -> Message {
        let body = match self.below(7) {
            0 => self.listing(),
            1 => PeerBody::Write {
                object,
                after: self.version(),
                mutation: self.mutation(object),
            },
            2 => PeerBody::Push {
                object,
                mutation: Mutation {
                    zero: UnitMask::ALL,
                    ..self.mutation(object)
                },
            },
            3 => PeerBody::Fetched {
                object,
                whole: None,
                damaged: UnitMask(self.word()),
            },
            4 => PeerBody::Scrubbed {
                object,
                version: self.version(),
                digest: self.next(),
                damaged: UnitMask(self.word()),
            },
            5 => return self.ping(),
            _ => return done(Ok(OpValue::Data(vec![self.bytes(len)]))),
        };
        Message::Peer(Peer {
            pg: PG,
            epoch: Epoch(self.next()),
            body,
        })
    }
}
