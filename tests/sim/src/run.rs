//! One seed from beginning to end, and what came of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use trivet_core::{Epoch, Now, PgId};

use crate::disk::DiskFaults;
use crate::mutants::Mutant;
use crate::register::Stats;
use crate::swarm::{Overrides, Swarm};
use crate::trace::Sink;
use crate::trouble::Counts;
use crate::users::Traffic;
use crate::world::{Phase, World};

/// After this time without faults everything has come together again.
const CONVERGENCE: Duration = Duration::from_secs(120);
/// After this time more tombstones are forgotten: they are kept for 60 s.
const FORGOTTEN: Duration = Duration::from_secs(90);
/// PGs may begin anew so often while tombstones are waited for.
const FORGETS: u32 = 5;
/// If small disks have not come together by then, everything is deleted.
const FULL: Duration = Duration::from_secs(60);
/// How long a hostile run goes on without faults.
const HOSTILE_END: Duration = Duration::from_secs(30);

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// The first thing that must not happen and did.
    pub violation: Option<String>,
    /// The time that passed in the simulation.
    pub simulated: Duration,
    /// Events that were delivered.
    pub events: u64,
    /// The hash of all of them.
    pub hash: u64,
    /// What was checked.
    pub stats: Stats,
    /// What went wrong.
    pub troubles: Counts,
    /// What that did to disks.
    pub disks: DiskFaults,
    /// What users did.
    pub traffic: Traffic,
    /// Messages that were lost.
    pub lost: u64,
    /// Acknowledgements whose copies were counted, and disks that were opened for it.
    pub copies: (u64, u64),
}

/// Runs a seed. A panic of any machine is a violation.
#[must_use]
pub fn run(seed: u64, overrides: &Overrides, mutant: Option<Mutant>, sink: Option<Sink>) -> Report {
    let swarm = Swarm::draw(seed, overrides);
    let result = catch_unwind(AssertUnwindSafe(|| World::new(swarm, mutant, sink).run()));
    result.unwrap_or_else(|panic| Report {
        seed,
        violation: Some(format!("panic: {}", words(panic.as_ref()))),
        simulated: Duration::ZERO,
        events: 0,
        hash: 0,
        stats: Stats::default(),
        troubles: Counts::default(),
        disks: DiskFaults::default(),
        traffic: Traffic::default(),
        lost: 0,
        copies: (0, 0),
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".into())
}

/// A run in which clients get too little done goes on for up to so many quarters of its length.
const LONGER: u32 = 60;

impl World {
    /// The whole run.
    #[must_use]
    pub fn run(mut self) -> Report {
        self.run_until(Now(0) + self.swarm.safety, |_| false);
        self.go_on_until_enough();
        self.phase = Phase::Liveness;
        if self.violation.is_none() {
            self.last_death();
            self.heal_everything();
            if self.swarm.hostile {
                self.run_until(self.now + HOSTILE_END, |_| false);
            } else {
                self.come_together();
            }
        }
        let stats = match self.history.check() {
            Ok(stats) => stats,
            Err(violation) => {
                self.fail(violation.to_string());
                Stats::default()
            }
        };
        Report {
            seed: self.swarm.seed,
            simulated: self.now.since(Now(0)),
            events: self.trace.events(),
            hash: self.trace.hash(),
            stats,
            troubles: self.counts.clone(),
            disks: self.disk_faults(),
            traffic: self.traffic,
            lost: self.network.lost,
            copies: (self.copies.checked, self.copies.opened),
            violation: self.violation,
        }
    }

    /// Where disks are full, clients wait until somebody makes room: that is done here, so that they get enough done.
    fn go_on_until_enough(&mut self) {
        let least = self.swarm.least;
        for _ in 0..LONGER {
            if self.history.answered() >= least || self.violation.is_some() {
                return;
            }
            if self.swarm.tight {
                self.make_room();
            }
            let limit = self.now + self.swarm.safety / 4;
            self.run_until(limit, |world| world.history.answered() >= least);
        }
    }

    fn make_room(&mut self) {
        if !self.clients[0].is_ready() {
            return;
        }
        for step in self.workload.erasures() {
            self.submit(0, step);
        }
    }

    /// Everything recovers, everything is read.
    fn come_together(&mut self) {
        let end = self.now + CONVERGENCE;
        let full = self.swarm.tight && !self.run_until(self.now + FULL, |world| world.apart().is_none());
        if full {
            // What a member has no room for cannot be healed before somebody makes room.
            self.make_room();
        }
        if !self.run_until(end, |world| world.apart().is_none()) {
            return self.not_together();
        }
        self.forget();
        self.phase = Phase::Scan;
        for step in self.workload.scan() {
            self.submit(0, step);
        }
        let end = self.now + CONVERGENCE;
        if !self.run_until(end, |world| world.waiting() == 0) {
            self.not_together();
        }
    }

    /// All tombstones go. A slow network may look like an OSD that is gone even now: a PG that then begins anew forgets
    /// later, and has the whole time once more. One that lost a member whose disk is full does not forget.
    fn forget(&mut self) {
        let mut left = FORGETS;
        loop {
            let epochs = self.epochs();
            let gone = self.run_until(self.now + FORGOTTEN, |world| world.unforgotten().is_none());
            let Some(why) = self.unforgotten().filter(|_| !gone) else {
                return;
            };
            if self.swarm.tight && !self.is_clean() {
                return;
            }
            left -= 1;
            if epochs == self.epochs() || left == 0 {
                let (seconds, state) = (FORGOTTEN.as_secs(), self.describe());
                return self.fail(format!("{seconds} s after the PGs are clean {why}: {state}"));
            }
        }
    }

    /// By PG, the epoch that was claimed last.
    fn epochs(&self) -> Vec<(PgId, Epoch)> {
        let histories = self.truth.histories.iter();
        histories.map(|(&pg, history)| (pg, history.value.epoch)).collect()
    }

    fn not_together(&mut self) {
        if let Some(why) = self.apart() {
            let state = self.describe();
            self.fail(format!(
                "{} s without faults, and {why}: {state}",
                CONVERGENCE.as_secs()
            ));
        }
    }
}
