//! Ranges that are made empty: what is asked for, how much at once, and what ends it.

use std::collections::BTreeSet;

use super::*;
use turns::PACE;

/// Parts under way while nobody waits.
const TURNS: usize = PACE.busy;
const SIZE: u64 = OBJECT_SIZE as u64;

fn zero(offset: u64, len: u64) -> ImageOp {
    ImageOp::Zero { offset, len }
}

/// A pool of this many PGs in this generation, all of them served by OSD 1 but for those that are not.
fn numbered(revision: u64, generation: u16, pg_count: u32, unserved: &[u32]) -> Notice {
    let pool = Pool {
        name: "p".into(),
        replicas: 1,
        min_size: 1,
        pg_count,
        generation,
        ..Pool::default()
    };
    let mut keys = vec![(keys::pool(POOL), encode(&pool))];
    for number in (0..pg_count).filter(|number| !unserved.contains(number)) {
        let claim = Claim {
            primary: OsdId(1),
            epoch: Epoch(1),
            acting: vec![OsdId(1)],
            active: true,
            missing: 0,
        };
        let pg = PgId {
            pool: POOL,
            generation,
            number,
        };
        keys.push((keys::claim(pg), encode(&claim)));
        keys.push(history(pg, &[1]));
    }
    let keys = keys.into_iter().map(|(key, value)| KeyValue {
        key,
        value,
        mod_revision: revision,
    });
    let keys = keys.collect();
    Notice::Snapshot { revision, keys }
}

/// A client, and what there is of the image.
struct Scene {
    client: Client,
    objects: BTreeSet<u64>,
    /// Sent, and not answered.
    ops: Vec<Op>,
    done: Vec<Ticket>,
    /// What was changed, in order: which object, and how many bytes of it.
    changed: Vec<(u64, usize)>,
    lists: usize,
}

impl Scene {
    fn new(objects: impl IntoIterator<Item = u64>) -> Scene {
        Scene::with(Client::new(ClientId(5)), objects)
    }

