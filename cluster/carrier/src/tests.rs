//! Single links and single faults; whole clusters under faults are in `tests/world.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use trivet_core::keys::OsdState;
use trivet_core::kv::Revision;
use trivet_core::map::Versioned;
use trivet_core::message::{Message, Op, OpDone, OpValue};
use trivet_core::wire::{WireError, encode};
use trivet_core::{ClientId, Epoch, NodeId, Now, OpId, OsdId, PgId, Tick};

use crate::{Carrier, Effect, Fault, HELLO, Hello, LinkId, Me, Next};

const CLUSTER: [u8; 16] = [9; 16];
const ONE: NodeId = NodeId::Osd(OsdId(1));
const TWO: NodeId = NodeId::Osd(OsdId(2));
const CLIENT: ClientId = ClientId(77);
const START: Now = Now(1_000_000_000);

fn me(node: NodeId, boot: u64) -> Me {
    let cluster = CLUSTER;
    Me { node, cluster, boot }
}

fn later(ms: u64) -> Now {
    START + Duration::from_millis(ms)
}

fn map(boots: &[(u32, u64)]) -> BTreeMap<OsdId, Versioned<OsdState>> {
    let entry = |&(osd, boot): &(u32, u64)| {
        let address = Some(format!("10.0.0.{osd}:7000"));
        let value = OsdState { boot, size: 0, address };
        let revision = Revision::default();
        (OsdId(osd), Versioned { value, revision })
    };
    boots.iter().map(entry).collect()
}

fn ping(at: u64) -> Message {
    let (sent, pgs) = (Now(at), Vec::new());
    Message::Ping { sent, pgs }
}

fn hello(from: NodeId, to: NodeId, number: u64) -> Hello {
    Hello {
        from,
        boot: 5,
        to,
        cluster: CLUSTER,
        number,
    }
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let mut segments: Vec<Bytes> = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut segments));
    segments.concat()
}

/// OSD 1, with OSD 2 in the map.
fn one() -> Carrier {
    let mut carrier = Carrier::new(me(ONE, 1));
    carrier.peers(START, &map(&[(1, 1), (2, 5)]), &mut Vec::new());
    carrier
}

/// Offers bytes on a link: the messages in them and what is to be done.
fn offer(carrier: &mut Carrier, now: Now, link: LinkId, bytes: &[u8]) -> (Vec<(NodeId, Message)>, Vec<Effect>) {
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    let mut input = BytesMut::from(bytes);
    while carrier.received(now, link, &mut input, &mut out, &mut messages) == Next::Again {}
    (messages, out)
}

/// An incoming link on which `hello` was heard.
fn incoming(carrier: &mut Carrier, hello: &Hello) -> (LinkId, Vec<Effect>) {
    let link = carrier.accepted(START);
    let (_, out) = offer(carrier, START, link, &hello.encode());
    (link, out)
}

fn fault(out: &[Effect], of: LinkId) -> Option<Fault> {
    out.iter().find_map(|effect| match effect {
        Effect::Close { link, fault, .. } if *link == of => *fault,
        _ => None,
    })
}

fn dials(out: &[Effect]) -> Vec<LinkId> {
    let dialed = |effect: &Effect| match effect {
        Effect::Dial(link, ..) => Some(*link),
        _ => None,
    };
    out.iter().filter_map(dialed).collect()
}

fn losses(out: &[Effect]) -> Vec<bool> {
    let lost = |effect: &Effect| match effect {
        Effect::Lost { gone, .. } => Some(*gone),
        _ => None,
    };
    out.iter().filter_map(lost).collect()
}

fn sent(out: &[Effect], on: LinkId) -> Vec<u8> {
    let segments = out.iter().filter_map(|effect| match effect {
        Effect::Send(link, segments) if *link == on => Some(segments.concat()),
        _ => None,
    });
    segments.flatten().collect()
}

/// OSD 1 has dialed OSD 2 and was greeted.
fn standing(carrier: &mut Carrier, now: Now) -> LinkId {
    let mut out = Vec::new();
    carrier.send(now, TWO, &ping(1), &mut out);
    let link = dials(&out)[0];
    carrier.connected(now, link, &mut out);
    offer(carrier, now, link, &hello(TWO, ONE, 1).encode());
    link
}

/// A link that stood for a while broke: the dial that asks whether OSD 2 is still there.
fn asking() -> (Carrier, LinkId) {
    let mut carrier = one();
    let link = standing(&mut carrier, START);
    let mut out = Vec::new();
    carrier.closed(later(1500), link, false, &mut out);
    assert_eq!(losses(&out), [false]);
    (carrier, dials(&out)[0])
}

