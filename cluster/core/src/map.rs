//! The cluster map: a mirror of the keys that say who is up, what the plan is and who acts for which PG.
//!
//! Every role keeps its own, fed by the notices of its metadata client. A mirror may be stale; nothing is
//! decided by it alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::ids::{ClientId, Epoch, Numbering, ObjectId, OsdId, PgId, PoolId};
use crate::keys::{
    self, Claim, ClientState, Cluster, GatewayState, History, Leader, MonitorState, OsdConfig, OsdState, OsdStats,
    PgPlan, Plan, Pool, ScrubReport, ScrubRequest, Settings, TreeNode,
};
use crate::kv::{KeyValue, News, Notice, Revision};
use crate::mark::{Halted, Marks};

/// A value with the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The decoded value.
    pub value: T,
    /// For comparing in transactions.
    pub revision: Revision,
}

/// The mirror. Values that do not decode are kept out and counted.
#[derive(Clone, Debug, Default)]
pub struct ClusterMap {
    /// Complete up to this commit.
    pub revision: Revision,
    /// `config/cluster`.
    pub cluster: Option<Cluster>,
    /// `config/settings`; the defaults if there is no such key.
    pub settings: Settings,
    /// `pool/<id>`.
    pub pools: BTreeMap<PoolId, Versioned<Pool>>,
    /// `osd/<n>/config`: the OSDs that belong to the cluster.
    pub members: BTreeMap<OsdId, Versioned<OsdConfig>>,
    /// `mon/leader`.
    pub leader: Option<Versioned<Leader>>,
    /// `gateway/<id>/state`: the gateways that are up.
    pub gateways: BTreeMap<ClientId, Versioned<GatewayState>>,
    /// `client/<id>`: the clients that OSDs execute changes for.
    pub clients: BTreeMap<ClientId, Versioned<ClientState>>,
    /// `mon/<id>/state`: the monitors that run.
    pub monitors: BTreeMap<u64, Versioned<MonitorState>>,
    /// `tree/<name>`.
    pub tree: BTreeMap<String, Versioned<TreeNode>>,
    /// `osd/<n>/stats`.
    pub stats: BTreeMap<OsdId, Versioned<OsdStats>>,
    /// `osd/<n>/state`: the OSDs that are up.
    pub osds: BTreeMap<OsdId, Versioned<OsdState>>,
    /// `plan/<pool>`.
    pub plans: BTreeMap<PoolId, Versioned<Plan>>,
    /// `pg/<pool>/<n>/claim`.
    pub claims: BTreeMap<PgId, Versioned<Claim>>,
    /// `pg/<pool>/<n>/history`.
    pub histories: BTreeMap<PgId, Versioned<History>>,
    /// `config/mark`.
    pub mark: Option<Versioned<Marks>>,
    /// `config/halted`.
    pub halted: Option<Versioned<Halted>>,
    /// `config/next_pool`.
    pub next_pool: Option<Versioned<u32>>,
    /// `config/next_image`.
    pub next_image: Option<Versioned<u64>>,
    /// `config/scrub`.
    pub scrub: Option<ScrubRequest>,
    /// `pg/<pool>/<n>/scrub`.
    pub scrubs: BTreeMap<PgId, Versioned<ScrubReport>>,
    /// Values that could not be decoded since the start.
    pub undecodable: u64,
}

/// What a key is about.
enum Subject {
    Cluster,
    Pool(PoolId),
    Osd(OsdId),
    Member(OsdId),
    Settings,
    Stats(OsdId),
    Leader,
    Monitor(u64),
    Tree(String),
    Gateway(ClientId),
    Client(ClientId),
    Plan(PoolId),
    Claim(PgId),
    History(PgId),
    Mark,
    Halted,
    NextPool,
    NextImage,
    ScrubRequest,
    Scrub(PgId),
}

impl ClusterMap {
    /// Takes in what the metadata store says. What is older than the mirror (a stale read, a repeated change) is
    /// passed over, unless the store itself was replaced.
    pub fn apply(&mut self, notice: &Notice) {
        let known = self.revision;
        for news in notice.news(known) {
            match news {
                News::All(keys) => {
                    *self = ClusterMap {
                        undecodable: self.undecodable,
                        ..ClusterMap::default()
                    };
                    keys.iter().for_each(|kv| self.put(kv));
                }
                News::Put(kv) => self.put(kv),
                News::Delete(key) => self.delete(key),
            }
        }
        self.revision = notice.known_after(known);
    }

    /// Whether the OSD serves, as far as this mirror knows.
    #[must_use]
    pub fn is_up(&self, osd: OsdId) -> bool {
        self.osds.contains_key(&osd)
    }

