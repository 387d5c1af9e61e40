//! Frames of the OSD wire, one of every kind; and the same as the target seals them: kind, length of the body, body, payload.

use std::time::Duration;

use bytes::Bytes;
use trivet_core::mark::Mark;
use trivet_core::message::{
    Action, Listed, Message, Op, OpDone, OpError, OpValue, Peer, PeerBody, Promise, WriteError,
};
use trivet_core::mutation::{Mutation, Ops, Patch};
use trivet_core::wire::{HEADER, encode};
use trivet_core::{
    ClientId, Epoch, ImageId, Now, ObjectId, OpId, OsdId, PgId, PoolId, Tick, UNIT_SIZE, UnitMask, Version,
};

const ID: OpId = OpId {
    client: ClientId(0x1112_1314),
    sequence: 33,
};
const PG: PgId = PgId::first(PoolId(3), 5);
const VERSION: Version = Version {
    epoch: Epoch(7),
    counter: 9,
};

fn object() -> ObjectId {
    ObjectId {
        image: ImageId::new(PoolId(3), 17),
        number: 4,
    }
}

fn mutation() -> Mutation {
    let patch = Patch::seal(object(), 1, Bytes::from(vec![0xa5; UNIT_SIZE]));
    Mutation {
        version: VERSION,
        ops: Ops::Add { op: ID, answered: 30 },
        zero: UnitMask(0xf000_0000),
        patches: vec![patch],
        tombstone: false,
    }
}

fn whole() -> Mutation {
    Mutation {
        ops: Ops::Exactly(vec![ID, ID]),
        zero: UnitMask::ALL,
        ..mutation()
    }
}

fn messages() -> Vec<Message> {
    let (object, data) = (object(), vec![Bytes::from_static(b"some bytes")]);
    let image = object.image;
    let actions = [
        Action::Read {
            object,
            offset: 512,
            len: 1024,
        },
        Action::Write {
            object,
            offset: 100,
            data: data.clone(),
        },
        Action::Zero {
            object,
            offset: 0,
            len: 4096,
        },
        Action::Remove { object },
        Action::List { image, from: 2, end: 9 },
        Action::Barrier { revision: 77 },
    ];
    let results = [
        Ok(OpValue::Changed),
        Ok(OpValue::Data(data)),
        Ok(OpValue::Objects(vec![1, 2, 9])),
        Ok(OpValue::Passed),
        Err(OpError::NotPrimary),
        Err(OpError::OtherEpoch(Epoch(8))),
    ];
    let ops = actions.into_iter().map(|action| {
        Message::Op(Op {
            id: ID,
            pg: PG,
            epoch: Epoch(7),
            settled: 29,
            answered: 31,
            previous: 0,
            stamp: Tick::default(),
            action,
        })
    });
    let answers = results.into_iter().map(|result| {
        let tick = Tick(41);
        Message::OpDone(OpDone { id: ID, result, tick })
    });
    let peers = bodies().into_iter().map(|body| {
        Message::Peer(Peer {
            pg: PG,
            epoch: Epoch(7),
            body,
        })
    });
    let (sent, tick) = (Now(1_000_000), Tick(43));
    let mark = Some(Mark { count: 5, draw: 6 });
    let clocks = [Message::TickRequest { sent }, Message::Tick { sent, tick, mark }];
    ops.chain(clocks).chain(answers).chain(peers).chain(pings()).collect()
}

fn pings() -> [Message; 2] {
    let sent = Now(1_000_000);
    let pgs = vec![(PG, Epoch(7))];
    let refused = pgs.clone();
    [Message::Ping { sent, pgs }, Message::Pong { sent, free: 7, refused }]
}

fn bodies() -> Vec<PeerBody> {
    let (object, version) = (object(), VERSION);
    let listed = Listed {
        object,
        version,
        tombstone: false,
    };
    let promise = Promise {
        to: Some(OsdId(2)),
        left: Duration::from_millis(500),
    };
    vec![
        PeerBody::Fence,
        PeerBody::Listing {
            part: 0,
            parts: 1,
            promise: Some(promise),
            objects: vec![listed],
        },
        PeerBody::Refused { accepted: Epoch(8) },
        PeerBody::Write {
            object,
            after: Version::NONE,
            mutation: mutation(),
        },
        PeerBody::Push {
            object,
            mutation: whole(),
        },
        PeerBody::Written {
            object,
            version,
            result: Err(WriteError::Stale),
        },
        PeerBody::Fetch { object },
        PeerBody::Fetched {
            object,
            whole: Some(whole()),
            damaged: UnitMask(0x100),
        },
        PeerBody::Scrub { object },
        PeerBody::Scrubbed {
            object,
            version,
            digest: 0x1234,
            damaged: UnitMask::EMPTY,
        },
        PeerBody::Stray,
        PeerBody::Drop,
        PeerBody::Forget { object, version },
        PeerBody::Forgotten { object, version },
    ]
}

fn frame(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out.concat()
}

/// What the target puts behind a header of its own making.
fn unsealed(frame: &[u8]) -> Vec<u8> {
    let (header, rest) = frame.split_at(HEADER);
    // The kind is the sixth byte and counts from 1; the length of the body is in the bytes from the ninth.
    [&[header[5] - 1, header[8], header[9]], rest].concat()
}

/// Frames, frames without seal, and all frames in a row.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let frames: Vec<_> = messages().iter().map(frame).collect();
    let row = frames.concat();
    frames
        .iter()
        .map(|frame| unsealed(frame))
        .chain(frames.clone())
        .chain([row])
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use trivet_core::wire::{Limits, decode};

    use super::{frame, messages};

    #[test]
    fn frames_are_messages() {
        for message in messages() {
            let mut bytes = BytesMut::from(&frame(&message)[..]);
            assert_eq!(decode(&mut bytes, &Limits::default()), Ok(Some(message)));
        }
    }
}