#[test]
fn each_fault_closes_its_link_only() {
    let good = hello(TWO, ONE, 1);
    let from_client = hello(NodeId::Client(CLIENT), ONE, 1);
    let op = |client| {
        Message::Op(Op {
            id: OpId { client, sequence: 1 },
            pg: PgId::default(),
            epoch: Epoch(1),
            settled: 0,
            answered: 0,
            previous: 0,
            stamp: Tick::default(),
            action: trivet_core::message::Action::List {
                image: trivet_core::ImageId(1),
                from: 0,
                end: 1,
            },
        })
    };
    let other_cluster = Hello {
        cluster: [8; 16],
        ..good
    };
    let after = |hello: &Hello, rest: &[u8]| [&hello.encode()[..], rest].concat();
    let table: Vec<(Vec<u8>, Fault)> = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Fault::Stranger(*b"GET ")),
        (b"TRVH\x01".to_vec(), Fault::Format(1)),
        (other_cluster.encode().to_vec(), Fault::Cluster),
        (
            hello(TWO, NodeId::Osd(OsdId(3)), 1).encode().to_vec(),
            Fault::Addressee(NodeId::Osd(OsdId(3))),
        ),
        (hello(ONE, ONE, 1).encode().to_vec(), Fault::Myself),
        (after(&good, &[0; 24]), Fault::Frame(WireError::Magic([0; 4]))),
        (after(&good, &frames(&[op(CLIENT)])), Fault::Message(TWO)),
        (
            after(&from_client, &frames(&[ping(1)])),
            Fault::Message(NodeId::Client(CLIENT)),
        ),
        (
            after(&from_client, &frames(&[op(ClientId(1))])),
            Fault::Message(NodeId::Client(CLIENT)),
        ),
    ];
    for (bytes, expected) in table {
        let mut carrier = one();
        let (bystander, _) = incoming(&mut carrier, &hello(NodeId::Osd(OsdId(4)), ONE, 1));
        let link = carrier.accepted(START);
        let (messages, out) = offer(&mut carrier, START, link, &bytes);
        assert_eq!((messages.len(), fault(&out, link)), (0, Some(expected)));
        let (messages, out) = offer(&mut carrier, START, bystander, &frames(&[ping(3)]));
        assert_eq!((messages.len(), out.len()), (1, 0), "{expected}");
        assert_eq!((carrier.counters().links, carrier.counters().faults), (1, 1));
    }
}

#[test]
fn a_silent_peer_is_turned_away_and_a_slow_dial_given_up() {
    let mut carrier = one();
    let silent = carrier.accepted(START);
    let mut out = Vec::new();
    carrier.send(START, TWO, &ping(1), &mut out);
    let dial = dials(&out)[0];
    carrier.tick(later(1999), &mut out);
    assert!(losses(&out).is_empty());
    carrier.tick(later(2000), &mut out);
    assert_eq!(
        (fault(&out, dial), losses(&out)),
        (Some(Fault::Unreachable), vec![false])
    );
    assert_eq!(carrier.counters().dropped, 1);
    carrier.tick(later(4999), &mut out);
    assert_eq!(fault(&out, silent), None);
    carrier.tick(later(5000), &mut out);
    assert_eq!(fault(&out, silent), Some(Fault::Silent));
}

#[test]
fn a_dialer_greets_and_sends_at_once_and_wants_the_right_answer() {
    let mut carrier = one();
    let mut out = Vec::new();
    carrier.send(START, TWO, &ping(1), &mut out);
    carrier.send(START, TWO, &ping(2), &mut out);
    let link = dials(&out)[0];
    assert_eq!(dials(&out).len(), 1);
    carrier.connected(START, link, &mut out);
    let bytes = sent(&out, link);
    let expected = Hello {
        boot: 1,
        ..hello(ONE, TWO, link.0)
    };
    assert_eq!(bytes[..HELLO], expected.encode()[..]);
    assert_eq!(bytes[HELLO..], frames(&[ping(1), ping(2)])[..]);
    let (_, out) = offer(
        &mut carrier,
        START,
        link,
        &hello(NodeId::Osd(OsdId(3)), ONE, 1).encode(),
    );
    assert_eq!(fault(&out, link), Some(Fault::Answerer(NodeId::Osd(OsdId(3)))));
}

#[test]
fn a_break_is_told_at_once_and_asked_after() {
    let (mut carrier, again) = asking();
    let mut out = Vec::new();
    carrier.closed(later(1501), again, true, &mut out);
    assert_eq!((losses(&out), dials(&out).len()), (vec![true], 0));
    carrier.tick(later(9000), &mut out);
    assert!(dials(&out).is_empty(), "nothing is to be sent");
    carrier.send(later(9000), TWO, &ping(2), &mut out);
    assert_eq!(dials(&out).len(), 1);
}

