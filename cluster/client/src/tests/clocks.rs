//! What OSDs say first of all of their clocks, by a client that may have stood still until then.

use super::*;

const KNOWN: OsdId = OsdId(9);
const NEW: OsdId = OsdId(1);

fn ms(at: u64) -> Now {
    Now(at * 1_000_000)
}

fn tick(at: u64) -> Tick {
    Tick(at * 1_000_000 + 5)
}

/// A client that has compared its clock with that of one OSD for a second when it hears another one, and a write by a caller that
/// was seen later.
fn with_doubts(mutant: Option<Mutant>) -> (Client, Vec<Effect>) {
    let mut client = mutant.map_or_else(
        || Client::new(ClientId(5)),
        |mutant| Client::with_mutant(ClientId(5), mutant),
    );
    let mut out = Vec::new();
    client.notice(ms(0), &claims(NEW.0, 1, true), &mut out);
    client.pace.asked(ms(0), KNOWN);
    client.message(ms(1), KNOWN, Message::Tick(tick(1)), &mut out);
    client.message(ms(1_000), NEW, Message::Tick(tick(1_000)), &mut out);
    let data = vec![Bytes::from_static(b"xyz")];
    let caller = Caller::Seen(Presence::heard(ms(1_100)));
    client.submit(
        ms(1_101),
        1,
        image(),
        ImageOp::Write { offset: 9, data },
        caller,
        &mut out,
    );
    (client, out)
}

fn asked(out: &[Effect]) -> Vec<OsdId> {
    let asked = out.iter().filter_map(|effect| match effect {
        Effect::Send(osd, Message::TickRequest) => Some(*osd),
        _ => None,
    });
    asked.collect()
}

#[test]
fn another_osd_vouches_for_what_was_said_before_it_was_asked() {
    let (mut client, mut out) = with_doubts(None);
    assert_eq!((asked(&out), sent(&mut out).len()), (vec![KNOWN, NEW], 0));
    client.message(ms(1_102), NEW, Message::Tick(tick(1_102)), &mut out);
    assert!(sent(&mut out).is_empty());
    client.message(ms(1_103), KNOWN, Message::Tick(tick(1_103)), &mut out);
    let ops = sent(&mut out);
    assert_eq!((ops[0].0, ops[0].1.stamp), (NEW, tick(1_000)));
    assert!(!out.iter().any(|effect| matches!(effect, Effect::Stood(_))));
}

#[test]
fn a_client_of_whose_clock_nobody_tells_may_have_stood_still() {
    let (mut client, mut out) = with_doubts(None);
    client.tick(ms(1_499), &mut out);
    assert!(sent(&mut out).is_empty());
    client.tick(ms(1_500), &mut out);
    assert_eq!(sent(&mut out).len(), 1);
    let stood = out
        .iter()
        .filter(|effect| matches!(effect, Effect::Stood(Duration::MAX)));
    assert_eq!(stood.count(), 1);
}

#[test]
fn who_believes_the_first_word_sends_at_once() {
    let (_, mut out) = with_doubts(Some(Mutant::BelieveFirstClock));
    assert_eq!(sent(&mut out).len(), 1);
}
