//! The placement tree: OSDs on hosts, hosts in whatever places administrators make. A host needs no key of its own.

use std::collections::{BTreeMap, BTreeSet};

use trivet_api::{AdminError, OsdInfo, SetPlace, Tree, TreeRow};
use trivet_core::keys::{self, LEVEL_HOST, LEVEL_OSD, TreeNode};
use trivet_core::kv::{Change, Compare, Txn};
use trivet_core::map::{ClusterMap, encode};
use trivet_core::{OsdId, PoolId};

use super::admin_keys::same;
use super::edits::Planned;
use super::{conflict, listed, not_found};
use crate::gateway::Gateway;

/// Places above each other that are possible.
const MAX_DEPTH: usize = 16;

/// What is where.
pub(super) struct Places<'a> {
    map: &'a ClusterMap,
}

impl<'a> Places<'a> {
    pub fn new(map: &'a ClusterMap) -> Places<'a> {
        Places { map }
    }

    /// The host of an OSD, as far as it is known.
    pub fn host(&self, osd: OsdId) -> Option<&'a str> {
        self.map.members.get(&osd)?.value.host.as_deref()
    }

    /// Whether there is a place of this name, hosts without a key included.
    pub fn exists(&self, name: &str) -> bool {
        self.map.tree.contains_key(name) || self.is_host(name)
    }

    /// Whether OSDs are on it.
    fn is_host(&self, name: &str) -> bool {
        let mut members = self.map.members.values();
        members.any(|config| config.value.host.as_deref() == Some(name))
    }

    /// The places that an OSD is in, from its host upwards.
    pub fn above(&self, osd: OsdId) -> impl Iterator<Item = &'a str> {
        self.upwards(self.host(osd))
    }

    /// A place and what it is in. Ends even where somebody has written a circle.
    fn upwards(&self, first: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let tree = &self.map.tree;
        std::iter::successors(first, |name| tree.get(*name)?.value.parent.as_deref()).take(MAX_DEPTH + 1)
    }

    fn children(&self, name: &str) -> Vec<&'a str> {
        let inside = |node: &TreeNode| node.parent.as_deref() == Some(name);
        let nodes = self.map.tree.iter().filter(|(_, node)| inside(&node.value));
        nodes.map(|(child, _)| child.as_str()).collect()
    }
}

/// Whether copies can be apart in places of this level.
pub(super) fn level_exists(map: &ClusterMap, level: &str) -> bool {
    [LEVEL_OSD, LEVEL_HOST].contains(&level) || map.tree.values().any(|node| node.value.level == level)
}

impl Gateway {
    /// Has a transaction refused if a place goes meanwhile, and the removal of the place if this comes first: it is written
    /// anew as it is. A host without a key cannot go.
    pub(super) fn hold_place(&self, name: &str, txn: &mut Txn) {
        if let Some(node) = self.client.map().tree.get(name) {
            let key = keys::tree(name);
            txn.compare.push(Compare::ModRevision(key.clone(), node.revision));
            txn.changes.push(Change::put(key, encode(&node.value)));
        }
    }

    pub(super) fn plan_tree_set(&self, name: &str, place: &SetPlace) -> Result<Planned, AdminError> {
        let map = self.client.map();
        let places = Places::new(map);
        if place.level == LEVEL_OSD {
            return Err(AdminError::invalid(
                "OSDs are on the host that they ran on last; set the place of the host",
            ));
        }
        if places.is_host(name) && place.level != LEVEL_HOST {
            return Err(conflict(format!(
                "{name} is a host: OSDs are on it; give --level {LEVEL_HOST}"
            )));
        }
        if let Some(parent) = place.parent.as_deref() {
            check_parent(&places, name, parent)?;
        }
        let old = map.tree.get(name);
        let key = keys::tree(name);
        let new = TreeNode {
            level: place.level.clone(),
            parent: place.parent.clone(),
        };
        let mut planned = Planned::whole(vec![same(&key, old.map(|old| old.revision))], Vec::new());
        if old.is_none_or(|old| old.value != new) {
            planned.txn.changes.push(Change::put(key, encode(&new)));
            // Every place above: so that two moves at once make no circle.
            for above in places.upwards(place.parent.as_deref()) {
                self.hold_place(above, &mut planned.txn);
            }
        }
        Ok(planned)
    }

