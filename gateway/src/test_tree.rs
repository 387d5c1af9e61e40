//! Trees of names for tests, made by the planners themselves.

use trivet_core::kv::{Change, Event, KeyValue, Notice, Txn};
use trivet_core::{ClientId, ImageId};
use trivet_namespace::{Caller, Context, Namespace, Numbers, Operation, Time};

/// A tree that holds one image.
pub(crate) fn with_image(path: &str, image: ImageId, size: u64) -> Namespace {
    let mut tree = Namespace::default();
    commit(&mut tree, 1, &Namespace::bootstrap(Time::default()));
    let mut numbers = Numbers::default();
    let number = image.0 & ((1 << 48) - 1);
    numbers.add(number, number + 1);
    let context = Context {
        caller: Caller::root(),
        now: Time::default(),
        pool: Some(image.pool()),
        gateway: ClientId(1),
    };
    let operation = Operation::CreateImage {
        path: path.into(),
        size,
    };
    let plan = tree
        .plan(&operation, &context, &mut numbers)
        .expect("an image in an empty tree");
    commit(&mut tree, 2, &plan.txn);
    tree
}

/// Lets a tree see a transaction as committed.
pub(crate) fn commit(tree: &mut Namespace, revision: u64, txn: &Txn) {
    let event = |change: &Change| match change {
        Change::Put { key, value, .. } => Event::Put(KeyValue {
            key: key.clone(),
            value: value.clone(),
            mod_revision: revision,
        }),
        Change::Delete(key) => Event::Delete {
            key: key.clone(),
            revision,
        },
    };
    let events = txn.changes.iter().map(event).collect();
    tree.apply(&Notice::Changes { revision, events });
}