    /// All PGs of all pools.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> {
        self.pools
            .iter()
            .flat_map(|(&pool, config)| config.value.numbering().pgs(pool))
    }

    /// How a pool's objects fall into PGs.
    #[must_use]
    pub fn numbering(&self, pool: PoolId) -> Option<Numbering> {
        self.pools.get(&pool).map(|pool| pool.value.numbering())
    }

    /// The PG of an object, if its pool exists.
    #[must_use]
    pub fn pg_of(&self, object: ObjectId) -> Option<PgId> {
        Some(object.pg(self.numbering(object.image.pool())?))
    }

    /// Whether a PG is of its pool's present generation.
    #[must_use]
    pub fn is_current(&self, pg: PgId) -> bool {
        self.numbering(pg.pool)
            .is_some_and(|now| now.generation == pg.generation && pg.number < now.count)
    }

    /// The plan of a pool, if it is about the present generation of its PGs.
    #[must_use]
    pub fn plan(&self, pool: PoolId) -> Option<&Versioned<Plan>> {
        let plan = self.plans.get(&pool)?;
        (plan.value.generation == self.pools.get(&pool)?.value.generation).then_some(plan)
    }

    /// What the plan says of a PG.
    #[must_use]
    pub fn plan_of(&self, pg: PgId) -> Option<&PgPlan> {
        let plan = self.plan(pg.pool).filter(|_| self.is_current(pg))?;
        plan.value.pgs.get(usize::try_from(pg.number).ok()?)
    }

    /// The claims of PGs of their pools' present generations.
    pub fn current_claims(&self) -> impl Iterator<Item = (PgId, &Claim)> {
        let current = self.claims.iter().filter(|(pg, _)| self.is_current(**pg));
        current.map(|(&pg, claim)| (pg, &claim.value))
    }

    /// What may have happened to a PG: its own history, or, until there is one, what it inherits from the PGs of the
    /// generation before. None of those of a generation that is over changes any more: whoever writes a history
    /// compares the pool.
    #[must_use]
    pub fn history(&self, pg: PgId) -> Option<Cow<'_, History>> {
        if let Some(own) = self.histories.get(&pg) {
            return Some(Cow::Borrowed(&own.value));
        }
        let pool = &self.pools.get(&pg.pool).filter(|_| self.is_current(pg))?.value;
        let before = pool.numbering_before()?;
        let parents = pool.numbering().parents(pg.number, before.count).filter_map(|number| {
            let parent = PgId {
                generation: before.generation,
                number,
                ..pg
            };
            Some((number, &self.histories.get(&parent)?.value))
        });
        let heir = History::inherited(before.count, parents);
        (heir != History::default()).then_some(Cow::Owned(heir))
    }

    /// The first epoch that the PG's history names. Of the time before nothing counts but what its members had or were known to
    /// lack when it became active: what another OSD brings back counts no more. None while the PG may get objects of an earlier
    /// generation.
    #[must_use]
    pub fn complete_since(&self, pg: PgId) -> Option<Epoch> {
        let intervals = &self.histories.get(&pg)?.value.intervals;
        let own = intervals.iter().all(|interval| interval.of.is_none());
        let first = intervals.first().filter(|first| own && first.active)?;
        Some(first.epoch)
    }

    fn put(&mut self, kv: &KeyValue) {
        let Some(subject) = parse(&kv.key) else { return };
        let decoded = match subject {
            Subject::Cluster => set(&mut self.cluster, kv),
            Subject::Pool(id) => insert(&mut self.pools, id, kv) && self.has_valid_count(id),
            Subject::Osd(id) => insert(&mut self.osds, id, kv),
            Subject::Member(id) => insert(&mut self.members, id, kv),
            Subject::Gateway(id) => insert(&mut self.gateways, id, kv),
            Subject::Client(id) => insert(&mut self.clients, id, kv),
            Subject::Monitor(id) => insert(&mut self.monitors, id, kv),
            Subject::Tree(name) => insert(&mut self.tree, name, kv),
            Subject::Stats(id) => insert(&mut self.stats, id, kv),
            Subject::Settings => {
                let settings = decode(&kv.value);
                let decoded = settings.is_some();
                self.settings = settings.unwrap_or_default();
                decoded
            }
            Subject::Leader => keep(&mut self.leader, kv),
            Subject::Mark => keep(&mut self.mark, kv),
            Subject::Halted => keep(&mut self.halted, kv),
            Subject::NextPool => keep(&mut self.next_pool, kv),
            Subject::NextImage => keep(&mut self.next_image, kv),
            Subject::Plan(id) => insert(&mut self.plans, id, kv),
            Subject::Claim(pg) => insert(&mut self.claims, pg, kv),
            Subject::History(pg) => insert(&mut self.histories, pg, kv),
            Subject::ScrubRequest => set(&mut self.scrub, kv),
            Subject::Scrub(pg) => insert(&mut self.scrubs, pg, kv),
        };
        self.undecodable += u64::from(!decoded);
    }

    /// Whether the pool has as many PGs as a pool may have; if not, there is no such pool.
    fn has_valid_count(&mut self, id: PoolId) -> bool {
        let is_valid = |pool: &Pool| (1..=Numbering::MAX).contains(&pool.pg_count);
        let valid = self.pools.get(&id).is_some_and(|pool| is_valid(&pool.value));
        if !valid {
            self.pools.remove(&id);
        }
        valid
    }

    fn delete(&mut self, key: &str) {
        match parse(key) {
            Some(Subject::Cluster) => self.cluster = None,
            Some(Subject::Pool(id)) => drop(self.pools.remove(&id)),
            Some(Subject::Osd(id)) => drop(self.osds.remove(&id)),
            Some(Subject::Member(id)) => drop(self.members.remove(&id)),
            Some(Subject::Gateway(id)) => drop(self.gateways.remove(&id)),
            Some(Subject::Client(id)) => drop(self.clients.remove(&id)),
            Some(Subject::Monitor(id)) => drop(self.monitors.remove(&id)),
            Some(Subject::Tree(name)) => drop(self.tree.remove(&name)),
            Some(Subject::Stats(id)) => drop(self.stats.remove(&id)),
            Some(Subject::Settings) => self.settings = Settings::default(),
            Some(Subject::Leader) => self.leader = None,
            Some(Subject::Mark) => self.mark = None,
            Some(Subject::Halted) => self.halted = None,
            Some(Subject::NextPool) => self.next_pool = None,
            Some(Subject::NextImage) => self.next_image = None,
            Some(Subject::Plan(id)) => drop(self.plans.remove(&id)),
            Some(Subject::Claim(pg)) => drop(self.claims.remove(&pg)),
            Some(Subject::History(pg)) => drop(self.histories.remove(&pg)),
            Some(Subject::ScrubRequest) => self.scrub = None,
            Some(Subject::Scrub(pg)) => drop(self.scrubs.remove(&pg)),
            None => {}
        }
    }
}

