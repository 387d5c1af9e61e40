//! Task management against commands in every state.

use super::*;

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn function(code: u8, lun: u8, referenced: u32) -> Raw {
    Raw::new(0x42, 0x80 | code)
        .byte(9, lun)
        .word(16, 50)
        .word(20, referenced)
}

fn response(reply: &[Raw]) -> u8 {
    assert_eq!(
        (reply.len(), reply[0].bhs[0], reply[0].get(16)),
        (1, 0x22, 50),
        "{reply:x?}"
    );
    reply[0].bhs[2]
}

#[test]
fn an_aborted_task_is_waited_for_and_not_answered() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &READ);
    let (tag, _) = rig.op();
    assert_eq!(rig.next(function(1, 0, 1)), [], "its operation is under way");
    let reply = rig.finish(tag, Ok(vec![pattern(0, 512)]));
    assert_eq!(response(&reply), 0, "and nothing else");
    assert_eq!(rig.finish(tag, Ok(vec![])), [], "a result too many is ignored");
    assert_eq!(rig.connection.in_flight(), 0);
}

#[test]
fn a_completion_before_the_abort_wins() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &READ);
    assert_eq!(rig.run()[0].bhs[0], 0x25);
    assert_eq!(response(&rig.next(function(1, 0, 1))), 1, "the task does not exist");
}

#[test]
fn a_write_aborted_while_its_data_is_awaited_never_executes() {
    let mut rig = Rig::logged_in("");
    let r2t = rig.command(0xA0, 1, 512, &WRITE).remove(0);
    assert_eq!(response(&rig.next(function(1, 0, 1))), 0);
    let late = Raw::new(0x05, 0x80).word(16, 1).word(20, r2t.get(20)).with(&[1; 512]);
    assert_eq!(rig.send(&late), Ok(vec![]));
    assert_eq!(rig.actions, []);
    assert_eq!(rig.connection.in_flight_bytes(), 0);
    let r2t = rig.command(0xA0, 1, 512, &WRITE).remove(0);
    assert_eq!(
        rig.send(&late),
        Ok(vec![]),
        "nor does it write for the next with the same tag"
    );
    assert_eq!((rig.actions.len(), r2t.bhs[0]), (0, 0x31));
}

#[test]
fn a_task_that_waits_for_memory_is_dropped() {
    let mut rig = Rig::logged_in("");
    for itt in 0..66 {
        rig.command(0xC0, itt, 1 << 20, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    }
    assert_eq!(response(&rig.next(function(1, 0, 64))), 0);
    let (tag, _) = rig.op();
    rig.finish(tag, Err(BackendError::Io));
    assert_eq!(rig.actions.len(), 64, "the one after it");
    let (tag, _) = rig.op();
    rig.finish(tag, Err(BackendError::Io));
    assert_eq!(rig.actions.len(), 63);
}

#[test]
fn sets_and_resets_wait_for_all_of_their_tasks() {
    for code in [2, 4, 5, 6] {
        let mut rig = Rig::logged_in("");
        rig.command(0xC0, 1, 512, &READ);
        rig.command(0xC0, 2, 512, &READ);
        rig.command(0xA0, 3, 512, &WRITE);
        let (first, second) = (rig.op().0, rig.op().0);
        assert_eq!(rig.next(function(code, 0, 0)), []);
        let reset = match code {
            5 => vec![Action::Reset {
                target: 1,
                lun: Some(0),
            }],
            6 => vec![Action::Reset { target: 1, lun: None }],
            _ => vec![],
        };
        assert_eq!(std::mem::take(&mut rig.actions), reset);
        assert_eq!(rig.finish(second, Ok(vec![])), []);
        assert_eq!(response(&rig.finish(first, Err(BackendError::Io))), 0, "{code}");
        let next = rig.command(0x80, 4, 0, &[0; 6]).remove(0);
        assert_eq!(
            next.bhs[3],
            if code >= 5 { 2 } else { 0 },
            "a reset raises a unit attention"
        );
    }
}

#[test]
fn a_cold_reset_ends_the_connection() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &READ);
    let (tag, _) = rig.op();
    assert_eq!(rig.next(function(7, 0, 0)), []);
    assert_eq!(response(&rig.finish(tag, Ok(vec![]))), 0);
    assert!(rig.connection.is_finished());
}

#[test]
fn functions_that_have_nothing_to_do() {
    let mut rig = Rig::logged_in("");
    for (code, lun, want) in [
        (1, 0, 1),
        (2, 0, 0),
        (2, 1, 2),
        (4, 1, 2),
        (5, 9, 2),
        (3, 0, 5),
        (8, 0, 4),
        (99, 0, 5),
    ] {
        assert_eq!(response(&rig.next(function(code, lun, 77))), want, "function {code}");
    }
}

#[test]
fn two_functions_may_wait_for_the_same_task() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &READ);
    let (tag, _) = rig.op();
    assert_eq!(rig.next(function(1, 0, 1)), []);
    assert_eq!(rig.next(function(5, 0, 0).word(16, 51)), []);
    let reply = rig.finish(tag, Ok(vec![]));
    assert_eq!(reply.iter().map(|pdu| pdu.get(16)).collect::<Vec<_>>(), [50, 51]);
}

#[test]
fn a_reset_by_another_connection_ends_tasks_silently() {
    let mut rig = Rig::logged_in("");
    rig.command(0xC0, 1, 512, &READ);
    let (tag, _) = rig.op();
    let mut out = Vec::new();
    rig.connection.reset(Some(0), &SmallTarget, &mut out, &mut rig.actions);
    assert!(out.is_empty());
    assert_eq!(rig.finish(tag, Ok(vec![pattern(0, 512)])), []);
    assert_eq!(rig.command(0x80, 2, 0, &[0; 6])[0].sense(), (6, 0x29, 3));
}

/// Every order of abort, completion and data of many tasks: each task is answered at most once, each function exactly once and
/// only when its tasks are gone.
#[test]
fn aborts_race_completions() {
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut rig = Rig::logged_in("");
    let (mut ops, mut itt) = (Vec::new(), 1000u32);
    let (mut functions, mut answered) = (0, 0);
    for _ in 0..20_000 {
        let mut replies = Vec::new();
        match random(4) {
            0 | 1 if ops.len() < 60 => {
                itt += 1;
                replies = rig.command(0xC0, itt, 512, &READ);
                ops.append(&mut rig.actions);
            }
            2 => {
                functions += 1;
                let referenced = itt - u32::try_from(random(60)).unwrap();
                replies = rig.next(function(if random(10) == 0 { 2 } else { 1 }, 0, referenced));
            }
            _ if !ops.is_empty() => {
                let index = usize::try_from(random(ops.len() as u64)).unwrap();
                let Action::Io { tag, .. } = ops.swap_remove(index) else {
                    panic!("not an operation")
                };
                replies = rig.finish(tag, Ok(vec![pattern(0, 512)]));
            }
            _ => {}
        }
        answered += replies.iter().filter(|pdu| pdu.bhs[0] == 0x22).count();
        assert!(replies.iter().all(|pdu| matches!(pdu.bhs[0], 0x22 | 0x25)));
    }
    for action in ops {
        let Action::Io { tag, .. } = action else {
            panic!("not an operation")
        };
        answered += rig
            .finish(tag, Ok(vec![pattern(0, 512)]))
            .iter()
            .filter(|pdu| pdu.bhs[0] == 0x22)
            .count();
    }
    assert_eq!(
        (answered, rig.connection.in_flight(), rig.connection.in_flight_bytes()),
        (functions, 0, 0)
    );
}
