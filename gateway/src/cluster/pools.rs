//! Pools: making, changing, removing them; and which one images go to.
//!
//! A pool is removed in two steps, for an image might be made in it by another gateway meanwhile: a mark keeps new images
//! out ([`Gateway::new_file_guard`]), and when this mirror has the mark, it has every image that came before it. What else is left of the pool (plan, claims, histories) is the monitor's
//! to clear.

use std::collections::BTreeSet;

use trivet_api::{AdminError, CreatePool, DEFAULT_PGS, ErrorKind, MAX_PGS, PatchPool, counted, valid_copies};
use trivet_core::keys::{self, LEVEL_HOST, LEVEL_OSD, Pool};
use trivet_core::kv::{Change, Compare};
use trivet_core::map::{ClusterMap, Versioned, encode};
use trivet_core::{Numbering, OsdId, PoolId};

use super::admin_keys::removing_key;
use super::edits::{Planned, Then};
use super::tree::{Places, level_exists};
use super::{conflict, listed, not_found};
use crate::gateway::Gateway;

/// By name or id.
///
/// # Errors
/// `NotFound`, with the pools that there are.
pub(crate) fn find_pool<'a>(map: &'a ClusterMap, text: &str) -> Result<(PoolId, &'a Versioned<Pool>), AdminError> {
    let pools = &map.pools;
    let named = pools.iter().find(|(_, pool)| pool.value.name == text);
    let numbered = || {
        let id = PoolId(text.parse().ok()?);
        pools.get_key_value(&id)
    };
    let (id, pool) = named.or_else(numbered).ok_or_else(|| {
        not_found(if pools.is_empty() {
            NO_POOL.to_owned()
        } else {
            let names = listed(pools.values().map(|pool| &pool.value.name));
            format!("no pool {text}; there are: {names}")
        })
    })?;
    Ok((*id, pool))
}

/// How to come by a pool.
pub(crate) const NO_POOL: &str = "there is no pool yet; make one with 'trivet pool create NAME --replicas 2'";

impl Gateway {
    /// The pool that new images go to when nobody names one.
    pub(crate) fn default_pool(&self) -> Option<PoolId> {
        self.client
            .map()
            .pools
            .keys()
            .copied()
            .find(|&pool| self.takes_images(pool))
    }

    /// Whether images can be made in the pool.
    pub(crate) fn takes_images(&self, pool: PoolId) -> bool {
        self.client.map().pools.contains_key(&pool) && self.edits.admin_keys.removing(pool).is_none()
    }

    /// What a transaction that puts a file into a pool has to compare.
    pub(crate) fn new_file_guard(pool: PoolId) -> [Compare; 2] {
        [Compare::Exists(keys::pool(pool)), Compare::Absent(removing_key(pool))]
    }

    /// The pool that an administrator names, for a new image.
    pub(crate) fn pool_for_images(&self, text: &str) -> Result<PoolId, AdminError> {
        let (id, _) = find_pool(self.client.map(), text)?;
        if self.takes_images(id) {
            Ok(id)
        } else {
            Err(conflict(format!("pool {text} is being removed; choose another one")))
        }
    }

    pub(super) fn plan_pool_create(&self, wanted: &CreatePool) -> Result<Planned, AdminError> {
        let map = self.client.map();
        if map.pools.values().any(|pool| pool.value.name == wanted.name) {
            return Err(AdminError::new(
                ErrorKind::Exists,
                format!("pool {} exists already; choose another name", wanted.name),
            ));
        }
        let suitable = suitable(map, &wanted.name, wanted.root.as_deref(), &wanted.osd_tags)?;
        let failure_domain = match &wanted.failure_domain {
            Some(level) => known_level(map, level)?,
            None => default_domain(map, wanted, &suitable)?,
        };
        let id = self.next_pool_id()?;
        let pool = Pool {
            name: wanted.name.clone(),
            replicas: size(wanted.replicas),
            min_size: size(wanted.min_size()),
            pg_count: wanted.pg_count.unwrap_or(DEFAULT_PGS),
            failure_domain,
            root: wanted.root.clone(),
            osd_tags: wanted.osd_tags.clone(),
            primary_tags: wanted.primary_tags.clone(),
            ..Pool::default()
        };
        let mut planned = Planned::whole(
            vec![self.edits.admin_keys.same_next_pool(), Compare::Absent(keys::pool(id))],
            vec![
                Change::put(keys::pool(id), encode(&pool)),
                Change::put(keys::NEXT_POOL, encode(&(u32::from(id.0) + 1))),
            ],
        );
        if let Some(root) = &wanted.root {
            self.hold_place(root, &mut planned.txn);
        }
        Ok(planned)
    }