fn parse(key: &str) -> Option<Subject> {
    match key {
        keys::CLUSTER => return Some(Subject::Cluster),
        keys::SCRUB => return Some(Subject::ScrubRequest),
        keys::SETTINGS => return Some(Subject::Settings),
        keys::MARK => return Some(Subject::Mark),
        keys::HALTED => return Some(Subject::Halted),
        keys::NEXT_POOL => return Some(Subject::NextPool),
        keys::NEXT_IMAGE => return Some(Subject::NextImage),
        _ => {}
    }
    let mut parts = key.split('/');
    let subject = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("pool", id, None, None) => Subject::Pool(PoolId(id.parse().ok()?)),
        ("osd", id, Some("state"), None) => Subject::Osd(OsdId(id.parse().ok()?)),
        ("osd", id, Some("config"), None) => Subject::Member(OsdId(id.parse().ok()?)),
        ("gateway", id, Some("state"), None) => Subject::Gateway(ClientId(u64::from_str_radix(id, 16).ok()?)),
        ("client", id, None, None) => Subject::Client(ClientId(u64::from_str_radix(id, 16).ok()?)),
        ("osd", id, Some("stats"), None) => Subject::Stats(OsdId(id.parse().ok()?)),
        ("mon", "leader", None, None) => Subject::Leader,
        ("mon", id, Some("state"), None) => Subject::Monitor(u64::from_str_radix(id, 16).ok()?),
        ("tree", name, None, None) => Subject::Tree(name.to_owned()),
        ("plan", id, None, None) => Subject::Plan(PoolId(id.parse().ok()?)),
        ("pg", pool, Some(number), Some(kind)) => {
            let pg: PgId = format!("{pool}/{number}").parse().ok()?;
            match kind {
                "claim" => Subject::Claim(pg),
                "history" => Subject::History(pg),
                "scrub" => Subject::Scrub(pg),
                _ => return None,
            }
        }
        _ => return None,
    };
    parts.next().is_none().then_some(subject)
}

fn decode<T: DeserializeOwned>(value: &Bytes) -> Option<T> {
    serde_json::from_slice(value).ok()
}

fn set<T: DeserializeOwned>(slot: &mut Option<T>, kv: &KeyValue) -> bool {
    *slot = decode(&kv.value);
    slot.is_some()
}

