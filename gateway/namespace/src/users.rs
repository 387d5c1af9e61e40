//! Which gateways change the bytes of which images (`vfs/use/<image>/<client>`), and whether they have agreed to what takes
//! bytes away.
//!
//! A gateway takes its key, in a transaction that compares the inode as the gateway knows it, before it changes the first
//! byte; so whoever truncates or removes the image sees either the key, or that the gateway has seen the truncation. A
//! truncation is known by the ctime that it gave the inode ([`crate::Inode::cut`]). A gateway writes that into its key when
//! all that it began before has ended; with the last name's removal it deletes the key. Then data may go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trivet_core::kv::{Change, Compare, Revision, Txn};
use trivet_core::{ClientId, ImageId};

use crate::author::Author;
use crate::inode::{self, Inode, Time, Trimming};
use crate::keys;
use crate::mirror::Namespace;

/// The value of a `vfs/use/` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UseValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agreed: Option<Time>,
}

/// A gateway's use of an image, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The last truncation before which nothing of this gateway is under way any more; none if there was none.
    pub agreed: Option<Time>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// All uses in the store, as of the mirror's commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Users(BTreeMap<ImageId, BTreeMap<ClientId, Use>>);

impl Users {
    pub(crate) fn put(&mut self, image: ImageId, client: ClientId, value: UseValue, revision: Revision) {
        let agreed = value.agreed;
        self.0
            .entry(image)
            .or_default()
            .insert(client, Use { agreed, revision });
    }

    pub(crate) fn remove(&mut self, image: ImageId, client: ClientId) {
        if let Some(users) = self.0.get_mut(&image) {
            users.remove(&client);
            if users.is_empty() {
                self.0.remove(&image);
            }
        }
    }
}

impl Namespace {
    /// All uses: image and gateway.
    pub fn uses(&self) -> impl Iterator<Item = (ImageId, ClientId)> {
        let users = self.users.0.iter();
        users.flat_map(|(&image, users)| users.keys().map(move |&client| (image, client)))
    }

    /// Whether any gateway changes the image's bytes.
    #[must_use]
    pub fn is_used(&self, image: ImageId) -> bool {
        self.users.0.contains_key(&image)
    }

    /// A gateway's use of an image.
    #[must_use]
    pub fn use_of(&self, image: ImageId, client: ClientId) -> Option<Use> {
        self.users.0.get(&image)?.get(&client).copied()
    }

    /// Whether all users of an image other than `client` have agreed to its last truncation.
    #[must_use]
    pub fn others_agree(&self, image: ImageId, client: ClientId) -> bool {
        let cut = self.inode(image).and_then(|inode| inode.cut);
        let mut others = self
            .users
            .0
            .get(&image)
            .into_iter()
            .flatten()
            .filter(|(id, _)| **id != client);
        others.all(|(_, usage)| usage.agreed == cut)
    }
}

/// The image whose inode or use a key is about.
#[must_use]
pub fn image_of(key: &str) -> Option<ImageId> {
    match keys::parse(key)? {
        keys::Key::Inode(image) | keys::Key::Use(image, _) => Some(image),
        _ => None,
    }
}

impl Author {
    /// The transaction by which this gateway begins to use an image; none if there is no such image.
    #[must_use]
    pub fn take(&self, namespace: &Namespace, image: ImageId) -> Option<Txn> {
        let (inode, revision) = namespace.known(image).ok()?;
        let key = keys::usage(image, self.client);
        let mut compare = self.compares().to_vec();
        compare.push(Compare::ModRevision(keys::inode(image), revision));
        compare.push(Compare::Absent(key.clone()));
        let value = UseValue { agreed: inode.cut };
        Some(Txn {
            compare,
            changes: vec![Change::put(key, inode::encode(&value))],
        })
    }

    /// The transaction that says that nothing is under way any more that began before the image's last truncation, which is
    /// to take everything up to the byte `beyond`: so far this gateway may have written beyond the size. None if there is no
    /// such image.
    #[must_use]
    pub fn agree(&self, namespace: &Namespace, image: ImageId, usage: Use, beyond: u64) -> Option<Txn> {
        let (inode, revision) = namespace.known(image).ok()?;
        let key = keys::usage(image, self.client);
        let value = UseValue { agreed: inode.cut };
        let mut txn = Txn {
            compare: vec![Compare::ModRevision(key.clone(), usage.revision)],
            changes: vec![Change::put(key, inode::encode(&value))],
        };
        if let Some(trimming) = inode.trimming.filter(|trimming| beyond > trimming.to) {
            let key = keys::inode(image);
            txn.compare.push(Compare::ModRevision(key.clone(), revision));
            let trimming = Some(Trimming { to: beyond, ..trimming });
            let inode = Inode {
                trimming,
                ..inode.clone()
            };
            txn.changes.push(Change::put(key, inode::encode(&inode)));
        }
        Some(txn)
    }

    /// The transaction by which this gateway ends its use of an image.
    #[must_use]
    pub fn leave(&self, image: ImageId, usage: Use) -> Txn {
        let key = keys::usage(image, self.client);
        Txn {
            compare: vec![Compare::ModRevision(key.clone(), usage.revision)],
            changes: vec![Change::Delete(key)],
        }
    }
}