    fn next_pool_id(&self) -> Result<PoolId, AdminError> {
        let last = self.client.map().pools.keys().last();
        let next = last
            .map_or(1, |id| u32::from(id.0) + 1)
            .max(self.edits.admin_keys.next_pool());
        u16::try_from(next)
            .map(PoolId)
            .map_err(|_| AdminError::new(ErrorKind::NoSpace, "all 65535 pool ids have been used"))
    }

    pub(super) fn plan_pool_modify(&self, text: &str, patch: &PatchPool) -> Result<Planned, AdminError> {
        let map = self.client.map();
        let (id, old) = find_pool(self.client.map(), text)?;
        let mut new = old.value.clone();
        if let Some(count) = patch.pg_count {
            valid_step(text, old.value.pg_count, count)?;
            new.pgs_wanted = Some(count).filter(|_| count != old.value.pg_count);
        }
        new.replicas = patch.replicas.map_or(new.replicas, size);
        new.min_size = patch.min_size.map_or(new.min_size, size);
        let copies = [new.replicas, new.min_size].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        valid_copies(copies[0], Some(copies[1]))?;
        if let Some(level) = &patch.failure_domain {
            new.failure_domain = known_level(map, level)?;
        }
        if let Some(root) = &patch.root {
            new.root = Some(root.clone()).filter(|root| !root.is_empty());
        }
        new.osd_tags = patch.osd_tags.clone().unwrap_or(new.osd_tags);
        new.primary_tags = patch.primary_tags.clone().unwrap_or(new.primary_tags);
        suitable(map, text, new.root.as_deref(), &new.osd_tags)?;
        let mut planned = Planned::whole(vec![Compare::ModRevision(keys::pool(id), old.revision)], Vec::new());
        if new != old.value {
            planned.txn.changes.push(Change::put(keys::pool(id), encode(&new)));
            if let Some(root) = new.root.as_ref().filter(|root| old.value.root.as_ref() != Some(root)) {
                self.hold_place(root, &mut planned.txn);
            }
        }
        Ok(planned)
    }

    pub(super) fn plan_pool_remove(&self, text: &str) -> Result<Planned, AdminError> {
        let (id, pool) = find_pool(self.client.map(), text)?;
        let name = &pool.value.name;
        let mark = removing_key(id);
        let same_pool = Compare::ModRevision(keys::pool(id), pool.revision);
        let in_the_way = self.in_the_way(name, id);
        let Some(marked) = self.edits.admin_keys.removing(id) else {
            if let Some(error) = in_the_way {
                return Err(error);
            }
            let changes = vec![Change::put(mark.clone(), "{}")];
            let mut planned = Planned::whole(vec![same_pool, Compare::Absent(mark)], changes);
            planned.then = Then::Again;
            return Ok(planned);
        };
        let mut planned = Planned::whole(
            vec![same_pool, Compare::ModRevision(mark.clone(), marked)],
            vec![Change::Delete(mark)],
        );
        if let Some(error) = in_the_way {
            planned.then = Then::Fail(error);
            return Ok(planned);
        }
        planned.txn.compare.push(self.edits.admin_keys.same_next_pool());
        planned.txn.changes.push(Change::Delete(keys::pool(id)));
        let next = (u32::from(id.0) + 1).max(self.edits.admin_keys.next_pool());
        planned.txn.changes.push(Change::put(keys::NEXT_POOL, encode(&next)));
        Ok(planned)
    }

    /// Why a pool cannot be removed.
    fn in_the_way(&self, name: &str, pool: PoolId) -> Option<AdminError> {
        let images: Vec<String> = self
            .namespace
            .files()
            .filter(|(_, id)| id.pool() == pool)
            .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
            .collect();
        if !images.is_empty() {
            return Some(conflict(format!(
                "{} in pool {name}; remove what is there first: {}",
                counted(images.len() as u64, "image lives", "images live"),
                listed(images)
            )));
        }
        let purges = self.namespace.purges().filter(|(id, _)| id.pool() == pool).count();
        (purges > 0).then(|| {
            let removed = counted(purges as u64, "removed image", "removed images");
            conflict(format!(
                "the data of {removed} is still being deleted from pool {name}; try again in a moment, or when its \
                 PGs are clean: until then OSDs may bring back more of it"
            ))
        })
    }
}

