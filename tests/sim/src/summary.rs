//! What came of many seeds, for people and for the script that counts tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use trivet_sim::disk::DiskFaults;
use trivet_sim::run::Report;
use trivet_sim::trouble::Counts;
use trivet_sim::users::Traffic;

/// The sums over all seeds.
#[derive(Default)]
pub struct Summary {
    seeds: u64,
    /// Seeds with a violation.
    pub failed: u64,
    simulated: Duration,
    busy: Duration,
    events: u64,
    operations: u64,
    sectors: u64,
    lost: u64,
    copies: (u64, u64),
    traffic: Traffic,
    troubles: Counts,
    disks: DiskFaults,
    slowest: Option<(Duration, u64)>,
    /// The seeds with the fewest operations, and with the shortest time.
    fewest: Option<(u64, u64)>,
    shortest: Option<(Duration, u64)>,
}

impl Summary {
    /// One more seed, and how long it took.
    pub fn add(&mut self, report: &Report, took: Duration) {
        self.seeds += 1;
        self.failed += u64::from(report.violation.is_some());
        self.simulated += report.simulated;
        self.busy += took;
        self.events += report.events;
        self.operations += report.stats.operations;
        self.sectors += report.stats.sectors;
        self.lost += report.lost;
        self.copies.0 += report.copies.0;
        self.copies.1 += report.copies.1;
        self.traffic.merge(&report.traffic);
        self.troubles.merge(&report.troubles);
        self.disks.merge(&report.disks);
        self.slowest = self.slowest.max(Some((took, report.seed)));
        let fewest = (report.stats.operations, report.seed);
        self.fewest = Some(self.fewest.map_or(fewest, |least| least.min(fewest)));
        let shortest = (report.simulated, report.seed);
        self.shortest = Some(self.shortest.map_or(shortest, |least| least.min(shortest)));
    }

    /// How often each kind of fault was made, largest unit of all: troubles, and what disks did of themselves.
    fn faults(&self) -> BTreeMap<&'static str, u64> {
        let mut table: BTreeMap<&str, u64> = BTreeMap::new();
        let troubles = self.troubles.iter().map(|(trouble, count)| (trouble.name(), count));
        for (name, count) in troubles {
            *table.entry(name).or_default() += count;
        }
        table.insert("messages lost", self.lost);
        table
    }

    /// The table, the speed, and the sum.
    pub fn print(&self) {
        println!("faults made:");
        let faults = self.faults();
        for (name, count) in &faults {
            println!("  {name:<20} {:>10}", grouped(*count));
        }
        println!("what disks suffered:");
        for (name, count) in self.disks.iter().filter(|(_, count)| *count > 0) {
            println!("  {name:<20} {:>10}", grouped(count));
        }
        print_traffic(&self.traffic);
        let speed = self.simulated.as_secs_f64() / self.busy.as_secs_f64().max(1e-9);
        let per_seed = self.busy.as_secs_f64() / (self.seeds.max(1)) as f64;
        println!(
            "{speed:.0} times real time per core, {per_seed:.2} s per seed, {} events, {} operations per seed",
            grouped(self.events),
            self.operations / self.seeds.max(1),
        );
        println!(
            "{} acknowledgements with their copies counted, {} disks opened without their caches",
            grouped(self.copies.0),
            grouped(self.copies.1),
        );
        if let Some((took, seed)) = self.slowest {
            println!("slowest: seed {seed}, {:.2} s", took.as_secs_f64());
        }
        if let (Some((operations, few)), Some((time, short))) = (self.fewest, self.shortest) {
            println!("fewest operations: seed {few}, {}", grouped(operations));
            println!("shortest: seed {short}, {} s simulated", time.as_secs());
        }
        let passed = self.seeds - self.failed;
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {passed} passed; {} failed", self.failed);
        println!(
            "{} seeds, {} h simulated, {} operations checked, {} faults injected, {} violations",
            self.seeds,
            self.simulated.as_secs() / 3600,
            grouped(self.operations),
            grouped(faults.values().sum::<u64>()),
            self.failed,
        );
    }
}

/// What users did through gateways.
fn print_traffic(traffic: &Traffic) {
    let [nbd, iscsi, nfs] = traffic.answered.map(grouped);
    println!(
        "through gateways: NBD {nbd}, iSCSI {iscsi}, NFS {nfs} operations answered, {} of names; {} connections, {} repeats, {} taken over",
        grouped(traffic.names),
        grouped(traffic.connections),
        grouped(traffic.repeats),
        grouped(traffic.taken_over),
    );
}

/// What came of one seed.
pub fn print_one(report: &Report, took: Duration) {
    let troubles = report.troubles.iter().filter(|(_, count)| *count > 0);
    for (trouble, count) in troubles {
        println!("  {:<20} {count:>8}", trouble.name());
    }
    for (name, count) in report.disks.iter().filter(|(_, count)| *count > 0) {
        println!("  disk: {name:<20} {count:>8}");
    }
    print_traffic(&report.traffic);
    println!(
        "{} s simulated in {:.2} s, {} events, {} operations, {} indeterminate, trace {:016x}",
        report.simulated.as_secs(),
        took.as_secs_f64(),
        grouped(report.events),
        grouped(report.stats.operations),
        report.stats.indeterminate,
        report.hash,
    );
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a panic said.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::grouped(number), text);
        }
    }
}
