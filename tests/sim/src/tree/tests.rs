use std::collections::BTreeSet;
use std::time::Duration;

use trivet_core::Now;

use super::model::{Answer, EXISTS, NO_ENTRY, Node, Tree, TreeOp};
use super::order::Order;

const DIR: Node = 9;

fn place(name: &str) -> (Node, String) {
    (DIR, name.to_owned())
}

fn create(name: &str) -> TreeOp {
    TreeOp::Create(place(name), None)
}

fn made(node: Node) -> Answer {
    Answer {
        node: Some(node),
        ..Answer::default()
    }
}

fn refused(status: u32) -> Answer {
    Answer {
        status,
        ..Answer::default()
    }
}

fn order() -> Order {
    let mut tree = Tree::default();
    tree.plant(DIR);
    Order::new(tree, Duration::from_secs(60))
}

/// Operations one after the other, each answered so at its second.
fn judge(script: &[(TreeOp, Answer)]) -> Result<(), String> {
    let mut order = order();
    for (number, (op, answer)) in (1..).zip(script) {
        order.begin(number, op.clone());
        let now = Now(number * 1_000_000_000);
        order.end(number, now, now, answer)?;
    }
    Ok(())
}

#[test]
fn what_happens_one_after_the_other_has_one_answer() {
    let (a, b) = (place("a"), place("b"));
    let right = [
        (create("a"), made(1)),
        (create("a"), refused(EXISTS)),
        (TreeOp::Rename(a.clone(), b.clone()), Answer::default()),
        (TreeOp::Lookup(a.clone()), refused(NO_ENTRY)),
        (TreeOp::Lookup(b.clone()), made(1)),
        (TreeOp::Link(1, a.clone()), Answer::default()),
        (TreeOp::Remove(b.clone()), Answer::default()),
        (TreeOp::Lookup(a), made(1)),
    ];
    judge(&right).unwrap();
    assert!(judge(&[(create("a"), refused(EXISTS))]).is_err(), "its own success");
    assert!(judge(&[(create("a"), made(1)), (create("a"), made(2))]).is_err());
    assert!(judge(&[(create("a"), made(1)), (TreeOp::Lookup(place("a")), made(2))]).is_err());
    assert!(judge(&[(TreeOp::Remove(b), Answer::default())]).is_err());
}

#[test]
fn what_is_under_way_together_happens_in_some_order() {
    let mut order = order();
    order.begin(1, create("a"));
    order.begin(2, TreeOp::Remove(place("a")));
    order.end(2, Now(1), Now(1), &Answer::default()).unwrap();
    order.begin(3, create("a"));
    order.end(3, Now(2), Now(2), &made(7)).unwrap();
    order.end(1, Now(3), Now(3), &made(5)).unwrap();
    order.begin(4, TreeOp::Lookup(place("a")));
    let answered = order.end(4, Now(5), Now(4), &made(5));
    assert!(answered.is_err(), "5 was removed before 7 was made");
}

#[test]
fn a_change_that_was_seen_cannot_be_refused_any_more() {
    let mut order = order();
    let now = Now(1);
    order.begin(1, create("a"));
    order.begin(2, TreeOp::Rename(place("a"), place("b")));
    order.end(2, now, now, &Answer::default()).unwrap();
    assert!(order.end(1, now, now, &refused(EXISTS)).is_err());
}

#[test]
fn mirrors_may_be_behind_as_far_as_they_are_known_to_be() {
    for (since, fine) in [(Now(0), true), (Now(2), false)] {
        let mut order = order();
        order.begin(1, create("a"));
        order.end(1, Now(1), Now(1), &made(5)).unwrap();
        order.begin(2, TreeOp::Lookup(place("a")));
        assert_eq!(order.end(2, Now(3), since, &refused(NO_ENTRY)).is_ok(), fine);
    }
}

#[test]
fn a_number_that_was_seen_may_be_of_what_is_under_way() {
    let mut order = order();
    let now = Now(1);
    order.begin(1, create("a"));
    order.begin(2, TreeOp::Lookup(place("a")));
    order.end(2, now, now, &made(5)).unwrap();
    order.begin(3, TreeOp::Link(5, place("b")));
    order.end(3, now, now, &Answer::default()).unwrap();
    order.begin(4, TreeOp::Link(5, place("a")));
    order.end(4, now, now, &refused(EXISTS)).unwrap();
    assert!(
        order.end(1, now, now, &made(6)).is_err(),
        "5 is there, and nothing else made it"
    );
}