#[test]
fn who_takes_a_dial_and_ends_before_it_greets_is_asked_after_again() {
    let (mut carrier, again) = asking();
    let mut out = Vec::new();
    // Its listener was still open.
    carrier.connected(later(1500), again, &mut out);
    carrier.closed(later(1508), again, false, &mut out);
    out.clear();
    carrier.tick(later(1700), &mut out);
    let last = dials(&out)[0];
    out.clear();
    carrier.closed(later(1701), last, true, &mut out);
    assert_eq!(losses(&out), [true], "though nothing was to be sent");
    carrier.tick(later(9000), &mut out);
    assert!(dials(&out).is_empty());
}

#[test]
fn a_link_that_breaks_at_once_is_dialed_again_after_a_while() {
    let mut carrier = one();
    let link = standing(&mut carrier, START);
    let mut out = Vec::new();
    carrier.closed(later(10), link, false, &mut out);
    carrier.tick(later(109), &mut out);
    assert!(dials(&out).is_empty());
    carrier.tick(later(110), &mut out);
    assert_eq!(dials(&out).len(), 1);
}

#[test]
fn a_new_boot_or_address_is_dialed_at_once_and_the_old_link_closed() {
    let mut carrier = one();
    let link = standing(&mut carrier, START);
    let mut out = Vec::new();
    carrier.peers(later(10), &map(&[(1, 1), (2, 6)]), &mut out);
    assert_eq!((losses(&out), fault(&out, link)), (vec![false], None));
    out.clear();
    carrier.send(later(11), TWO, &ping(1), &mut out);
    assert_eq!(dials(&out).len(), 1);
    let (old, out) = incoming(&mut carrier, &hello(TWO, ONE, 9));
    assert_eq!(fault(&out, old), Some(Fault::Restarted));
    let mut out = Vec::new();
    carrier.peers(later(20), &map(&[(1, 1)]), &mut out);
    assert_eq!(losses(&out), [false], "the dial to an OSD that left");
    carrier.send(later(21), TWO, &ping(1), &mut out);
    assert!(dials(&out).is_empty());
}

#[test]
fn a_later_incoming_link_replaces_an_earlier_one_and_not_the_reverse() {
    let mut carrier = one();
    let (second, _) = incoming(&mut carrier, &hello(TWO, ONE, 2));
    let (first, out) = incoming(&mut carrier, &hello(TWO, ONE, 1));
    assert_eq!(fault(&out, first), Some(Fault::Older));
    let (third, out) = incoming(&mut carrier, &hello(TWO, ONE, 3));
    assert!(
        out.iter()
            .any(|effect| matches!(effect, Effect::Close { link, .. } if *link == second))
    );
    assert_eq!(sent(&out, third).len(), HELLO);
    assert_eq!(carrier.counters().links, 1);
    let (messages, _) = offer(&mut carrier, START, second, &frames(&[ping(1)]));
    assert!(messages.is_empty(), "what was unread is dropped");
}

#[test]
fn frames_of_an_earlier_link_after_those_of_a_later_one_close_it() {
    let mut carrier = one();
    let dialed = standing(&mut carrier, START);
    let (accepted, _) = incoming(&mut carrier, &hello(TWO, ONE, 2));
    assert_eq!(carrier.counters().links, 2);
    assert_eq!(offer(&mut carrier, START, accepted, &frames(&[ping(2)])).0.len(), 1);
    let (messages, out) = offer(&mut carrier, START, dialed, &frames(&[ping(1)]));
    assert_eq!((messages.len(), fault(&out, dialed)), (0, Some(Fault::Older)));
}

#[test]
fn both_dial_and_each_keeps_its_first_link() {
    let mut carrier = one();
    let dialed = standing(&mut carrier, START);
    let (accepted, _) = incoming(&mut carrier, &hello(TWO, ONE, 2));
    let mut out = Vec::new();
    carrier.send(START, TWO, &ping(2), &mut out);
    assert_eq!(sent(&out, dialed), frames(&[ping(2)]));
    carrier.closed(later(1500), dialed, false, &mut out);
    assert!(dials(&out).is_empty(), "there is another one");
    carrier.send(later(1500), TWO, &ping(3), &mut out);
    assert_eq!(sent(&out, accepted), frames(&[ping(3)])[..]);
}

#[test]
fn an_earlier_link_is_not_sent_on_after_a_later_one() {
    let mut carrier = one();
    let early = carrier.accepted(START);
    let dialed = standing(&mut carrier, START);
    offer(&mut carrier, START, early, &hello(TWO, ONE, 2).encode());
    let mut out = Vec::new();
    carrier.closed(later(1500), dialed, false, &mut out);
    assert!(
        out.iter()
            .any(|effect| matches!(effect, Effect::Close { link, .. } if *link == early))
    );
    assert_eq!((dials(&out).len(), losses(&out)), (1, vec![false]));
}