/// That a pool of `before` PGs can have `count` of them.
fn valid_step(pool: &str, before: u32, count: u32) -> Result<(), AdminError> {
    if Numbering::can_follow(count, before) {
        return Ok(());
    }
    let possible = |count: &u32| *count != before && Numbering::can_follow(*count, before);
    let fewer = (1..count).rev().find(possible).unwrap_or(before);
    let more = (count..=MAX_PGS).find(possible).unwrap_or(before);
    Err(conflict(format!(
        "pool {pool} has {}, and {count} cannot follow in one step: each would take over from more than {} of them; {fewer} \
         or {more} can",
        counted(before.into(), "PG", "PGs"),
        Numbering::MAX_PARENTS
    )))
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The OSDs that a pool could use, up or not. There is something wrong if it asks for some, and there is none.
fn suitable(map: &ClusterMap, pool: &str, root: Option<&str>, tags: &[String]) -> Result<Vec<OsdId>, AdminError> {
    let places = Places::new(map);
    if let Some(root) = root
        && !places.exists(root)
    {
        return Err(not_found(format!(
            "pool {pool}: there is no place {root} in the tree; 'trivet osd tree' shows what there is"
        )));
    }
    let below = |osd: OsdId| root.is_none_or(|root| places.above(osd).any(|place| place == root));
    let tagged = |own: &[String]| tags.iter().all(|tag| own.contains(tag));
    let members = map.members.iter();
    let found: Vec<OsdId> = members
        .filter(|(osd, config)| below(**osd) && tagged(&config.value.tags))
        .map(|(&osd, _)| osd)
        .collect();
    if !found.is_empty() || (root.is_none() && tags.is_empty()) {
        return Ok(found);
    }
    let below = root.map_or_else(String::new, |root| format!(" below {root}"));
    let with = if tags.is_empty() {
        String::new()
    } else {
        format!(" with the tags {}", tags.join(", "))
    };
    Err(conflict(format!(
        "pool {pool}: there is no OSD{below}{with}; 'trivet osd tree' and 'trivet osd ls' show what there is, 'trivet osd \
         tag add N TAG' gives tags"
    )))
}

/// A level that copies can be apart in.
fn known_level(map: &ClusterMap, level: &str) -> Result<String, AdminError> {
    if level_exists(map, level) {
        return Ok(level.to_owned());
    }
    let levels: BTreeSet<&str> = map.tree.values().map(|node| node.value.level.as_str()).collect();
    let levels: BTreeSet<&str> = levels.into_iter().chain([LEVEL_OSD, LEVEL_HOST]).collect();
    Err(AdminError::invalid(format!(
        "no place of the tree has the level {level}; there are: {}. 'trivet osd tree set NAME --level {level}' makes one",
        listed(levels)
    )))
}

/// Hosts, if there are enough of them; it must not turn out later that all copies are on one.
fn default_domain(map: &ClusterMap, pool: &CreatePool, suitable: &[OsdId]) -> Result<String, AdminError> {
    let places = Places::new(map);
    let hosts: BTreeSet<&str> = suitable.iter().filter_map(|&osd| places.host(osd)).collect();
    if hosts.len() >= size(pool.replicas) {
        return Ok(LEVEL_HOST.to_owned());
    }
    if pool.replicas == 1 {
        return Ok(LEVEL_OSD.to_owned());
    }
    Err(AdminError::invalid(format!(
        "pool {}: {} copies on different hosts need {} hosts, and {} known; add OSDs on other hosts, or let copies share \
         a host with --failure-domain osd",
        pool.name,
        pool.replicas,
        pool.replicas,
        counted(hosts.len() as u64, "is", "are")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_pgs_that_cannot_follow_is_refused_with_those_that_can() {
        for count in [128, 32, 48, 68, 64] {
            assert_eq!(valid_step("p", 64, count), Ok(()), "{count}");
        }
        let error = valid_step("p", 64, 65).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.message.contains("60 or 68 can"), "{error}");
    }
}