    pub(super) fn plan_tree_remove(&self, name: &str) -> Result<Planned, AdminError> {
        let map = self.client.map();
        let places = Places::new(map);
        let Some(node) = map.tree.get(name) else {
            return Err(not_found(if places.is_host(name) {
                format!("{name} is a host without a place of its own: it goes with its last OSD")
            } else {
                format!("there is no place {name} in the tree; 'trivet osd tree' shows what there is")
            }));
        };
        let children = places.children(name);
        if !children.is_empty() {
            return Err(conflict(format!(
                "there is something in {name}: {}; move it, or remove it first",
                listed(children)
            )));
        }
        // A host whose key goes stays, at the top.
        let rooted = |pool: &&keys::Pool| pool.root.as_deref() == Some(name) && !places.is_host(name);
        let pools: Vec<&str> = map
            .pools
            .values()
            .map(|pool| &pool.value)
            .filter(rooted)
            .map(|pool| pool.name.as_str())
            .collect();
        if !pools.is_empty() {
            return Err(conflict(format!(
                "{name} is the root of pools: {}; give them another one first, with 'trivet pool modify'",
                listed(pools)
            )));
        }
        let key = keys::tree(name);
        Ok(Planned::whole(
            vec![Compare::ModRevision(key.clone(), node.revision)],
            vec![Change::Delete(key)],
        ))
    }
}

/// What is shown of the tree with these OSDs.
pub(crate) fn grow_tree(map: &ClusterMap, osds: Vec<OsdInfo>) -> Tree {
    let mut grower = Grower::new(map, osds);
    grower.grow();
    Tree { rows: grower.rows }
}

fn check_parent<'a>(places: &Places<'a>, name: &str, parent: &'a str) -> Result<(), AdminError> {
    let Some(node) = places.map.tree.get(parent) else {
        return Err(if places.is_host(parent) {
            conflict(format!("{parent} is a host: only OSDs can be in it"))
        } else {
            not_found(format!(
                "there is no place {parent} in the tree; make it first, with 'trivet osd tree set {parent} --level LEVEL'"
            ))
        });
    };
    if node.value.level == LEVEL_HOST {
        return Err(conflict(format!("{parent} is a host: only OSDs can be in it")));
    }
    let above: Vec<&str> = places.upwards(Some(parent)).collect();
    if above.contains(&name) {
        return Err(conflict(format!(
            "{parent} is in {name} itself: that would make a circle"
        )));
    }
    if above.len() >= MAX_DEPTH {
        return Err(conflict(format!(
            "{name} would be in more than {MAX_DEPTH} places, one in another"
        )));
    }
    Ok(())
}

/// Puts the rows of the tree in order.
struct Grower<'a> {
    rows: Vec<TreeRow>,
    nodes: BTreeMap<&'a str, (&'a str, Option<&'a str>)>,
    osds: Vec<OsdInfo>,
    seen: BTreeSet<&'a str>,
}

impl<'a> Grower<'a> {
    fn new(map: &'a ClusterMap, osds: Vec<OsdInfo>) -> Grower<'a> {
        let hosts = map.members.values().filter_map(|config| config.value.host.as_deref());
        let mut nodes: BTreeMap<&str, (&str, Option<&str>)> = hosts.map(|host| (host, (LEVEL_HOST, None))).collect();
        for (name, node) in &map.tree {
            let parent = node
                .value
                .parent
                .as_deref()
                .filter(|parent| map.tree.contains_key(*parent));
            nodes.insert(name, (&node.value.level, parent));
        }
        Grower {
            rows: Vec::new(),
            nodes,
            osds,
            seen: BTreeSet::new(),
        }
    }

    fn grow(&mut self) {
        let top: Vec<&str> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.1.is_none())
            .map(|(name, _)| *name)
            .collect();
        top.into_iter().for_each(|name| self.place(name, 0));
        // What somebody has written in a circle is shown, too.
        let rest: Vec<&str> = self
            .nodes
            .keys()
            .copied()
            .filter(|name| !self.seen.contains(name))
            .collect();
        rest.into_iter().for_each(|name| self.place(name, 0));
        self.osds_on(None, 0);
    }

