//! Real bytes of every layout that the documents describe, as the code makes them, with what is known to be in them.

use bytes::Bytes;
use trivet_carrier::Hello;
use trivet_core::disk::{DiskDone, DiskOpKind};
use trivet_core::mark::Mark;
use trivet_core::message::{Action, Message, Op};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::wire::encode;
use trivet_core::{
    ClientId, Epoch, ImageId, NodeId, ObjectId, OpId, OsdId, PgId, PoolId, Tick, UNIT_SIZE, UnitMask, Version,
};
use trivet_store::{Format, Options, Output, Request, State, Store, Ticket, format};

/// Bytes that the code made.
pub struct Real {
    /// Their magic, or how the document calls them.
    pub title: &'static str,
    /// All of them, from the first field on.
    pub bytes: Vec<u8>,
    /// Fields that have to be there: how the document's words for them begin, and what is in them.
    pub fields: Vec<(&'static str, Vec<u8>)>,
}

const SIZE: u64 = 4 << 20;
const LOG: u64 = 288 << 10;
const CLUSTER: [u8; 16] = *b"0123456789abcdef";
const SECRET: [u8; 16] = *b"fedcba9876543210";
const OSD: OsdId = OsdId(0x0102);
const PG: PgId = PgId {
    pool: PoolId(3),
    generation: 0x0201,
    number: 0x0403,
};
const OP: OpId = OpId {
    client: ClientId(0x1112_1314_1516_1718),
    sequence: 0x2122,
};
const MARK: Mark = Mark {
    count: 0x3132,
    draw: 0x4142,
};

fn object(number: u64) -> ObjectId {
    let image = ImageId::new(PG.pool, 0x51);
    ObjectId { image, number }
}

fn version(counter: u64) -> Version {
    let epoch = Epoch(0x61);
    Version { epoch, counter }
}

fn pair(first: u64, second: u64) -> Vec<u8> {
    [first.to_le_bytes(), second.to_le_bytes()].concat()
}

fn object_bytes(object: ObjectId) -> Vec<u8> {
    pair(object.image.0, object.number)
}

fn version_bytes(version: Version) -> Vec<u8> {
    pair(version.epoch.0, version.counter)
}

fn u32_bytes(value: usize) -> Vec<u8> {
    u32::try_from(value).expect("small").to_le_bytes().to_vec()
}

/// A frame of a write.
pub fn of_wire() -> Real {
    let action = Action::Write {
        object: object(1),
        offset: 0,
        data: vec![Bytes::from_static(b"hello")],
    };
    let op = Op {
        id: OP,
        pg: PG,
        epoch: Epoch(1),
        settled: 1,
        answered: 1,
        previous: 0,
        stamp: Tick(0),
        action,
    };
    let mut out = Vec::new();
    encode(&Message::Op(op), &mut out);
    let bytes = out.concat();
    let body = bytes.len() - 24 - 5;
    let head_sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..24 + body]);
    Real {
        title: "TRVT",
        fields: vec![
            ("kind", vec![2]),
            ("length of the body", u32_bytes(body)),
            ("length of the payload", u32_bytes(5)),
            ("crc32c of the payload", crc32c::crc32c(b"hello").to_le_bytes().to_vec()),
            (
                "crc32c of the header's bytes 0-19 and the body",
                head_sum.to_le_bytes().to_vec(),
            ),
        ],
        bytes,
    }
}

/// The greeting of a gateway.
pub fn of_carrier() -> Real {
    let hello = Hello {
        from: NodeId::Client(OP.client),
        boot: 0x0102_0304,
        to: NodeId::Osd(OSD),
        cluster: CLUSTER,
        number: 9,
    };
    Real {
        title: "TRVH",
        bytes: hello.encode().to_vec(),
        fields: vec![
            ("kind of the sender: 1 OSD, 2 gateway", vec![2]),
            ("kind of the addressee", vec![1]),
            (
                "the sender: OSD number or client id",
                OP.client.0.to_le_bytes().to_vec(),
            ),
            ("boot of the sender", 0x0102_0304_u64.to_le_bytes().to_vec()),
            ("the addressee", u64::from(OSD.0).to_le_bytes().to_vec()),
            ("cluster id", CLUSTER.to_vec()),
            ("the sender's number of the link", 9_u64.to_le_bytes().to_vec()),
        ],
    }
}

