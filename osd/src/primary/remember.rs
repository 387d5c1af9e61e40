//! Room for the operations that an object remembers. None is forgotten that its client may still repeat: an operation
//! for which there is no room waits.
//!
//! While the list is short, operations run in any order. In a crowded one only those run that are the next of their
//! client: all before them were answered or are part of the object, so one entry is enough for the client, and what it
//! had makes way. The operations of one object that run at the same time touch different units: their entries fit, too.

use trivet_core::message::Op;
use trivet_core::mutation::{MARK, MAX_OPS, Ops};
use trivet_core::{ClientId, ObjectId, OpId};

use crate::ctx::Ctx;
use crate::node::clients::ClientTable;
use crate::options::mutant;
use crate::primary::queue::{ObjectQueue, Stage};

/// Beyond so many entries a list is crowded. What was admitted before, and has no version yet, may add as many again.
const CROWDED: usize = MAX_OPS / 2;

/// From so many entries on, clients make way that need not be remembered: stores have room for few entries per object.
const FEW: usize = 4;

/// What an operation adds at most: itself, and the bound of its client.
const GROWTH: usize = 2;

/// Clients that a deliberate bug remembers.
const REMEMBERED: usize = 8;

/// What an object has room for beside what runs on it.
enum Room {
    /// Any operation.
    Any,
    /// Its list is crowded, and so long when all that runs is part of it.
    Crowded(usize),
}

impl Room {
    /// Whether there is room for the operation.
    fn takes(&self, queue: &ObjectQueue, op: &Op) -> bool {
        let Room::Crowded(after) = self else { return true };
        let is_next = queue.known_below(op) == op.id.sequence;
        after + GROWTH <= CROWDED || is_next && *after < MAX_OPS
    }
}

/// The test whether an object can remember an operation that begins now.
pub(crate) fn room_to_remember<'a>(
    ctx: &'a Ctx,
    object: ObjectId,
    queue: &'a ObjectQueue,
) -> impl Fn(&Op) -> bool + 'a {
    let room = room(ctx, object, queue);
    // What is part of the object already is only answered.
    move |op| room.takes(queue, op) || ctx.store.executed(object, op.id) || mutant!(ctx.options, ForgetClients)
}

fn room(ctx: &Ctx, object: ObjectId, queue: &ObjectQueue) -> Room {
    let growing = queue
        .running
        .iter()
        .filter(|running| running.op.action.is_mutation())
        .count();
    if ctx.store.remembered(object) + GROWTH * (growing + 1) <= CROWDED {
        return Room::Any;
    }
    let unversioned = queue
        .running
        .iter()
        .filter(|running| matches!(running.stage, Stage::Merging(_)));
    Room::Crowded(list_of(ctx, object, queue).len() + GROWTH * unversioned.count())
}

/// What the mutation of a running operation makes of the list; none if somebody would be forgotten for it.
/// `names_list`: members have to be told all of it. `deletes` whatever there is: it has the object for itself, and
/// leaves a short list.
pub(crate) fn remember(
    ctx: &Ctx,
    object: ObjectId,
    queue: &ObjectQueue,
    op_id: OpId,
    deletes: bool,
    names_list: bool,
) -> Option<Ops> {
    let ops = Ops::Add {
        op: op_id,
        answered: queue.known_below(&queue.get_running(op_id).op),
    };
    let is_short = ctx.store.remembered(object) + GROWTH * (queue.running.len() + 1) <= CROWDED;
    let names_list = names_list || !is_short || has_settled(ctx, object);
    if !names_list && !mutant!(ctx.options, ForgetClients) {
        return Some(ops);
    }
    let mut list = list_of(ctx, object, queue);
    if mutant!(ctx.options, ForgetClients) {
        forget_oldest_clients(&mut list, op_id.client);
    }
    let others = |list: &[OpId]| list.iter().filter(|op| op.client != op_id.client).count();
    let before = others(&list);
    ops.apply(&mut list);
    (others(&list) == before).then_some(Ops::Exactly(if deletes { Ops::bounds(&list) } else { list }))
}

/// Whether the object remembers what need not be remembered.
fn has_settled(ctx: &Ctx, object: ObjectId) -> bool {
    if ctx.store.remembered(object) <= FEW {
        return false;
    }
    let list = ctx.store.ops(object);
    list.iter()
        .any(|op| ctx.is_fenced(op.client) || is_settled(&list, op.client, &ctx.clients))
}

