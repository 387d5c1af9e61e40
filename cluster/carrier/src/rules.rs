//! Who may say what to whom.

use trivet_core::NodeId;
use trivet_core::message::Message;
use trivet_core::wire::{Limits, MAX_FRAME};

/// Bytes of the largest frame between a client and an OSD: one object, or 1024 numbers, and some fields.
const CLIENT_FRAME: usize = 256 << 10;

/// Whether this message may go from the one to the other.
pub(crate) fn allowed(from: NodeId, to: NodeId, message: &Message) -> bool {
    match (from, to, message) {
        (NodeId::Client(client), NodeId::Osd(_), Message::Op(op)) => op.id.client == client,
        (NodeId::Client(_), NodeId::Osd(_), Message::TickRequest { .. }) => true,
        (NodeId::Osd(_), NodeId::Client(_), Message::Tick { .. }) => true,
        (NodeId::Osd(_), NodeId::Client(client), Message::OpDone(done)) => done.id.client == client,
        (NodeId::Osd(_), NodeId::Osd(_), Message::Peer(_) | Message::Ping { .. } | Message::Pong { .. }) => from != to,
        _ => false,
    }
}

/// What the one puts up with from the other.
pub(crate) fn limits(a: NodeId, b: NodeId) -> Limits {
    let max_frame = match (a, b) {
        (NodeId::Osd(_), NodeId::Osd(_)) => MAX_FRAME,
        _ => CLIENT_FRAME,
    };
    Limits { max_frame }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_core::message::{Action, Op, OpDone, OpValue, Peer, PeerBody};
    use trivet_core::{ClientId, Epoch, ImageId, Now, OpId, OsdId, PgId, Tick};

    const ME: ClientId = ClientId(7);
    const OTHER: ClientId = ClientId(8);

    fn op(client: ClientId) -> Message {
        let action = Action::List {
            image: ImageId(1),
            from: 0,
            end: 1,
        };
        Message::Op(Op {
            id: OpId { client, sequence: 1 },
            pg: PgId::default(),
            epoch: Epoch(1),
            settled: 0,
            answered: 0,
            previous: 0,
            stamp: Tick::default(),
            action,
        })
    }

    fn done(client: ClientId) -> Message {
        let id = OpId { client, sequence: 1 };
        let result = Ok(OpValue::Changed);
        let tick = Tick(2);
        Message::OpDone(OpDone { id, result, tick })
    }

    #[test]
    fn each_kind_has_its_way() {
        let sent = Now(1);
        let peer = Message::Peer(Peer {
            pg: PgId::default(),
            epoch: Epoch(1),
            body: PeerBody::Fence,
        });
        let pong = Message::Pong {
            sent,
            free: 0,
            refused: Vec::new(),
        };
        let ping = Message::Ping { sent, pgs: Vec::new() };
        let tick = Message::Tick {
            sent,
            tick: Tick(3),
            mark: None,
        };
        let all = [
            op(ME),
            op(OTHER),
            done(ME),
            done(OTHER),
            peer,
            ping,
            pong,
            Message::TickRequest { sent },
            tick,
        ];
        let (osd, other, client) = (NodeId::Osd(OsdId(1)), NodeId::Osd(OsdId(2)), NodeId::Client(ME));
        let table = [
            (
                client,
                osd,
                [true, false, false, false, false, false, false, true, false],
            ),
            (
                osd,
                client,
                [false, false, true, false, false, false, false, false, true],
            ),
            (osd, other, [false, false, false, false, true, true, true, false, false]),
            (osd, osd, [false; 9]),
            (client, NodeId::Client(OTHER), [false; 9]),
        ];
        for (from, to, expected) in table {
            let found = all.each_ref().map(|message| allowed(from, to, message));
            assert_eq!(found, expected, "{from:?} to {to:?}");
        }
    }
}
