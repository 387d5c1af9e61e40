//! Messages for the tests: a table with every kind, and a generator of any number of them.

use bytes::Bytes;

use crate::ids::{ClientId, Epoch, ImageId, OBJECT_SIZE, ObjectId, OpId, PgId, PoolId, UNIT_SIZE, UnitMask, Version};
use crate::message::{Action, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, WriteError};
use crate::mutation::{Mutation, Patch};

const PG: PgId = PgId {
    pool: PoolId(3),
    number: 0x0102_0304,
};

const OP: OpId = OpId {
    client: ClientId(0x1112_1314_1516_1718),
    sequence: 0x2122,
};

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
    Message::Op(Op { id: OP, pg: PG, action })
}

fn done(result: Result<OpValue, OpError>) -> Message {
    Message::OpDone(OpDone { id: OP, result })
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
        op: OP,
        zero: UnitMask(0xf000_0001),
        patches,
        tombstone: false,
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
        op: OP,
        present: UnitMask(if tombstone { 0 } else { 0x7172_7374 }),
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
    let list = |after| Action::List {
        image: object.image,
        after,
    };
    vec![
        ("read", op(read)),
        ("write", op(write)),
        ("zero", op(zero)),
        ("remove", op(Action::Remove { object })),
        ("list", op(list(None))),
        ("list after", op(list(Some(9)))),
    ]
}

fn answers() -> Vec<(&'static str, Message)> {
    let data = OpValue::Data(vec![Bytes::from_static(b"world")]);
    vec![
        ("changed", done(Ok(OpValue::Changed))),
        ("data", done(Ok(data))),
        ("objects", done(Ok(OpValue::Objects(vec![1, 5])))),
        ("no objects", done(Ok(OpValue::Objects(vec![])))),
        ("not primary", done(Err(OpError::NotPrimary))),
        ("no space", done(Err(OpError::NoSpace))),
        ("damaged", done(Err(OpError::Damaged))),
        ("malformed", done(Err(OpError::Malformed))),
    ]
}

fn between_members() -> Vec<(&'static str, Message)> {
    let object = object();
    let listing = |objects, recent, last| PeerBody::Listing { objects, recent, last };
    let write = |mutation| PeerBody::Write { object, mutation };
    let written = |result| PeerBody::Written {
        object,
        version: VERSION,
        result,
    };
    let whole = mutation(vec![patch(31, 1)]);
    let objects = vec![listed(1, false), listed(2, true)];
    let fetched = |whole| PeerBody::Fetched { object, whole };
    let forget = PeerBody::Forget {
        object,
        version: VERSION,
    };
    let bodies = vec![
        ("fence", PeerBody::Fence),
        ("listing", listing(objects, vec![(OP, VERSION)], true)),
        ("listing, empty part", listing(vec![], vec![], false)),
        ("refused", PeerBody::Refused { accepted: Epoch(0x33) }),
        ("member write", write(mutation(vec![patch(1, 1)]))),
        (
            "member write, two patches",
            write(mutation(vec![patch(4, 2), patch(3, 1)])),
        ),
        ("member write, zero", write(mutation(vec![]))),
        ("member write, tombstone", write(tombstone())),
        ("written", written(Ok(()))),
        ("written, no space", written(Err(WriteError::NoSpace))),
        ("written, stale", written(Err(WriteError::Stale))),
        ("written, failed", written(Err(WriteError::Failed))),
        ("fetch", PeerBody::Fetch { object }),
        ("fetched", fetched(Some(whole))),
        ("fetched, none", fetched(None)),
        ("forget", forget),
    ];
    bodies.into_iter().map(|(name, body)| (name, peer(body))).collect()
}

/// A table of messages with their names: every kind, and every tag within a kind.
pub(super) fn samples() -> Vec<(&'static str, Message)> {
    let mut all = client_operations();
    all.extend(answers());
    all.extend(between_members());
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
            sequence: self.next(),
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
        Mutation {
            version: self.version(),
            op: self.op_id(),
            zero,
            patches,
            tombstone: false,
        }
    }

    fn listed(&mut self, object: ObjectId) -> Listed {
        let tombstone = self.next().is_multiple_of(4);
        let present = if tombstone { 0 } else { self.word() };
        Listed {
            object,
            version: self.version(),
            op: self.op_id(),
            present: UnitMask(present),
            tombstone,
        }
    }

    fn listing(&mut self) -> PeerBody {
        let mut places: Vec<_> = (0..self.below(50)).map(|_| self.object()).collect();
        places.sort_unstable();
        let recent = (0..self.below(50)).map(|_| (self.op_id(), self.version())).collect();
        PeerBody::Listing {
            objects: places.into_iter().map(|o| self.listed(o)).collect(),
            recent,
            last: self.next().is_multiple_of(2),
        }
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
                after: Some(self.next()),
            },
            _ => return self.answer(object, len),
        };
        Message::Op(Op {
            id: self.op_id(),
            pg: PG,
            action,
        })
    }

    fn answer(&mut self, object: ObjectId, len: usize) -> Message {
        let body = match self.below(5) {
            0 => self.listing(),
            1 => PeerBody::Write {
                object,
                mutation: self.mutation(object),
            },
            2 => PeerBody::Fetched {
                object,
                whole: Some(self.mutation(object)),
            },
            3 => PeerBody::Forget {
                object,
                version: self.version(),
            },
            _ => return done(Ok(OpValue::Data(vec![self.bytes(len)]))),
        };
        Message::Peer(Peer {
            pg: PG,
            epoch: Epoch(self.next()),
            body,
        })
    }
}