    fn with(mut client: Client, objects: impl IntoIterator<Item = u64>) -> Scene {
        client.notice(Now(0), &claims(1, 1, true), &mut Vec::new());
        Scene {
            client,
            objects: objects.into_iter().collect(),
            ops: Vec::new(),
            done: Vec::new(),
            changed: Vec::new(),
            lists: 0,
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Client, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        act(&mut self.client, &mut out);
        self.ops.extend(sent(&mut out).into_iter().map(|(_, op)| op));
        self.done.extend(out.into_iter().map(|effect| match effect {
            Effect::Done(ticket, Ok(_)) => ticket,
            other => panic!("{other:?}"),
        }));
    }

    fn submit(&mut self, ticket: Ticket, op: ImageOp) {
        self.act(|client, out| client.submit(Now(0), ticket, image(), op, Caller::Own, out));
    }

    /// Executes and answers the oldest operation; false if there is none.
    fn answer(&mut self) -> bool {
        if self.ops.is_empty() {
            return false;
        }
        let op = self.ops.remove(0);
        let result = Ok(self.execute(op.pg, op.action));
        self.act(|client, out| answer(client, OsdId(1), op.id, result, out));
        true
    }

    fn execute(&mut self, pg: PgId, action: Action) -> OpValue {
        let len = match action {
            Action::Zero { len, .. } => len,
            Action::Remove { .. } => OBJECT_SIZE,
            Action::List { image, from, end } => {
                self.lists += 1;
                let numbering = self.client.map().numbering(POOL).unwrap();
                let own = |number: &&u64| {
                    ObjectId {
                        image,
                        number: **number,
                    }
                    .pg(numbering)
                        == pg
                };
                let numbers = self.objects.range(from..end).filter(own).copied();
                return OpValue::Objects(numbers.take(LIST_LIMIT).collect());
            }
            other => panic!("{other:?}"),
        };
        let number = action.object().unwrap().number;
        self.changed.push((number, len));
        if len == OBJECT_SIZE {
            self.objects.remove(&number);
        }
        OpValue::Changed
    }

    /// Answers everything; the largest number of operations that were under way.
    fn run(&mut self) -> usize {
        let mut most = self.ops.len();
        while self.answer() {
            most = most.max(self.ops.len());
        }
        most
    }
}

#[test]
fn a_few_objects_are_zeroed_without_asking_and_more_at_the_cost_of_what_there_is() {
    // Four PGs.
    for (objects, lists, changes) in [(16, 0, 16), (17, 4, 3), (1 << 30, 4, 4), ((1 << 46) - 2, 4, 5)] {
        let mut scene = Scene::new([0, 3, 9, 17, 1 << 20, 1 << 40]);
        scene.submit(1, zero(SIZE, objects * SIZE));
        scene.run();
        assert_eq!(
            (scene.lists, scene.changed.len()),
            (lists, changes),
            "{objects} objects"
        );
        assert_eq!(scene.done, [1]);
        let left = scene.objects.range(1..=objects).count();
        assert_eq!((left, scene.objects.contains(&0)), (0, true), "{objects} objects");
    }
}

#[test]
fn the_ends_of_a_range_are_zeroed_in_part() {
    let mut scene = Scene::new(0..100);
    scene.submit(1, zero(10 * SIZE + 100, 50 * SIZE));
    scene.run();
    let parts: BTreeSet<_> = scene.changed.iter().filter(|(_, len)| *len < OBJECT_SIZE).collect();
    assert_eq!(parts, [&(10, OBJECT_SIZE - 100), &(60, 100)].into());
    let whole: Vec<u64> = (0..=10).chain(60..100).collect();
    assert_eq!(scene.objects.iter().copied().collect::<Vec<u64>>(), whole);
}

#[test]
fn sweeps_have_few_parts_under_way_however_many_they_are_and_whatever_they_find() {
    let mut scene = Scene::new(0..10_000);
    for ticket in 0..50 {
        scene.submit(ticket, zero(ticket * 100 * SIZE, 100 * SIZE));
    }
    scene.submit(50, ImageOp::Purge);
    let most = scene.run();
    assert_eq!((most, scene.done.len()), (TURNS, 51));
    assert!(scene.objects.is_empty());
}

#[test]
fn whoever_finds_little_does_not_wait_for_whoever_finds_much() {
    let mut scene = Scene::new(100..5000);
    scene.submit(1, zero(100 * SIZE, 4900 * SIZE));
    scene.submit(2, zero(1 << 40, 1 << 50));
    scene.run();
    assert_eq!(scene.done, [2, 1]);
    let before = scene.changed.len();
    assert_eq!(before, 4900);
}

#[test]
fn a_pg_that_nobody_serves_holds_up_only_those_that_ask_it() {
    let mut scene = Scene::new([]);
    scene.act(|client, out| client.notice(Now(0), &numbered(2, 0, 4, &[3]), out));
    for ticket in 0..100 {
        scene.submit(ticket, zero(0, 1 << 40));
    }
    scene.run();
    assert!(scene.done.is_empty());
    assert_eq!(scene.client.in_flight(), TURNS, "each of them waits for the PG");
    // What waits for it comes to count no more: those who have not asked it go on.
    for second in 1..10 {
        scene.act(|client, out| client.tick(millis(second * 1000), out));
        scene.run();
    }
    assert_eq!((scene.lists, scene.client.in_flight()), (300, 100));
    assert_eq!(scene.client.waits(7).map(|(_, pg)| pg.number), Some(3));
    scene.act(|client, out| client.notice(millis(20_000), &numbered(3, 0, 4, &[]), out));
    scene.run();
    assert_eq!((scene.done.len(), scene.client.in_flight()), (100, 0));
}

#[test]
fn what_is_stopped_ends_when_what_is_under_way_is_answered() {
    let mut scene = Scene::new(0..1000);
    scene.submit(1, zero(0, 1000 * SIZE));
    scene.submit(2, zero(1 << 40, 1 << 40));
    assert!((0..100).all(|_| scene.answer()));
    scene.act(|client, out| client.stop(1, out));
    assert_eq!(scene.done, [2]);
    let changed = scene.changed.len();
    scene.run();
    assert_eq!(scene.done, [2, 1]);
    assert!(scene.changed.len() <= changed + TURNS && scene.objects.len() > 800);
    scene.act(|client, out| client.stop(1, out));
    assert_eq!(scene.client.in_flight(), 0);
    // One that has nothing under way is over at once.
    scene.act(|client, out| client.notice(Now(0), &numbered(9, 0, 4, &[0, 1, 2, 3]), out));
    (3..TURNS as u64 + 4).for_each(|ticket| scene.submit(ticket, zero(0, 1 << 50)));
    scene.act(|client, out| client.stop(TURNS as u64 + 3, out));
    assert_eq!(scene.done, [2, 1, TURNS as u64 + 3]);
}

#[test]
fn how_long_nothing_moved_is_told() {
    let mut scene = Scene::new([5]);
    assert_eq!(scene.client.waits(1), None);
    scene.submit(1, zero(0, 100 * SIZE));
    let (since, _) = scene.client.waits(1).unwrap();
    assert_eq!(since, Now(0));
    let op = scene.ops.remove(0);
    let value = scene.execute(op.pg, op.action);
    let done = Message::OpDone(OpDone {
        id: op.id,
        result: Ok(value),
        tick: Tick::default(),
    });
    scene.act(|client, out| client.message(millis(700), OsdId(1), done, out));
    assert_eq!(scene.client.waits(1).map(|(since, _)| since), Some(millis(700)));
}

/// What is left after a sweep during which the number of PGs changed, after this many answers.
fn left_after_renumbering(client: Client, answers: usize) -> usize {
    let mut scene = Scene::with(client, (0..60).map(|number| number * 3));
    scene.submit(1, zero(0, 200 * SIZE));
    assert!((0..answers).all(|_| scene.answer()));
    scene.act(|client, out| client.notice(Now(0), &numbered(7, 1, 16, &[]), out));
    // Lists that were under way are dropped, everything else goes to other PGs.
    scene.ops.retain(|op| op.pg.generation == 1);
    scene.act(|client, out| client.tick(millis(1000), out));
    scene.run();
    assert_eq!(scene.done, [1]);
    scene.objects.len()
}

#[test]
fn another_number_of_pgs_hides_nothing() {
    // Four lists, sixty objects.
    for answers in 0..64 {
        assert_eq!(
            left_after_renumbering(Client::new(ClientId(5)), answers),
            0,
            "{answers}"
        );
    }
    let half = || Client::with_mutant(ClientId(5), Mutant::SweepHalf);
    assert!(left_after_renumbering(half(), 1) > 0, "the deliberate bug shows");
}

#[test]
fn whoever_waits_for_a_turn_asks_the_pgs_that_there_are_by_then() {
    let mut scene = Scene::new([]);
    // Of four PGs each: more than have a turn.
    let tickets: Vec<Ticket> = (1..=8).collect();
    for &ticket in &tickets {
        scene.submit(ticket, ImageOp::Purge);
    }
    assert!(scene.ops.len() < 32);
    for (revision, pg_count) in [(7, 6), (8, 3)] {
        let generation = u16::try_from(revision).unwrap();
        scene.act(|client, out| client.notice(Now(0), &numbered(revision, generation, pg_count, &[]), out));
        scene.ops.retain(|op| op.pg.generation == generation);
    }
    scene.act(|client, out| client.tick(millis(1000), out));
    scene.run();
    scene.done.sort_unstable();
    assert_eq!(scene.done, tickets);
}

/// The pool's four PGs act in an epoch, with a history each that names these.
fn acting(revision: u64, epoch: u64, histories: [&[u64]; 4]) -> Notice {
    let Notice::Snapshot { keys: mut list, .. } = claims(1, epoch, true) else {
        unreachable!("the mirror begins with a snapshot");
    };
    for (number, epochs) in (0..).zip(histories) {
        let (key, value) = history(PgId::first(POOL, number), epochs);
        let kv = list.iter_mut().find(|kv| kv.key == key).unwrap();
        kv.value = value;
    }
    list.iter_mut().for_each(|kv| kv.mod_revision = revision);
    Notice::Snapshot { revision, keys: list }
}

/// A removal during epoch 5, by a client without or with a deliberate bug; PG 2 is not clean, for it has a history.
fn removal_while_unclean(client: Client) -> Scene {
    let mut scene = Scene::with(client, 0..20);
    scene.act(|client, out| client.notice(Now(0), &acting(2, 5, [&[5], &[5], &[3, 5], &[5]]), out));
    scene.submit(1, ImageOp::Purge);
    scene.run();
    assert!(scene.objects.is_empty(), "what there is goes at once");
    scene
}

/// A second later the histories are these.
fn comes_to(scene: &mut Scene, second: u64, epoch: u64, histories: [&[u64]; 4]) {
    let revision = second + 2;
    scene.act(|client, out| client.notice(millis(second * 1000), &acting(revision, epoch, histories), out));
    scene.act(|client, out| client.tick(millis(second * 1000), out));
}

#[test]
fn a_removal_is_over_when_nothing_can_come_back() {
    let mut scene = removal_while_unclean(Client::new(ClientId(5)));
    assert_eq!((scene.lists, scene.client.in_flight()), (4, 0));
    assert!(scene.done.is_empty() && scene.client.is_swept(1));
    assert_eq!(scene.client.waits(1), None, "it is not stuck");
    // The PG becomes clean in the epoch in which it did all that: nothing is asked again.
    comes_to(&mut scene, 1, 5, [&[5]; 4]);
    assert_eq!((&scene.done[..], scene.lists), (&[1][..], 4));
    assert!(!scene.client.is_swept(1));
}

#[test]
fn what_an_osd_brings_back_after_a_removal_goes_too() {
    let mut scene = removal_while_unclean(Client::new(ClientId(5)));
    // In the next epoch somebody is heard who has more. Until that is clean, nobody needs to be asked.
    let pg = PgId::first(POOL, 2);
    let numbering = scene.client.map().numbering(POOL).unwrap();
    let own = |number: &u64| {
        ObjectId {
            image: image(),
            number: *number,
        }
        .pg(numbering)
            == pg
    };
    let back: Vec<u64> = (0..20).filter(own).collect();
    scene.objects.extend(&back);
    comes_to(&mut scene, 1, 6, [&[5], &[5], &[3, 5, 6], &[5]]);
    assert_eq!((scene.done.len(), scene.ops.len()), (0, 0));
    comes_to(&mut scene, 2, 6, [&[5], &[5], &[6], &[5]]);
    assert!(!scene.client.is_swept(1));
    scene.run();
    assert_eq!((&scene.done[..], scene.lists, scene.objects.len()), (&[1][..], 5, 0));
    assert!(!back.is_empty());

    let bug = Client::with_mutant(ClientId(5), Mutant::PurgeUnclean);
    assert_eq!(removal_while_unclean(bug).done, [1], "the deliberate bug shows");
}

#[test]
fn a_pg_that_is_never_clean_keeps_no_other_from_being_asked_again() {
    let mut scene = Scene::new(0..20);
    scene.act(|client, out| client.notice(Now(0), &acting(2, 5, [&[3, 5], &[5], &[3, 5], &[5]]), out));
    scene.submit(1, ImageOp::Purge);
    scene.run();
    comes_to(&mut scene, 1, 6, [&[3, 5], &[5], &[6], &[5]]);
    scene.run();
    assert_eq!((scene.lists, scene.done.len()), (5, 0));
}

#[test]
fn a_removal_asks_pgs_of_another_number_for_what_they_inherited() {
    let mut scene = removal_while_unclean(Client::new(ClientId(5)));
    scene.objects.extend([3, 4]);
    scene.act(|client, out| client.notice(Now(0), &numbered(7, 1, 16, &[]), out));
    scene.run();
    assert_eq!((&scene.done[..], scene.lists, scene.objects.len()), (&[1][..], 20, 0));
}

/// Whatever is asked again in a later epoch with the same identifiers may have been done in that one, whose primary need not
/// know what the first one knew.
#[test]
fn what_was_asked_in_two_epochs_counts_for_neither() {
    for (objects, answered) in [(0, 0), (20, 4)] {
        let mut scene = Scene::new(0..objects);
        scene.act(|client, out| client.notice(Now(0), &acting(2, 3, [&[3]; 4]), out));
        scene.submit(1, ImageOp::Purge);
        // The lists, or removals, are under way.
        assert!((0..answered).all(|_| scene.answer()));
        let first = scene.ops.len();
        comes_to(&mut scene, 1, 4, [&[3, 4]; 4]);
        scene.ops.drain(..first);
        scene.run();
        assert!(scene.done.is_empty() && scene.client.is_swept(1), "{objects} objects");
        comes_to(&mut scene, 2, 4, [&[4]; 4]);
        scene.run();
        assert_eq!((&scene.done[..], scene.lists), (&[1][..], 8), "{objects} objects");
    }
}