/// Everything that a store writes to its disk.
pub fn of_store() -> Vec<Real> {
    let mut disk = Disk::new();
    let mut all = vec![superblock(&disk)];
    all.extend(log(&mut disk));
    all.extend(checkpoint(&mut disk));
    all
}

fn superblock(disk: &Disk) -> Real {
    Real {
        title: "TRIVETOS",
        bytes: disk.written(b"TRIVETOS").swap_remove(0),
        fields: vec![
            ("OSD number", OSD.0.to_le_bytes().to_vec()),
            ("cluster", CLUSTER.to_vec()),
            ("store: random and secret", SECRET.to_vec()),
            ("bytes of the disk", SIZE.to_le_bytes().to_vec()),
            ("bytes of the log", LOG.to_le_bytes().to_vec()),
        ],
    }
}

/// A batch of two records, and a record of each kind.
fn log(disk: &mut Disk) -> Vec<Real> {
    let epoch = Epoch(0x71);
    let accept = Request::AcceptEpoch { pg: PG, epoch };
    let (object_2, version_2) = (object(2), version(2));
    let forget = Request::Forget {
        object: object_2,
        version: version_2,
    };
    let batch = disk.batch(vec![write(object(1), 1), accept]);
    let write = batch[72..].to_vec();
    let accepted = batch[72 + RECORD_OF_WRITE..].to_vec();
    let mark = disk.batch(vec![Request::KeepMark { mark: MARK }])[72..].to_vec();
    disk.batch(vec![delete(2)]);
    let forgotten = disk.batch(vec![forget])[72..].to_vec();
    vec![
        of_batch(batch),
        of_write(write),
        of_epoch("accepted epoch", accepted, epoch),
        Real {
            title: "forgotten tombstone",
            bytes: forgotten,
            fields: vec![
                ("object", object_bytes(object_2)),
                ("version of the tombstone", version_bytes(version_2)),
            ],
        },
        Real {
            title: "mark of the metadata store",
            bytes: mark,
            fields: vec![
                ("its draw", MARK.draw.to_le_bytes().to_vec()),
                ("its count", MARK.count.to_le_bytes().to_vec()),
            ],
        },
    ]
}

/// Bytes of the record of a write of two units that adds one operation.
const RECORD_OF_WRITE: usize = 44 + 24 + 4 + 2 * 4;

fn of_batch(bytes: Vec<u8>) -> Real {
    let mut zeroed = bytes[..UNIT_SIZE].to_vec();
    zeroed[68..72].fill(0);
    let header_sum = crc32c::crc32c(&zeroed);
    Real {
        title: "TRVBATCH",
        fields: vec![
            ("store", SECRET.to_vec()),
            // An empty one was written when the store was opened.
            ("sequence", 2_u64.to_le_bytes().to_vec()),
            ("incarnation", 1_u64.to_le_bytes().to_vec()),
            ("position", (UNIT_SIZE as u64).to_le_bytes().to_vec()),
            ("blocks, header included", u32_bytes(3)),
            ("header blocks", u32_bytes(1)),
            ("number of records", u32_bytes(2)),
            ("bytes of records", u32_bytes(RECORD_OF_WRITE + 16)),
            ("checksum of all header blocks", header_sum.to_le_bytes().to_vec()),
        ],
        bytes,
    }
}

fn of_write(bytes: Vec<u8>) -> Real {
    Real {
        title: "write",
        bytes,
        fields: vec![
            ("flags", vec![0]),
            ("number of patches", vec![1]),
            ("number of operations", vec![0xff]),
            ("object", object_bytes(object(1))),
            ("version", version_bytes(version(1))),
            ("units that become unwritten", ZEROED.0.to_le_bytes().to_vec()),
        ],
    }
}

fn of_epoch(title: &'static str, bytes: Vec<u8>, epoch: Epoch) -> Real {
    let half = |value: u16| value.to_le_bytes().to_vec();
    Real {
        title,
        bytes,
        fields: vec![
            ("pool", half(PG.pool.0)),
            ("number of the PG", half(u16::try_from(PG.number).expect("small"))),
            ("its generation", half(PG.generation)),
            ("epoch", epoch.0.to_le_bytes().to_vec()),
        ],
    }
}

const ZEROED: UnitMask = UnitMask(0xf000_0000);

