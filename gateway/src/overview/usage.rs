//! Mirror of what OSDs report of pools and images (`usage/`), added up.
//!
//! An OSD counts operations since its start. When it starts anew, or is gone, its counters are, too; what is added up
//! here goes on, so that it only rises while an image is reported at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use trivet_core::kv::{KeyValue, News, Notice, Revision};
use trivet_core::map::ClusterMap;
use trivet_core::usage::{self, ImagesUsage, Ops, PoolUsage, PoolsUsage, Subject};
use trivet_core::{ImageId, OsdId, PoolId};

/// What OSDs report of pools and images, added up over all OSDs.
#[derive(Debug, Default)]
pub(super) struct Usages {
    pools: BTreeMap<OsdId, PoolsUsage>,
    parts: BTreeMap<(OsdId, u32), Part>,
    images: BTreeMap<ImageId, ImageSum>,
    ops: BTreeMap<PoolId, Ops>,
}

/// A part of an OSD's report.
#[derive(Debug)]
struct Part {
    usage: ImagesUsage,
    /// It is there. One that is not is kept for its counters: the OSD may have lost its lease only.
    shown: bool,
}

/// What all OSDs together say of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ImageSum {
    /// Bytes that are written.
    pub(super) used: u64,
    /// Objects.
    pub(super) objects: u64,
    /// Operations, as far as this gateway has seen.
    pub(super) ops: Ops,
    /// Parts that have it.
    parts: u64,
}

impl Usages {
    /// Takes in what the metadata store says, of which everything up to `known` is known.
    pub(super) fn apply(&mut self, notice: &Notice, known: Revision) {
        for news in notice.news(known) {
            match news {
                News::All(keys) => self.replace(keys),
                News::Put(kv) => self.put(kv),
                News::Delete(key) => self.delete(key),
            }
        }
    }

    fn replace(&mut self, keys: &[KeyValue]) {
        self.pools.clear();
        let mut gone: BTreeSet<(OsdId, u32)> = self.parts.keys().copied().collect();
        for kv in keys {
            if let Some(Subject::Images(osd, part)) = usage::parse(&kv.key) {
                gone.remove(&(osd, part));
            }
            self.put(kv);
        }
        gone.into_iter().for_each(|part| self.hide(part));
    }

    fn put(&mut self, kv: &KeyValue) {
        match usage::parse(&kv.key) {
            None => {}
            Some(Subject::Pools(osd)) => match decode(kv) {
                Some(usage) => drop(self.pools.insert(osd, usage)),
                None => drop(self.pools.remove(&osd)),
            },
            Some(Subject::Images(osd, part)) => match decode(kv) {
                Some(usage) => self.show((osd, part), usage),
                None => self.hide((osd, part)),
            },
        }
    }

    fn delete(&mut self, key: &str) {
        match usage::parse(key) {
            None => {}
            Some(Subject::Pools(osd)) => drop(self.pools.remove(&osd)),
            Some(Subject::Images(osd, part)) => self.hide((osd, part)),
        }
    }

    /// A part is there, in place of what it was.
    fn show(&mut self, key: (OsdId, u32), usage: ImagesUsage) {
        let old = self.parts.remove(&key);
        for (&id, image) in &usage.images {
            let same_start = old.as_ref().filter(|old| old.usage.boot == usage.boot);
            let earlier = same_start.and_then(|old| old.usage.images.get(&id));
            let ops = image
                .ops
                .since(earlier.map_or_else(Ops::default, |earlier| earlier.ops));
            let sum = self.images.entry(id).or_default();
            sum.used = sum.used.saturating_add(image.used);
            sum.objects = sum.objects.saturating_add(image.objects);
            sum.ops = sum.ops.plus(ops);
            sum.parts += 1;
            let pool = self.ops.entry(id.pool()).or_default();
            *pool = pool.plus(ops);
        }
        if let Some(old) = old.filter(|old| old.shown) {
            self.subtract(&old.usage);
        }
        self.parts.insert(key, Part { usage, shown: true });
    }

    /// A part is not there any more.
    fn hide(&mut self, key: (OsdId, u32)) {
        let Some(mut part) = self.parts.remove(&key) else {
            return;
        };
        if std::mem::take(&mut part.shown) {
            self.subtract(&part.usage);
        }
        self.parts.insert(key, part);
    }

    /// Takes away what a part had; images that no part has are forgotten.
    fn subtract(&mut self, old: &ImagesUsage) {
        for (id, image) in &old.images {
            let Some(sum) = self.images.get_mut(id) else { continue };
            sum.used = sum.used.saturating_sub(image.used);
            sum.objects = sum.objects.saturating_sub(image.objects);
            sum.parts = sum.parts.saturating_sub(1);
            if sum.parts == 0 {
                self.images.remove(id);
            }
        }
    }

    /// Whether every OSD that is up has reported.
    pub(super) fn is_complete(&self, map: &ClusterMap) -> bool {
        map.osds.keys().all(|osd| self.pools.contains_key(osd))
    }

