//! One budget for clients' data, whoever comes and goes.

use std::time::Duration;

use super::clients::{READ, REPLY_LEN, nbd, request, write};
use super::world::{World, status};

const MIB: usize = 1 << 20;
const BUDGET: usize = 32 * MIB;
/// Bytes of a write in these tests.
const LEN: usize = 128 << 10;

fn world() -> World {
    let mut world = World::default();
    world.gateway.set_budget(BUDGET);
    world.image("vm", 1 << 30);
    world
}

/// A client writes until it is not read from any more; how many bytes it got through.
fn push(world: &mut World, most: usize) -> usize {
    let conn = nbd(world, "vm");
    world.pauses.clear();
    for count in 0..most / LEN {
        if world.pauses.last() == Some(&true) {
            return count * LEN;
        }
        world.send(conn, &write((count * LEN) as u64, LEN, 1));
        world.run();
    }
    most
}

#[test]
fn clients_that_come_again_and_again_stay_within_the_budget() {
    let mut world = world();
    world.hold_osd = true;
    for _ in 0..12 {
        let taken = push(&mut world, 64 * MIB);
        assert!(taken > BUDGET / 4, "{taken}");
        let used = world.gateway.memory_used();
        assert!(used <= BUDGET + MIB && used == taken, "{used} {taken}");
        let conn = crate::gateway::ConnKey(world.connections);
        world.leave(conn);
        assert_eq!(world.gateway.memory_used(), 0, "nothing is kept of who is gone");
        world.pass(Duration::from_millis(250));
    }
}

#[test]
fn what_a_client_sent_that_was_sent_away_takes_no_memory() {
    let mut world = world();
    let conn = nbd(&mut world, "vm");
    world.send(conn, &[0; 4096]);
    world.run();
    assert_eq!(world.closed.len(), 1, "these are no requests");
    assert_eq!(world.gateway.memory_used(), 0);
}

#[test]
fn who_waits_goes_on_when_others_are_done() {
    let mut world = world();
    world.hold_osd = true;
    while world.gateway.memory_used() < BUDGET - 2 * LEN {
        push(&mut world, 64 * MIB);
    }
    assert!(
        push(&mut world, 64 * MIB) <= 512 << 10,
        "but a small share everyone has"
    );
    let waiting = status(&mut world);
    assert!(waiting.gateway.waiting_for_buffers > 0 && waiting.gateway.buffers > 0);
    assert!(waiting.reasons.iter().any(|why| why.contains("wait for memory")));
    world.pauses.clear();
    world.hold_osd = false;
    world.pass(Duration::from_secs(1));
    assert!(world.pauses.iter().all(|paused| !paused) && !world.pauses.is_empty());
    let after = status(&mut world).gateway;
    assert_eq!((after.waiting_for_buffers, after.buffers), (0, 0));
}

#[test]
fn answers_that_nobody_takes_count() {
    let mut world = world();
    let (greedy, other) = (nbd(&mut world, "vm"), nbd(&mut world, "vm"));
    world.gateway.unsent(greedy, BUDGET);
    world.pauses.clear();
    world.send(greedy, &request(READ, 0, 512, b""));
    world.run();
    assert_eq!(world.pauses, [true], "it is not read from");
    world.send(other, &request(READ, 0, 512, b""));
    assert_eq!(world.take(other).len(), REPLY_LEN + 512);
    world.gateway.unsent(greedy, 0);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.pauses, [true, false]);
    assert_eq!(world.gateway.memory_used(), 0);
}

#[test]
fn half_a_large_message_keeps_others_waiting_for_a_minute_at_most() {
    let mut world = world();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let conn = nbd(&mut world, "vm");
        world.send(conn, &write(0, 8 * MIB, 1)[..LEN]);
        stalled.push(conn);
        world.run();
    }
    let begun = status(&mut world).gateway;
    assert!(
        begun.waiting_for_buffers > 0 && begun.buffers <= BUDGET as u64,
        "{begun:?}"
    );
    world.pass(Duration::from_secs(59));
    assert!(world.closed.is_empty());
    world.pass(Duration::from_secs(2));
    assert!(!world.closed.is_empty() && world.closed.len() < 8, "{:?}", world.closed);
}
