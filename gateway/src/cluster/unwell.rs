//! What is wrong with the metadata store, with this gateway, and with the work of its clients.

use std::time::Duration;

use trivet_api::counted;
use trivet_core::Now;

use crate::gateway::Gateway;
use crate::overview::Inside;

/// A metadata store whose answers take longer makes everything that changes slow.
const SLOW: Duration = Duration::from_millis(300);
/// Work of clients that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(10);

impl Gateway {
    /// Says what is wrong with the metadata store, with itself and with what clients wait for.
    pub(crate) fn look_within(&self, found: &mut Inside) {
        let fresh = &self.freshness;
        if let Some(why) = self.why_stale() {
            let what = "nothing is opened by its name until that is over; what is open goes on";
            found.broken.push(format!("{why}; {what}"));
        } else if let Some(why) = fresh.failing() {
            found.doubtful.push(format!("no answer from the metadata store: {why}"));
        } else if fresh.latency() > SLOW {
            let millis = fresh.latency().as_millis();
            found
                .doubtful
                .push(format!("the metadata store is slow: it answers in {millis} ms"));
        }
        if fresh.is_full() {
            let what = "no OSD can take over and no name change; compact, defragment and disarm its alarm";
            found.broken.push(format!("the metadata store is full: {what}"));
        }
        if self.is_ready() && !self.client.map().gateways.contains_key(&self.id) {
            let why = "this gateway is not registered in the metadata store: others may go on with what it began";
            found.doubtful.push(why.to_owned());
        }
        let waiting = self.waiting_for_memory();
        if waiting > 0 {
            let budget = self.memory.budget >> 20;
            let clients = counted(waiting, "client waits", "clients wait");
            let what = format!("{clients} for memory: others' data takes most of {budget} MiB");
            found.doubtful.push(what);
        }
        let now = self.clock.now;
        let works = [
            stuck(
                ["read or write of a client", "reads and writes of clients"],
                now,
                self.io_starts(),
            ),
            stuck(
                ["change of names of a client", "changes of names of clients"],
                now,
                self.change_starts(),
            ),
            stuck(
                ["fence of a gateway that is gone", "fences of gateways that are gone"],
                now,
                self.fence_starts(),
            ),
        ];
        found.doubtful.extend(works.into_iter().flatten());
        found.stuck = self.stuck_removals();
    }
}

/// How many of these, called so if it is one and if there are many, began long ago, in words.
fn stuck([one, many]: [&str; 2], now: Now, starts: impl Iterator<Item = Now>) -> Option<String> {
    let ages = starts.map(|start| now.since(start)).filter(|age| *age >= STUCK);
    let (count, oldest) = ages.fold((0_u64, Duration::ZERO), |(count, oldest), age| {
        (count + 1, oldest.max(age))
    });
    let seconds = oldest.as_secs();
    match count {
        0 => None,
        1 => Some(format!("1 {one} is stuck, for {seconds} s")),
        _ => Some(format!("{count} {many} are stuck, the oldest for {seconds} s")),
    }
}