/// What the object remembers when all that is on its way is part of it, but for clients that have all answers.
fn list_of(ctx: &Ctx, object: ObjectId, queue: &ObjectQueue) -> Vec<OpId> {
    let mut list = ctx.store.ops(object);
    queue.apply_under_way(ctx.durable(object), &mut list);
    drop_settled(&mut list, &ctx.clients);
    list.retain(|op| !ctx.is_fenced(op.client));
    list
}

/// Whether a client says that it has the answers to everything that a list remembers of it: it will not repeat that.
/// Late copies are known here as settled, and elsewhere they are of an earlier epoch.
fn is_settled(list: &[OpId], client: ClientId, clients: &ClientTable) -> bool {
    let own = list.iter().filter(|op| op.client == client);
    let last = own.map(|op| op.sequence & !MARK).max();
    last.is_some_and(|last| last < clients.settled(client))
}

fn drop_settled(list: &mut Vec<OpId>, clients: &ClientTable) {
    let settled: Vec<bool> = list.iter().map(|op| is_settled(list, op.client, clients)).collect();
    let mut settled = settled.into_iter();
    list.retain(|_| settled.next() != Some(true));
}

/// A deliberate bug: of many clients the oldest are forgotten.
fn forget_oldest_clients(list: &mut Vec<OpId>, client: ClientId) {
    loop {
        let mut clients: Vec<ClientId> = Vec::new();
        list.iter().map(|op| op.client).for_each(|client| {
            if !clients.contains(&client) {
                clients.push(client);
            }
        });
        let oldest = clients.iter().copied().find(|oldest| *oldest != client);
        let Some(oldest) = oldest.filter(|_| clients.len() > REMEMBERED) else {
            return;
        };
        list.retain(|op| op.client != oldest);
    }
}

#[cfg(test)]
mod tests {
    use trivet_core::message::Action;
    use trivet_core::{Epoch, Now, PgId, Tick};

    use super::*;

    fn id(client: u64, sequence: u64) -> OpId {
        OpId {
            client: ClientId(client),
            sequence,
        }
    }

    fn op(client: u64, sequence: u64, previous: u64) -> Op {
        Op {
            id: id(client, sequence),
            pg: PgId::default(),
            epoch: Epoch(1),
            settled: 0,
            answered: 1,
            previous,
            stamp: Tick::default(),
            action: Action::Remove {
                object: ObjectId::default(),
            },
        }
    }

    #[test]
    fn in_a_crowded_list_only_the_next_of_a_client_runs() {
        let queue = ObjectQueue::default();
        // Entries, others on their way, the operation before it without an answer (0: none), whether it runs.
        let table = [
            (0, 0, 5, true),
            (CROWDED - 2, 0, 5, true),
            (CROWDED - 2, 1, 5, false),
            (CROWDED - 2, 1, 0, true),
            (CROWDED - 1, 0, 5, false),
            (MAX_OPS - 1, 0, 0, true),
            (MAX_OPS - 3, 1, 0, true),
            (MAX_OPS - 2, 1, 0, false),
            (MAX_OPS, 0, 0, false),
        ];
        for (len, others, previous, runs) in table {
            let room = Room::Crowded(len + GROWTH * others);
            assert_eq!(
                room.takes(&queue, &op(1, 9, previous)),
                runs,
                "{len} {others} {previous}"
            );
        }
    }

    #[test]
    fn who_has_all_answers_makes_way() {
        let mut clients = ClientTable::default();
        clients.heard(id(1, 9), 9, Now(0));
        clients.heard(id(2, 9), 8, Now(0));
        clients.heard(id(3, 9), 9, Now(0));
        let mut list = vec![id(1, 7), id(9, 1), id(1, 8), id(2, 5 | MARK), id(2, 8), id(3, 9 | MARK)];
        drop_settled(&mut list, &clients);
        let left = [id(9, 1), id(2, 5 | MARK), id(2, 8), id(3, 9 | MARK)];
        assert_eq!(list, left, "of 9 nothing is known, 2 has no answer to 8, nor 3 to 9");
    }
}