#[test]
fn an_earlier_link_that_greets_late_is_only_read() {
    let mut carrier = one();
    let early = carrier.accepted(START);
    let dialed = standing(&mut carrier, START);
    let mut out = Vec::new();
    carrier.closed(later(1500), dialed, false, &mut out);
    let again = dials(&out)[0];
    offer(&mut carrier, later(1501), early, &hello(TWO, ONE, 2).encode());
    out.clear();
    carrier.send(later(1502), TWO, &ping(2), &mut out);
    carrier.closed(later(1503), again, false, &mut out);
    assert!(sent(&out, early).is_empty());
    out.clear();
    carrier.send(later(2000), TWO, &ping(3), &mut out);
    assert_eq!(dials(&out).len(), 1, "another one to send on");
    assert_eq!(offer(&mut carrier, later(2000), early, &frames(&[ping(9)])).0.len(), 1);
}

#[test]
fn an_accepted_link_takes_what_waits_for_a_dial() {
    let mut carrier = one();
    let mut out = Vec::new();
    carrier.send(START, TWO, &ping(1), &mut out);
    let dial = dials(&out)[0];
    let (accepted, out) = incoming(&mut carrier, &hello(TWO, ONE, 1));
    assert!(
        out.iter()
            .any(|effect| matches!(effect, Effect::Close { link, .. } if *link == dial))
    );
    assert_eq!(sent(&out, accepted)[HELLO..], frames(&[ping(1)])[..]);
    assert!(losses(&out).is_empty());
}

#[test]
fn what_waits_and_what_is_unsent_is_bounded() {
    let mut carrier = one();
    let mut out = Vec::new();
    (0..1030).for_each(|at| carrier.send(START, TWO, &ping(at), &mut out));
    assert_eq!(carrier.counters().dropped, 6);
    let link = dials(&out)[0];
    carrier.connected(START, link, &mut out);
    assert_eq!(carrier.counters().messages_out, 1024);
    carrier.unsent(|_| 64 << 20, &mut out);
    carrier.send(START, TWO, &ping(1), &mut out);
    assert_eq!(carrier.counters().dropped, 7);
    carrier.unsent(|_| 0, &mut out);
    carrier.send(START, TWO, &ping(1), &mut out);
    assert_eq!(carrier.counters().messages_out, 1025);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut carrier = one();
    let client = NodeId::Client(CLIENT);
    let (link, _) = incoming(&mut carrier, &hello(client, ONE, 1));
    let done = Message::OpDone(OpDone {
        id: OpId {
            client: CLIENT,
            sequence: 1,
        },
        result: Ok(OpValue::Changed),
        tick: Tick::default(),
    });
    let mut out = Vec::new();
    carrier.send(START, client, &done, &mut out);
    let mut pauses = Vec::new();
    for queued in [16 << 20, (16 << 20) + 1, 5 << 20, 4 << 20, 0] {
        out.clear();
        carrier.unsent(|_| queued, &mut out);
        let pause = |effect: &Effect| matches!(effect, Effect::Pause(of, true) if *of == link);
        pauses.push((out.len(), out.iter().any(pause)));
    }
    assert_eq!(pauses, [(0, false), (1, true), (0, false), (1, false), (0, false)]);
}

#[test]
fn large_input_is_taken_in_portions() {
    let mut carrier = one();
    let (link, _) = incoming(&mut carrier, &hello(TWO, ONE, 1));
    let pgs = |n: u32| {
        (0..n)
            .map(|number| {
                (
                    PgId {
                        number,
                        ..PgId::default()
                    },
                    Epoch(1),
                )
            })
            .collect()
    };
    let large = |sent| Message::Ping {
        sent: Now(sent),
        pgs: pgs(60_000),
    };
    let bytes = frames(&[large(1), large(2), large(3)]);
    let mut input = BytesMut::from(&bytes[..bytes.len() - 1]);
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    assert_eq!(
        carrier.received(START, link, &mut input, &mut out, &mut messages),
        Next::Again
    );
    assert_eq!(messages.len(), 2);
    let next = carrier.received(START, link, &mut input, &mut out, &mut messages);
    assert_eq!((next, messages.len()), (Next::Wait(input.len() + 1), 2));
}

#[test]
fn a_client_accepts_nobody() {
    let mut carrier = Carrier::new(me(NodeId::Client(CLIENT), 1));
    let (link, out) = incoming(&mut carrier, &hello(TWO, NodeId::Client(CLIENT), 1));
    assert_eq!(fault(&out, link), Some(Fault::Role(TWO)));
}
