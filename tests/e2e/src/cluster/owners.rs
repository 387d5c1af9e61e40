//! Whether every object has an owner: what OSDs store is what pools count, what pools count is what images have, and
//! without images there is nothing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fleet::Fleet;

/// What was removed is gone by then, on OSDs that report every 5 s.
const GONE_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// Objects, as counted in three places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Of all images.
    pub images: u64,
    /// Of all pools.
    pub pools: u64,
    /// Copies on all OSDs, with what they remember of deleted ones for a minute.
    pub copies: u64,
}

impl Count {
    /// Whether every object is one of an image and, where it is told how many copies objects have, every copy one of
    /// such an object.
    fn agrees(self, replicas: Option<u64>) -> bool {
        let copies = replicas.map_or(self.copies, |replicas| self.pools * replicas);
        self.images == self.pools && self.copies == copies
    }
}

fn sum(told: &Value, list: &str) -> Result<u64> {
    let list = told[list].as_array().with_context(|| format!("no list {list}"))?;
    let each = list
        .iter()
        .map(|one| one["objects"].as_u64().context("not counted yet"));
    each.sum()
}

fn count(fleet: &Fleet, gateway: usize) -> Result<Count> {
    let told = |args: &str| -> Result<Value> {
        let said = fleet.admin(gateway, &format!("--json {args}"))?;
        Ok(serde_json::from_slice(&said.stdout)?)
    };
    Ok(Count {
        images: sum(&told("image ls")?, "images")?,
        pools: sum(&told("df")?, "pools")?,
        copies: sum(&told("osd ls")?, "osds")?,
    })
}

/// Waits until every object is one that an image has, as each gateway tells. With `replicas`, which takes a minute
/// longer, every copy on every OSD is to be one of so many of such an object.
///
/// # Errors
/// With the counts, when that takes too long.
pub fn wait_all_owned(fleet: &Fleet, replicas: Option<u64>) -> Result<Count> {
    let started = Instant::now();
    let mut last = None;
    for gateway in 0..fleet.gateways.len() {
        loop {
            let counted = count(fleet, gateway);
            if let Ok(counted) = counted
                && counted.agrees(replicas)
            {
                last = Some(counted);
                break;
            }
            ensure!(
                started.elapsed() < GONE_WITHIN,
                "at gateway {gateway}, copies of each {replicas:?}: {counted:?}"
            );
            thread::sleep(POLL);
        }
    }
    last.context("no gateway")
}

/// Removes all images, and waits until nothing is left of them: no object, with `replicas` no copy either.
///
/// # Errors
/// When something is left.
pub fn remove_everything(fleet: &Fleet, replicas: Option<u64>) -> Result<Duration> {
    let said = fleet.admin(0, "--json image ls")?;
    let list: Value = serde_json::from_slice(&said.stdout)?;
    for image in list["images"].as_array().context("no list of images")? {
        let path = image["path"].as_str().context("no path")?;
        fleet.admin(0, &format!("image rm {path}"))?;
    }
    let started = Instant::now();
    let left = wait_all_owned(fleet, replicas)?;
    ensure!(left.pools == 0, "{left:?}");
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Count, sum};

    #[test]
    fn sees_what_nobody_owns() {
        let count = |images, pools, copies| Count { images, pools, copies };
        assert!(count(3, 3, 6).agrees(Some(2)) && count(0, 0, 0).agrees(Some(2)));
        assert!(count(3, 3, 7).agrees(None) && !count(2, 3, 6).agrees(None));
        for wrong in [count(2, 3, 6), count(3, 3, 7), count(3, 3, 5)] {
            assert!(!wrong.agrees(Some(2)), "{wrong:?}");
        }
        assert_eq!(sum(&json!({"a": [{"objects": 1}, {"objects": 4}]}), "a").unwrap(), 5);
        assert!(sum(&json!({"a": [{"objects": null}]}), "a").is_err() && sum(&json!({}), "a").is_err());
    }
}