fn mutation(object: ObjectId, counter: u64, patches: Vec<(usize, usize)>) -> Mutation {
    let seal = |(first, units)| Patch::seal(object, first, Bytes::from(vec![0xa5; units * UNIT_SIZE]));
    Mutation {
        version: version(counter),
        ops: Ops::Add {
            op: OP,
            answered: 0x2021,
        },
        zero: ZEROED,
        patches: patches.into_iter().map(seal).collect(),
        tombstone: false,
    }
}

fn write(object: ObjectId, counter: u64) -> Request {
    let mutation = mutation(object, counter, vec![(3, 2)]);
    Request::Write { object, mutation }
}

/// The first checkpoint, which so many writes make: header, chunk, and items of the chunk; and from the next one, which
/// has only what has changed, that an object was forgotten.
fn checkpoint(disk: &mut Disk) -> Vec<Real> {
    let mut counter = 100;
    let mut write_until = |disk: &mut Disk, headers: usize| {
        while disk.written(b"TRVCHECK").len() < headers {
            counter += 1;
            disk.batch(vec![write(object(1), counter)]);
        }
    };
    write_until(disk, 1);
    let header = disk.written(b"TRVCHECK").swap_remove(0);
    let chunks = disk.written_before(b"TRVCHUNK", b"TRVCHECK");
    let mut all = items(&chunks[0]);
    all.push(of_header(header, &chunks));
    all.extend(chunks.into_iter().take(1).map(of_chunk));
    all.push(removed(disk, &mut write_until));
    all
}

fn of_header(bytes: Vec<u8>, chunks: &[Vec<u8>]) -> Real {
    let len: usize = chunks.iter().map(Vec::len).sum();
    let sums = chunks.iter().map(|chunk| &chunk[44..48]);
    let sum = sums.fold(0, crc32c::crc32c_append);
    Real {
        title: "header",
        bytes,
        fields: vec![
            ("magic", b"TRVCHECK".to_vec()),
            ("store", SECRET.to_vec()),
            ("sequence", 1_u64.to_le_bytes().to_vec()),
            ("base", 1_u64.to_le_bytes().to_vec()),
            ("bytes of all chunks", (len as u64).to_le_bytes().to_vec()),
            ("incarnation", 1_u64.to_le_bytes().to_vec()),
            ("number of chunks", u32_bytes(chunks.len())),
            ("checksums of all chunks, chained", sum.to_le_bytes().to_vec()),
        ],
    }
}

fn of_chunk(bytes: Vec<u8>) -> Real {
    // The last item is the mark, whose last six bytes are zero.
    let len = 6 + bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..44]), &bytes[48..len]);
    Real {
        title: "chunk",
        fields: vec![
            ("magic", b"TRVCHUNK".to_vec()),
            ("store", SECRET.to_vec()),
            ("base", 1_u64.to_le_bytes().to_vec()),
            ("number: 0, 1", 0_u64.to_le_bytes().to_vec()),
            ("bytes without padding", u32_bytes(len)),
            ("checksum of all other bytes", sum.to_le_bytes().to_vec()),
        ],
        bytes,
    }
}

/// The only object, and behind it the accepted epoch and the mark.
fn items(chunk: &[u8]) -> Vec<Real> {
    let object_item = &chunk[48..];
    let units = |at: usize| {
        object_item[at..at + 4]
            .iter()
            .map(|byte| byte.count_ones())
            .sum::<u32>() as usize
    };
    let (present, in_log) = (units(40), units(44));
    let ops = usize::from(object_item[2]);
    let others = object_item[48 + 16 * ops + 4 * present + 4 * in_log..].to_vec();
    let fields = vec![
        ("number of operations", vec![2, 0]),
        ("object, version", object_item[8..40].to_vec()),
        ("units present, units in the log", object_item[40..48].to_vec()),
    ];
    assert_eq!(object_item[8..24], object_bytes(object(1)));
    assert_eq!(object_item[40..44], UnitMask::range(3, 2).0.to_le_bytes());
    let item = |kind: usize| Real {
        title: "accepted epoch, or mark of the metadata store",
        bytes: others[16 * kind..].to_vec(),
        fields: Vec::new(),
    };
    vec![
        Real {
            title: "object",
            bytes: object_item.to_vec(),
            fields,
        },
        item(0),
        item(1),
    ]
}

