//! Changes that administrators make of what the cluster is made of: pools, OSDs, the placement tree, settings. What is shown
//! of it is in `overview`.
//!
//! Every change is one transaction (removing a pool takes two) that compares the revisions of what it was decided on, see
//! [`edits`]. Nothing here moves data: monitors plan on what is written, OSDs follow.

mod admin_keys;
mod adopt;
mod edits;
mod osds;
mod pools;
mod space;
mod tree;
mod unwell;

pub(crate) use admin_keys::AdminKeys;
pub(crate) use edits::Edits;
pub(crate) use osds::{no_osd, runs_elsewhere};
pub(crate) use pools::{NO_POOL, find_pool};
pub(crate) use space::Disks;
pub(crate) use tree::{domains, grow_tree};

use trivet_api::{AdminError, ErrorKind};

pub(crate) fn conflict(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorKind::Conflict, message)
}

pub(crate) fn not_found(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorKind::NotFound, message)
}

/// `1, 2, 3`; of many only the first ones, and how many more.
pub(crate) fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let mut text = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN {
        text.push_str(&format!(" and {} more", all.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed::<u32>([]), "");
        assert_eq!(listed([1, 2]), "1, 2");
        assert_eq!(listed(1..=9), "1, 2, 3, 4, 5, 6, 7, 8 and 1 more");
    }
}