fn keep<T: DeserializeOwned>(slot: &mut Option<Versioned<T>>, kv: &KeyValue) -> bool {
    *slot = decode(&kv.value).map(|value| Versioned {
        value,
        revision: kv.mod_revision,
    });
    slot.is_some()
}

fn insert<K: Ord, T: DeserializeOwned>(map: &mut BTreeMap<K, Versioned<T>>, key: K, kv: &KeyValue) -> bool {
    match decode(&kv.value) {
        Some(value) => {
            map.insert(
                key,
                Versioned {
                    value,
                    revision: kv.mod_revision,
                },
            );
            true
        }
        None => {
            map.remove(&key);
            false
        }
    }
}

/// The JSON of a value, for a transaction.
///
/// # Panics
/// Never: the values of [`crate::keys`] always encode.
#[must_use]
pub fn encode<T: serde::Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("plain data encodes as JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::kv::Event;

    fn kv(key: &str, value: &str, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            mod_revision,
        }
    }

    #[test]
    fn snapshot_then_changes() {
        let mut map = ClusterMap::default();
        map.apply(&Notice::Snapshot {
            revision: 5,
            keys: vec![
                kv("osd/1/state", r#"{"boot":7,"size":4096}"#, 3),
                kv("pool/1", r#"{"name":"p","replicas":2,"min_size":1,"pg_count":4}"#, 4),
                kv("pg/1/2/history", r#"{"epoch":9,"intervals":[]}"#, 5),
                kv("pg/1/2/unknown", "{}", 5),
                kv("pool/2", "not json", 5),
            ],
        });
        assert!(map.is_up(OsdId(1)) && !map.is_up(OsdId(2)));
        assert_eq!(map.pgs().count(), 4);
        let pg = PgId::first(PoolId(1), 2);
        assert_eq!(
            map.histories[&pg],
            Versioned {
                value: History {
                    epoch: Epoch(9),
                    intervals: vec![]
                },
                revision: 5
            }
        );
        assert_eq!(map.undecodable, 1);

        map.apply(&Notice::Changes {
            revision: 6,
            events: vec![Event::Delete {
                key: "osd/1/state".into(),
                revision: 6,
            }],
        });
        assert!(!map.is_up(OsdId(1)));
        assert_eq!(map.revision, 6);
    }

    fn osd(id: u32, boot: u64, revision: Revision) -> KeyValue {
        let value = format!(r#"{{"boot":{boot},"size":1}}"#);
        kv(&keys::osd_state(OsdId(id)), &value, revision)
    }

    fn changes(revision: Revision, events: Vec<Event>) -> Notice {
        Notice::Changes { revision, events }
    }

    fn snapshot(revision: Revision, keys: Vec<KeyValue>) -> Notice {
        Notice::Snapshot { revision, keys }
    }

    fn put(id: u32, boot: u64, revision: Revision) -> Event {
        Event::Put(osd(id, boot, revision))
    }

    fn delete(id: u32, revision: Revision) -> Event {
        let key = keys::osd_state(OsdId(id));
        Event::Delete { key, revision }
    }

    /// What comes to a mirror that has OSD 1 with boot 5 and OSD 2 with boot 2, as of commit 5.
    type Case = (&'static str, Vec<Notice>);

    /// What such a mirror then is: OSDs with their boots, and the commit.
    type Mirror = (&'static [(u32, u64)], Revision);

    const SAME: Mirror = (&[(1, 5), (2, 2)], 5);

    fn late_changes() -> Vec<(Case, Mirror)> {
        let overlap = vec![put(1, 3, 3), delete(1, 4), put(1, 5, 5), delete(2, 6), put(3, 7, 7)];
        let twice = vec![
            changes(8, vec![delete(1, 8)]),
            changes(8, vec![put(1, 7, 7), delete(1, 8)]),
        ];
        let one = |revision, events| vec![changes(revision, events)];
        vec![
            (("a repeated put", one(5, vec![put(1, 5, 5)])), SAME),
            (("an older put", one(3, vec![put(1, 3, 3)])), SAME),
            (("a delete before the put", one(4, vec![delete(1, 4)])), SAME),
            (("known and new", one(7, overlap)), (&[(1, 5), (3, 7)], 7)),
            (
                ("two changes of a key", one(7, vec![delete(1, 6), put(1, 7, 7)])),
                (&[(1, 7), (2, 2)], 7),
            ),
            (
                ("two keys of a commit", one(6, vec![put(1, 6, 6), delete(2, 6)])),
                (&[(1, 6)], 6),
            ),
            (("nothing of ours", one(9, vec![])), (&[(1, 5), (2, 2)], 9)),
            (("the same again, with more before", twice), (&[(2, 2)], 8)),
        ]
    }

    fn late_snapshots() -> Vec<(Case, Mirror)> {
        let then_changes = vec![
            snapshot(8, vec![osd(2, 8, 8)]),
            changes(7, vec![delete(2, 6), put(1, 7, 7)]),
            changes(9, vec![put(2, 2, 2), put(1, 9, 9)]),
        ];
        let same = vec![snapshot(5, vec![osd(1, 5, 5), osd(2, 2, 2)])];
        vec![
            (("an older snapshot", vec![snapshot(4, vec![osd(3, 4, 4)])]), SAME),
            (("the same snapshot", same), SAME),
            (
                ("a newer snapshot", vec![snapshot(6, vec![osd(3, 6, 6)])]),
                (&[(3, 6)], 6),
            ),
            (
                ("a snapshot, then changes that it has", then_changes),
                (&[(1, 9), (2, 8)], 9),
            ),
        ]
    }

    #[test]
    fn a_pg_is_complete_since_the_first_epoch_of_its_own_history() {
        let pg = PgId::first(PoolId(1), 2);
        let interval =
            |epoch: u64, of: &str, active: bool| format!(r#"{{"epoch":{epoch},"acting":[1],"active":{active}{of}}}"#);
        let earlier = r#","of":{"count":2,"number":0}"#;
        let table = [
            (vec![], None),
            (vec![interval(4, "", true)], Some(4)),
            (
                vec![interval(4, "", true), interval(7, "", true), interval(8, "", false)],
                Some(4),
            ),
            (vec![interval(4, "", false)], None),
            (vec![interval(4, earlier, true), interval(5, "", true)], None),
        ];
        assert_eq!(ClusterMap::default().complete_since(pg), None);
        for (intervals, expected) in table {
            let history = format!(r#"{{"epoch":9,"intervals":[{}]}}"#, intervals.join(","));
            let mut map = ClusterMap::default();
            map.apply(&Notice::Snapshot {
                revision: 5,
                keys: vec![kv("pg/1/2/history", &history, 5)],
            });
            assert_eq!(map.complete_since(pg), expected.map(Epoch), "{history}");
        }
    }

    #[test]
    fn what_is_older_than_the_mirror_changes_nothing() {
        for ((name, notices), mirror) in late_changes().into_iter().chain(late_snapshots()) {
            let mut map = ClusterMap::default();
            map.apply(&snapshot(5, vec![osd(1, 5, 5), osd(2, 2, 2)]));
            notices.iter().for_each(|notice| map.apply(notice));
            let found: Vec<_> = map.osds.iter().map(|(id, state)| (id.0, state.value.boot)).collect();
            assert_eq!((&found[..], map.revision), mirror, "{name}");
        }
    }

    #[test]
    fn a_store_that_took_the_place_of_another_counts_whatever_its_commit() {
        let mut map = ClusterMap::default();
        map.apply(&snapshot(5, vec![osd(1, 5, 5), osd(2, 2, 2)]));
        let (revision, keys) = (3, vec![osd(1, 3, 3)]);
        map.apply(&Notice::Replaced { revision, keys });
        assert_eq!((map.osds.len(), map.revision), (1, 3));
        map.apply(&changes(4, vec![put(2, 4, 4)]));
        assert_eq!((map.osds.len(), map.revision), (2, 4));
    }

    #[test]
    fn every_key_maker_is_parsed() {
        let pg = PgId::first(PoolId(3), 4);
        let made = [
            keys::CLUSTER.to_string(),
            keys::pool(PoolId(3)),
            keys::osd_state(OsdId(9)),
            keys::osd_config(OsdId(9)),
            keys::SETTINGS.to_string(),
            keys::osd_stats(OsdId(9)),
            keys::monitor_state(7),
            keys::tree("rack1"),
            keys::LEADER.to_string(),
            keys::gateway_state(ClientId(0xabc)),
            keys::plan(PoolId(3)),
            keys::claim(pg),
            keys::history(pg),
            keys::SCRUB.to_string(),
            keys::scrub(pg),
            keys::MARK.to_string(),
            keys::HALTED.to_string(),
            keys::NEXT_POOL.to_string(),
            keys::NEXT_IMAGE.to_string(),
        ];
        for key in made {
            assert!(parse(&key).is_some(), "{key}");
        }
        for key in ["", "osd", "osd/x/state", "pg/1/2", "pg/1/2/claim/x", "pool/70000"] {
            assert!(parse(key).is_none(), "{key}");
        }
    }
}