    /// What all OSDs have of an image.
    pub(super) fn image(&self, id: ImageId) -> ImageSum {
        self.images.get(&id).copied().unwrap_or_default()
    }

    /// What all OSDs have of a pool.
    pub(super) fn pool(&self, id: PoolId) -> PoolUsage {
        let reports = self.pools.values().filter_map(|report| report.pools.get(&id));
        reports.fold(PoolUsage::default(), |sum, pool| PoolUsage {
            used: sum.used.saturating_add(pool.used),
            objects: sum.objects.saturating_add(pool.objects),
            copies: sum.copies.saturating_add(pool.copies),
        })
    }

    /// Operations on a pool's images, as far as this gateway has seen.
    pub(super) fn pool_ops(&self, id: PoolId) -> Ops {
        self.ops.get(&id).copied().unwrap_or_default()
    }
}

fn decode<T: DeserializeOwned>(kv: &KeyValue) -> Option<T> {
    serde_json::from_slice(&kv.value).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trivet_core::usage::OpCount;

    use trivet_core::kv::Event;

    use super::*;

    const IMAGE: ImageId = ImageId(0x1_0000_0000_0400);

    fn kv(key: &str, value: &str, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            mod_revision,
        }
    }

    /// One image in part 0 of an OSD.
    fn part(osd: u32, boot: u64, used: u64, reads: u64, revision: Revision) -> Event {
        let value = format!(
            r#"{{"boot":{boot},"images":{{"{IMAGE}":{{"used":{used},"objects":1,"read":[{reads},{reads},0]}}}}}}"#
        );
        Event::Put(kv(&usage::images(OsdId(osd), 0), &value, revision))
    }

    fn gone(osd: u32, revision: Revision) -> Event {
        Event::Delete {
            key: usage::images(OsdId(osd), 0),
            revision,
        }
    }

    /// Bytes used, and reads, of the image and of its pool.
    fn seen(usages: &Usages) -> (u64, u64, u64) {
        let image = usages.image(IMAGE);
        (image.used, image.ops.read.count, usages.pool_ops(PoolId(1)).read.count)
    }

    #[test]
    fn parts_add_up_and_counters_only_rise() {
        let steps = [
            ("the first OSD", part(1, 5, 4096, 10, 1), (4096, 10, 10)),
            ("another one", part(2, 6, 8192, 3, 2), (12_288, 13, 13)),
            ("more on it", part(2, 6, 4096, 5, 3), (8192, 15, 15)),
            ("it lost its lease", gone(2, 4), (4096, 15, 15)),
            ("and has another one", part(2, 6, 4096, 6, 5), (8192, 16, 16)),
            ("it is gone", gone(2, 6), (4096, 16, 16)),
            ("and starts anew", part(2, 7, 4096, 4, 7), (8192, 20, 20)),
            ("counters began anew", part(2, 7, 4096, 1, 8), (8192, 21, 21)),
            ("an old event", part(2, 7, 0, 9, 0), (8192, 21, 21)),
            ("both are gone", gone(1, 10), (4096, 21, 21)),
            ("the image is not reported any more", gone(2, 11), (0, 0, 21)),
        ];
        let mut usages = Usages::default();
        for (name, event, expected) in steps {
            let known = match &event {
                Event::Put(kv) if kv.mod_revision > 0 => kv.mod_revision - 1,
                Event::Put(_) => 9,
                Event::Delete { revision, .. } => revision - 1,
            };
            let events = vec![event];
            usages.apply(&Notice::Changes { revision: 99, events }, known);
            assert_eq!(seen(&usages), expected, "{name}");
        }
    }

    #[test]
    fn a_snapshot_replaces_what_is_shown_and_not_what_was_counted() {
        let mut usages = Usages::default();
        let events = vec![part(1, 5, 4096, 10, 1), part(2, 6, 4096, 10, 1)];
        usages.apply(&Notice::Changes { revision: 1, events }, 0);
        let Event::Put(later) = part(1, 5, 8192, 12, 2) else {
            panic!()
        };
        let pools = kv(
            "usage/1/pools",
            r#"{"pools":{"1":{"used":8192,"objects":1,"copies":2}}}"#,
            2,
        );
        let keys = vec![later, pools, kv("usage/3/pools", "not json", 2)];
        usages.apply(&Notice::Snapshot { revision: 2, keys }, 1);
        assert_eq!(seen(&usages), (8192, 22, 22));
        let pool = PoolUsage {
            used: 8192,
            objects: 1,
            copies: 2,
        };
        assert_eq!(usages.pool(PoolId(1)), pool);
        assert_eq!(usages.image(IMAGE).ops.read, OpCount::from([22, 22, 0]));
        let keys = Vec::new();
        usages.apply(&Notice::Snapshot { revision: 1, keys }, 2);
        assert_eq!(seen(&usages), (8192, 22, 22), "an old snapshot");
    }
}
