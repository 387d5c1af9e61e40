//! The placement tree: where OSDs stand, and which of them a pool may use.
//!
//! An OSD stands in its host, the host in what its `tree/` key names as parent, and so on. A host without a key, and a
//! parent without one, stand at the top; a circle ends where it closes. An OSD that is in no place of a pool's failure
//! domain is a domain with what shares its innermost place: its host, or alone if it has none. So a level that is only
//! half described never merges what was apart.

use std::collections::BTreeMap;

use trivet_core::keys::{LEVEL_HOST, LEVEL_OSD, OsdConfig, Pool, TreeNode};
use trivet_core::map::{ClusterMap, Versioned};
use trivet_core::{OsdId, PoolId};

use super::{Candidate, Inputs};

/// Levels above a host that are looked at.
const MAX_DEPTH: usize = 16;

type Nodes = BTreeMap<String, Versioned<TreeNode>>;

/// A failure domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Domain<'a> {
    Osd(OsdId),
    Place(&'a str),
}

/// What the pool's placement is made from.
#[must_use]
pub fn inputs(map: &ClusterMap, id: PoolId, pool: &Pool) -> Inputs {
    let mut numbers = BTreeMap::new();
    let mut osds = Vec::new();
    for (&osd, config) in &map.members {
        let config = &config.value;
        let places = places(&map.tree, config);
        let weight = weight(config);
        if weight == 0 || !may_use(pool, config, &places) {
            continue;
        }
        let next = numbers.len();
        let domain = domain(&pool.failure_domain, osd, &places);
        osds.push(Candidate {
            id: osd,
            weight,
            domain: *numbers.entry(domain).or_insert(next),
            up: map.is_up(osd),
            full: is_full(map, osd),
        });
    }
    Inputs {
        pool: id,
        pg_count: pool.pg_count,
        replicas: pool.replicas,
        osds,
    }
}

/// Whether an OSD is too full for more PGs, as far as it has told.
pub(crate) fn is_full(map: &ClusterMap, osd: OsdId) -> bool {
    map.stats.get(&osd).is_some_and(|stats| {
        let limit = u128::from(stats.value.capacity) * u128::from(map.settings.backfill_full_pct);
        stats.value.capacity > 0 && u128::from(stats.value.used) * 100 >= limit
    })
}

fn weight(config: &OsdConfig) -> u64 {
    let weight = u128::from(config.size) * u128::from(config.reweight) / 1000;
    u64::try_from(weight).unwrap_or(u64::MAX)
}

fn may_use(pool: &Pool, config: &OsdConfig, places: &[(&str, &str)]) -> bool {
    let below = |root: &String| places.iter().any(|(name, _)| name == root);
    !config.out
        && !config.dropped
        && pool.osd_tags.iter().all(|tag| config.tags.contains(tag))
        && pool.root.as_ref().is_none_or(below)
}

/// The places that an OSD is in, as name and level, from the inside out.
fn places<'a>(nodes: &'a Nodes, config: &'a OsdConfig) -> Vec<(&'a str, &'a str)> {
    let mut places: Vec<(&str, &str)> = Vec::new();
    let mut next = config.host.as_deref();
    while let Some(name) = next.filter(|name| places.iter().all(|(known, _)| known != name)) {
        if places.len() > MAX_DEPTH {
            break;
        }
        let node = nodes.get(name).map(|node| &node.value);
        let level = node.map_or("", |node| node.level.as_str());
        places.push((name, if places.is_empty() { LEVEL_HOST } else { level }));
        next = node.and_then(|node| node.parent.as_deref());
    }
    places
}