fn removed(disk: &mut Disk, write_until: &mut impl FnMut(&mut Disk, usize)) -> Real {
    let headers = disk.written(b"TRVCHECK").len();
    // Changes are written alone where most objects did not change.
    for number in 10..20 {
        disk.batch(vec![delete(number)]);
    }
    write_until(disk, headers + 2);
    let chunks = disk.written(b"TRVCHUNK").len();
    let (object, version) = (object(10), version(10));
    disk.batch(vec![Request::Forget { object, version }]);
    write_until(disk, headers + 4);
    let name = object_bytes(object);
    let later = disk.written(b"TRVCHUNK").into_iter().skip(chunks);
    let mut found = later.filter_map(|chunk| {
        let at = chunk.windows(16).position(|bytes| bytes == name)?;
        Some(chunk[at - 4..].to_vec())
    });
    Real {
        title: "forgotten object",
        bytes: found.next().expect("a checkpoint says that it was forgotten"),
        fields: vec![("object", name.clone())],
    }
}

/// A deletion whose version has the object's number as its counter.
fn delete(number: u64) -> Request {
    let object = object(number);
    let mutation = Mutation {
        zero: UnitMask::ALL,
        tombstone: true,
        ..mutation(object, number, Vec::new())
    };
    Request::Write { object, mutation }
}

/// A disk in memory, its store, and everything that was written, in order.
struct Disk {
    bytes: Vec<u8>,
    writes: Vec<Bytes>,
    store: Store,
    out: Output,
}

impl Disk {
    fn new() -> Disk {
        let new = Format {
            size: SIZE,
            osd: OSD,
            cluster: CLUSTER,
            store: SECRET,
            log_size: Some(LOG),
        };
        let mut out = Output {
            disk: format(&new).expect("the size is right"),
            ..Output::default()
        };
        let mut fresh = Output::default();
        let store = Store::open(SIZE, Options::default(), &mut fresh);
        let bytes = vec![0; usize::try_from(SIZE).expect("small")];
        let writes = Vec::new();
        let mut disk = Disk {
            bytes,
            writes,
            store,
            out: Output::default(),
        };
        for op in out.disk.drain(..) {
            disk.execute(op.kind);
        }
        disk.out = fresh;
        disk.run();
        assert_eq!(disk.store.state(), State::Ready);
        disk
    }

    /// Has the requests executed in one batch, which it returns.
    fn batch(&mut self, requests: Vec<Request>) -> Vec<u8> {
        let before = self.written(b"TRVBATCH").len();
        for (ticket, request) in (0..).map(Ticket).zip(requests) {
            self.store.submit(ticket, request, &mut self.out);
        }
        self.store.pump(&mut self.out);
        self.run();
        let answers = self.out.done.drain(..);
        answers.for_each(|(_, answer)| drop(answer.expect("the disk is good")));
        self.written(b"TRVBATCH").swap_remove(before)
    }

    fn run(&mut self) {
        while !self.out.disk.is_empty() {
            for op in std::mem::take(&mut self.out.disk) {
                let result = Ok(self.execute(op.kind));
                self.store.completed(DiskDone { id: op.id, result }, &mut self.out);
            }
            self.store.pump(&mut self.out);
        }
    }

    fn execute(&mut self, op: DiskOpKind) -> Bytes {
        let at = |offset: u64| usize::try_from(offset).expect("within the disk");
        match op {
            DiskOpKind::Read { offset, len } => Bytes::copy_from_slice(&self.bytes[at(offset)..at(offset) + len]),
            DiskOpKind::Write { offset, data } => {
                self.bytes[at(offset)..at(offset) + data.len()].copy_from_slice(&data);
                self.writes.push(data);
                Bytes::new()
            }
            DiskOpKind::Flush => Bytes::new(),
        }
    }

    /// What was written with this at its beginning.
    fn written(&self, magic: &[u8]) -> Vec<Vec<u8>> {
        let with_magic = self.writes.iter().filter(|data| data.starts_with(magic));
        with_magic.map(|data| data.to_vec()).collect()
    }

    /// Also only what was written before the first write with another beginning.
    fn written_before(&self, magic: &[u8], end: &[u8]) -> Vec<Vec<u8>> {
        let before = self.writes.iter().take_while(|data| !data.starts_with(end));
        let with_magic = before.filter(|data| data.starts_with(magic));
        with_magic.map(|data| data.to_vec()).collect()
    }
}