    fn place(&mut self, name: &'a str, depth: u64) {
        if !self.seen.insert(name) {
            return;
        }
        let Some(&(level, parent)) = self.nodes.get(name) else {
            return;
        };
        let at = self.rows.len();
        self.rows.push(TreeRow {
            name: name.to_owned(),
            level: level.to_owned(),
            depth,
            parent: parent.map(ToOwned::to_owned),
            ..TreeRow::default()
        });
        let children = self.nodes.iter().filter(|(_, node)| node.1 == Some(name));
        let children: Vec<&str> = children.map(|(child, _)| *child).collect();
        children.into_iter().for_each(|child| self.place(child, depth + 1));
        self.osds_on(Some(name), depth + 1);
        let inside = self.rows[at + 1..].iter().filter(|row| row.osd.is_some());
        let sum = |field: fn(&TreeRow) -> u64| inside.clone().map(field).fold(0, u64::saturating_add);
        let (weight, capacity, used) = (sum(|row| row.weight), sum(|row| row.capacity), sum(|row| row.used));
        let row = &mut self.rows[at];
        (row.weight, row.capacity, row.used) = (weight, capacity, used);
    }

    fn osds_on(&mut self, host: Option<&str>, depth: u64) {
        let (here, rest) = std::mem::take(&mut self.osds)
            .into_iter()
            .partition(|osd| osd.host.as_deref() == host);
        self.osds = rest;
        for osd in Vec::from_iter::<Vec<OsdInfo>>(here) {
            let weight = if osd.out || osd.dropped {
                0
            } else {
                osd.reweight.of(osd.size)
            };
            self.rows.push(TreeRow {
                name: osd.id.to_string(),
                level: LEVEL_OSD.to_owned(),
                depth,
                parent: host.map(ToOwned::to_owned),
                weight,
                capacity: osd.capacity,
                used: osd.used,
                osd: Some(osd),
            });
        }
    }
}

/// How many places of its failure domain a pool could use.
pub(crate) fn domains(map: &ClusterMap, pool: PoolId) -> usize {
    let Some(pool) = map.pools.get(&pool).map(|pool| &pool.value) else {
        return 0;
    };
    let places = Places::new(map);
    let in_use = |osd: &OsdId| {
        let config = map.members.get(osd).map(|config| &config.value);
        config.is_some_and(|config| {
            let below = pool
                .root
                .as_deref()
                .is_none_or(|root| places.above(*osd).any(|place| place == root));
            let tagged = pool.osd_tags.iter().all(|tag| config.tags.contains(tag));
            below && tagged && !config.out && !config.dropped && config.reweight > 0
        })
    };
    let osds = map.members.keys().copied().filter(in_use);
    if pool.failure_domain == LEVEL_OSD {
        return osds.count();
    }
    let at_level = |name: &&str| match map.tree.get(*name) {
        Some(node) => node.value.level == pool.failure_domain,
        None => pool.failure_domain == LEVEL_HOST,
    };
    // As the monitor has it: without a place of that level the host counts, and without a host the OSD itself.
    let place_of = |osd: OsdId| {
        let place = places.above(osd).find(at_level).or_else(|| places.host(osd));
        place.ok_or(osd)
    };
    let found: BTreeSet<Result<&str, OsdId>> = osds.map(place_of).collect();
    found.len()
}