fn domain<'a>(level: &str, osd: OsdId, places: &[(&'a str, &'a str)]) -> Domain<'a> {
    let named = places.iter().find(|(_, of)| *of == level);
    match named.or(places.first()) {
        Some((name, _)) if level != LEVEL_OSD => Domain::Place(name),
        _ => Domain::Osd(osd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(level: &str, parent: Option<&str>) -> Versioned<TreeNode> {
        let parent = parent.map(str::to_owned);
        let level = level.to_owned();
        Versioned {
            value: TreeNode { level, parent },
            revision: 1,
        }
    }

    fn nodes() -> Nodes {
        let nodes = [
            ("h1", node("host", Some("r1"))),
            ("h2", node("host", Some("r1"))),
            ("h3", node("host", Some("r2"))),
            ("h4", node("host", Some("nowhere"))),
            ("h5", node("host", Some("a"))),
            ("r1", node("rack", Some("dc"))),
            ("r2", node("rack", Some("dc"))),
            ("dc", node("room", None)),
            ("a", node("rack", Some("b"))),
            ("b", node("room", Some("a"))),
        ];
        nodes.map(|(name, node)| (name.to_owned(), node)).into()
    }

    fn on(host: Option<&str>) -> OsdConfig {
        OsdConfig {
            size: 1 << 40,
            host: host.map(str::to_owned),
            ..OsdConfig::default()
        }
    }

    #[test]
    fn the_domain_is_the_place_of_its_level_or_the_innermost() {
        let nodes = nodes();
        let table: &[(Option<&str>, &str, &str)] = &[
            (Some("h1"), "osd", "7"),
            (Some("h1"), "host", "h1"),
            (Some("h1"), "rack", "r1"),
            (Some("h2"), "rack", "r1"),
            (Some("h3"), "rack", "r2"),
            (Some("h3"), "room", "dc"),
            (Some("h4"), "rack", "h4"),
            (Some("h5"), "room", "b"),
            (Some("h5"), "planet", "h5"),
            (Some("h6"), "host", "h6"),
            (Some("h6"), "rack", "h6"),
            (None, "host", "7"),
            (None, "rack", "7"),
        ];
        for &(host, level, expected) in table {
            let config = on(host);
            let found = match domain(level, OsdId(7), &places(&nodes, &config)) {
                Domain::Osd(id) => id.to_string(),
                Domain::Place(name) => name.to_owned(),
            };
            assert_eq!(found, expected, "{host:?} {level}");
        }
    }

    #[test]
    fn very_deep_trees_end() {
        let deep = |n: usize| (format!("p{n}"), node("x", Some(&format!("p{}", n + 1))));
        let nodes: Nodes = (0..1000).map(deep).collect();
        assert_eq!(places(&nodes, &on(Some("p0"))).len(), MAX_DEPTH + 1);
    }

    fn usable(change: impl Fn(&mut Pool), osd: &OsdConfig) -> Vec<Candidate> {
        let mut map = ClusterMap {
            tree: nodes(),
            ..ClusterMap::default()
        };
        let value = osd.clone();
        map.members.insert(OsdId(7), Versioned { value, revision: 1 });
        let mut pool = Pool::default();
        change(&mut pool);
        inputs(&map, PoolId(1), &pool).osds
    }

    #[test]
    fn pools_use_what_they_may() {
        let root = |name: &str| {
            let name = name.to_owned();
            move |pool: &mut Pool| pool.root = Some(name.clone())
        };
        let osd = OsdConfig {
            tags: vec!["ssd".into(), "new".into()],
            reweight: 250,
            ..on(Some("h1"))
        };
        let found = usable(|_| (), &osd);
        assert_eq!(found.iter().map(|osd| osd.weight).collect::<Vec<_>>(), [1 << 38]);
        for (name, expected) in [("h1", 1), ("r1", 1), ("dc", 1), ("r2", 0), ("nowhere", 0), ("x", 0)] {
            assert_eq!(usable(root(name), &osd).len(), expected, "{name}");
        }
        assert_eq!(usable(root("nowhere"), &on(Some("h4"))).len(), 1);
        for (tags, expected) in [(vec!["ssd"], 1), (vec!["new", "ssd"], 1), (vec!["ssd", "hdd"], 0)] {
            let wanted: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
            assert_eq!(usable(|pool| pool.osd_tags.clone_from(&wanted), &osd).len(), expected);
        }
        let unusable: [fn(&mut OsdConfig); 5] = [
            |osd| osd.out = true,
            |osd| osd.dropped = true,
            |osd| osd.size = 0,
            |osd| osd.reweight = 0,
            |osd| osd.size = 3,
        ];
        for change in unusable {
            let mut osd = osd.clone();
            change(&mut osd);
            assert!(usable(|_| (), &osd).is_empty(), "{osd:?}");
        }
    }
}
