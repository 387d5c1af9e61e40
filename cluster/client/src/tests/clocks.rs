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

/// An OSD answers at once what it was asked at the first of these times.
fn says(client: &mut Client, osd: OsdId, (asked, at): (u64, u64), out: &mut Vec<Effect>) {
    let (sent, tick) = (ms(asked), tick(at));
    let mark = None;
    client.message(ms(at), osd, Message::Tick { sent, tick, mark }, out);
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
    says(&mut client, KNOWN, (0, 1), &mut out);
    says(&mut client, NEW, (999, 1_000), &mut out);
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
        Effect::Send(osd, Message::TickRequest { .. }) => Some(*osd),
        _ => None,
    });
    asked.collect()
}

#[test]
fn another_osd_vouches_for_what_was_said_before_it_was_asked() {
    let (mut client, mut out) = with_doubts(None);
    assert_eq!((asked(&out), sent(&mut out).len()), (vec![KNOWN, NEW], 0));
    says(&mut client, NEW, (1_000, 1_102), &mut out);
    assert!(sent(&mut out).is_empty());
    says(&mut client, KNOWN, (1_000, 1_103), &mut out);
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
    let ops = sent(&mut out);
    assert_eq!(
        (ops.len(), ops[0].1.stamp),
        (1, Tick::default()),
        "it is refused as outdated"
    );
    let stood = out
        .iter()
        .filter(|effect| matches!(effect, Effect::Stood(Duration::MAX)));
    assert_eq!(stood.count(), 1);
}

/// A client on the host of the first two of these OSDs, of which the third is on another one or away.
#[test]
fn an_osd_of_the_same_host_does_not_tell_while_there_is_another() {
    const FAR: OsdId = OsdId(7);
    let mut out = Vec::new();
    let mut client = Client::new(ClientId(5));
    client.set_host("here".into());
    let member = |osd, host: &str| {
        let config = OsdConfig {
            host: Some(host.into()),
            ..OsdConfig::default()
        };
        (keys::osd_config(osd), encode(&config))
    };
    let members = [member(KNOWN, "here"), member(NEW, "here"), member(FAR, "there")];
    client.notice(ms(0), &snapshot(members.to_vec()), &mut out);
    assert_eq!(client.went_on(), None);
    says(&mut client, KNOWN, (0, 1), &mut out);
    says(&mut client, KNOWN, (100, 101), &mut out);
    assert_eq!(client.went_on(), Some(ms(100)), "there is no other");
    says(&mut client, FAR, (200, 201), &mut out);
    says(&mut client, KNOWN, (300, 301), &mut out);
    assert_eq!(client.went_on(), Some(ms(100)));
    says(&mut client, FAR, (400, 401), &mut out);
    assert_eq!(client.went_on(), Some(ms(400)));
    client.ask_clocks(ms(404), &mut out);
    assert_eq!(asked(&out), [FAR]);
    client.ask_clocks(ms(405), &mut out);
    assert_eq!(asked(&out).len(), 1, "its answer is still to come");
}

#[test]
fn who_believes_the_first_word_sends_at_once() {
    let (_, mut out) = with_doubts(Some(Mutant::BelieveFirstClock));
    assert_eq!(sent(&mut out).len(), 1);
}