#[test]
fn what_finds_nothing_to_do_is_answered_from_a_mirror() {
    let (a, b) = (place("a"), place("b"));
    let to_itself = TreeOp::Rename(a.clone(), a.clone());
    for (op, since, fine) in [
        (to_itself.clone(), Now(1), true),
        (to_itself, Now(3), false),
        (TreeOp::Rename(a.clone(), b), Now(1), false),
    ] {
        let mut order = order();
        order.begin(1, create("a"));
        order.end(1, Now(1), Now(1), &made(5)).unwrap();
        order.begin(2, TreeOp::Remove(a.clone()));
        order.end(2, Now(2), Now(2), &Answer::default()).unwrap();
        order.begin(3, op.clone());
        assert_eq!(
            order.end(3, Now(4), since, &Answer::default()).is_ok(),
            fine,
            "{op:?} {since:?}"
        );
    }
}

#[test]
fn what_was_put_back_happened_never_or_again() {
    let second = |seconds: u64| Now(seconds * 1_000_000_000);
    let answer = |order: &mut Order, number, op: TreeOp, answer: &Answer| {
        order.begin(number, op);
        order.end(number, second(number), second(number), answer)
    };
    let lookup = |name: &str| TreeOp::Lookup(place(name));
    let mut order = order();
    answer(&mut order, 1, create("a"), &made(1)).unwrap();
    order.back_up();
    answer(&mut order, 2, TreeOp::Remove(place("a")), &Answer::default()).unwrap();
    order.begin(3, create("b"));
    order.put_back(second(3));
    // What was answered is undone, what was not may be, or is done after it.
    answer(&mut order, 4, lookup("a"), &made(1)).unwrap();
    assert!(answer(&mut order, 5, lookup("a"), &refused(NO_ENTRY)).is_err());
    order.end(3, second(6), second(6), &made(3)).unwrap();
    let nodes: BTreeSet<usize> = order.trees().map(|tree| tree.nodes().count()).collect();
    assert_eq!(nodes, [2, 3].into(), "directory and a, and maybe b");
}

fn second(n: u64) -> Now {
    Now(n * 1_000_000_000)
}

/// A file was made and removed, of which not every gateway knows.
fn made_and_removed() -> Order {
    let mut order = order();
    order.begin(1, create("a"));
    order.end(1, second(1), second(1), &made(1)).unwrap();
    order.begin(2, TreeOp::Remove(place("a")));
    order.end(2, second(2), second(2), &Answer::default()).unwrap();
    order
}

#[test]
fn what_one_gateway_refuses_another_may_still_do() {
    let mut order = made_and_removed();
    // It does not know of the removal.
    order.begin(3, create("a"));
    order.refuse(3, second(3), second(1), &refused(EXISTS)).unwrap();
    for (number, found) in [(4, refused(NO_ENTRY)), (5, made(7))] {
        order.begin(number, TreeOp::Lookup(place("a")));
        let now = second(number);
        order.end(number, now, now, &found).unwrap();
    }
    order.forget(3);
    order.begin(6, TreeOp::Remove(place("a")));
    order.end(6, second(6), second(6), &Answer::default()).unwrap();
    order.begin(7, TreeOp::Lookup(place("a")));
    order.end(7, second(7), second(7), &made(7)).unwrap_err();
}

#[test]
fn what_one_gateway_refuses_another_may_have_done() {
    let mut order = made_and_removed();
    order.begin(3, create("a"));
    order.begin(4, TreeOp::Remove(place("a")));
    order.end(4, second(3), second(3), &Answer::default()).unwrap();
    order.refuse(3, second(4), second(1), &refused(EXISTS)).unwrap();
    order.forget(3);
    order.begin(5, TreeOp::Lookup(place("a")));
    order.end(5, second(5), second(5), &refused(NO_ENTRY)).unwrap();
}
