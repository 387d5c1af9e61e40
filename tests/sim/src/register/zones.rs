//! The check of one sector.
//!
//! In any order that explains the history, a value is there from its write to its last read without a gap. So a
//! value whose last invocation comes after its first return (a forward zone) owns the time between. Nothing
//! else can happen wholly within that time.
//!
//! A zero read needs a zeroing operation (or the beginning) as the last change before it. If a value's first
//! return was before the read's invocation and the value does not come later, the zeroing came after the value's
//! last invocation: that is the window in which a zeroing must be found, and windows that do not meet need one
//! each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Cluster, NONE, Op, Sector};

/// The end of what never returned.
const NEVER: u64 = u64::MAX;

/// Operations that contradict each other; some may be [`NONE`].
pub struct Suspect {
    pub what: &'static str,
    pub operations: Vec<u32>,
}

fn suspect(what: &'static str, operations: Vec<u32>) -> Result<(), Suspect> {
    Err(Suspect { what, operations })
}

/// The zone of a value that was certainly there at some time.
#[derive(Clone, Copy)]
struct Zone {
    first_return: u64,
    last_invocation: u64,
    cluster: Cluster,
}

/// When an operation must have happened, both ends included.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
    op: u32,
}

/// Checks the history of a sector.
pub fn check(ops: &[Op], sector: &Sector) -> Result<(), Suspect> {
    if sector.clusters.is_empty() {
        return Ok(());
    }
    let mut zones: Vec<Zone> = sector
        .clusters
        .iter()
        .filter_map(|cluster| zone(ops, *cluster))
        .collect();
    zones.sort_unstable_by_key(|zone| zone.first_return);
    let forward: Vec<Zone> = zones.iter().copied().filter(Zone::is_forward).collect();
    check_forward(&forward)?;
    check_backward(&forward, &zones)?;
    if sector.zeroes.is_empty() && sector.zero_reads.is_empty() {
        return Ok(());
    }
    let zeroes = clip_all(ops, &sector.zeroes, &forward, "a value outlived a zeroing")?;
    let reads = clip_all(ops, &sector.zero_reads, &forward, "a value vanished and came back")?;
    check_zeroes(&zones, zeroes, &reads)
}

fn returned(op: &Op) -> u64 {
    op.returned.map_or(NEVER, |point| point.tick)
}

fn zone(ops: &[Op], cluster: Cluster) -> Option<Zone> {
    let write = &ops[cluster.write as usize];
    let (mut first_return, mut last_invocation) = (returned(write), write.invoked.tick);
    if write.repeated {
        let last = ops.get(cluster.last as usize).map_or(0, |read| read.invoked.tick);
        if last > first_return {
            last_invocation = last;
        }
    } else if let (Some(first), Some(last)) = (ops.get(cluster.first as usize), ops.get(cluster.last as usize)) {
        // It happened, then: if it had a time by which it must have, that counts as its return.
        let latest = write.latest.map_or(NEVER, |point| point.tick);
        first_return = first_return.min(returned(first)).min(latest);
        last_invocation = last_invocation.max(last.invoked.tick);
    }
    (first_return != NEVER).then_some(Zone {
        first_return,
        last_invocation,
        cluster,
    })
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_return < self.last_invocation
    }

    fn operations(&self) -> [u32; 3] {
        [self.cluster.write, self.cluster.first, self.cluster.last]
    }
}

/// No two values own the same time. The zones are sorted.
fn check_forward(forward: &[Zone]) -> Result<(), Suspect> {
    for pair in forward.windows(2) {
        if pair[1].first_return < pair[0].last_invocation {
            let operations = [pair[0].operations(), pair[1].operations()].concat();
            return suspect(
                "two values were there at the same time: an old one came back",
                operations,
            );
        }
    }
    Ok(())
}

/// Nothing happened wholly within the time of another value.
fn check_backward(forward: &[Zone], zones: &[Zone]) -> Result<(), Suspect> {
    for zone in zones.iter().filter(|zone| !zone.is_forward()) {
        if let Some(owner) = owner(forward, zone.last_invocation)
            && zone.first_return < owner.last_invocation
        {
            let operations = [owner.operations(), zone.operations()].concat();
            return suspect("a value outlived a later one", operations);
        }
    }
    Ok(())
}

/// The forward zone that this time is within.
fn owner(forward: &[Zone], time: u64) -> Option<&Zone> {
    let after = forward.partition_point(|zone| zone.first_return < time);
    let last = forward.get(after.checked_sub(1)?)?;
    (time < last.last_invocation).then_some(last)
}

/// When each operation can have happened, given whose the time is: what ends within a value's time came before it.
fn clip_all(ops: &[Op], numbers: &[u32], forward: &[Zone], what: &'static str) -> Result<Vec<Span>, Suspect> {
    let mut spans = Vec::with_capacity(numbers.len());
    for &number in numbers {
        let op = &ops[number as usize];
        let (from, mut to) = (op.invoked.tick, returned(op));
        if let Some(zone) = owner(forward, to) {
            if zone.first_return < from {
                suspect(what, [&zone.operations()[..], &[number]].concat())?;
            }
            to = zone.first_return;
        }
        spans.push(Span { from, to, op: number });
    }
    Ok(spans)
}

/// Every zero read has a zeroing that explains it.
fn check_zeroes(zones: &[Zone], mut zeroes: Vec<Span>, reads: &[Span]) -> Result<(), Suspect> {
    let latest = running_latest(zones);
    let mut windows: Vec<(Span, u32)> = reads.iter().filter_map(|read| window(zones, &latest, read)).collect();
    windows.sort_unstable_by_key(|(window, _)| window.to);
    zeroes.sort_unstable_by_key(|zero| zero.from);
    check_each(&windows, &zeroes)?;
    check_together(&windows, &zeroes)
}

/// For each zone, by first return, the latest last invocation so far and whose it is.
fn running_latest(zones: &[Zone]) -> Vec<(u64, u32)> {
    let mut latest = (0, NONE);
    let update = |zone: &Zone| {
        latest = latest.max((zone.last_invocation, zone.cluster.write));
        latest
    };
    zones.iter().map(update).collect()
}

/// When the zeroing that a zero read saw must have happened, and the write that it undid; `None` if it may have
/// seen the beginning.
fn window(zones: &[Zone], latest: &[(u64, u32)], read: &Span) -> Option<(Span, u32)> {
    let before = zones.partition_point(|zone| zone.first_return < read.from);
    let (from, write) = *latest.get(before.checked_sub(1)?)?;
    let window = Span {
        from,
        to: read.to,
        op: read.op,
    };
    Some((window, write))
}

/// Each window meets some zeroing. Both are sorted: windows by their end, zeroings by their start.
fn check_each(windows: &[(Span, u32)], zeroes: &[Span]) -> Result<(), Suspect> {
    let (mut next, mut latest) = (0, 0);
    for (window, write) in windows {
        while let Some(zero) = zeroes.get(next).filter(|zero| zero.from <= window.to) {
            latest = latest.max(zero.to);
            next += 1;
        }
        if latest < window.from {
            suspect("zeroes after a write that nothing made zero", vec![*write, window.op])?;
        }
    }
    Ok(())
}

/// Windows that do not meet need different zeroings: each takes, of those that it meets, the one that ends first.
fn check_together(windows: &[(Span, u32)], zeroes: &[Span]) -> Result<(), Suspect> {
    let (mut next, mut end) = (0, 0);
    let mut open = BinaryHeap::new();
    for (window, write) in windows {
        if window.from <= end {
            continue;
        }
        end = window.to;
        while let Some(zero) = zeroes.get(next).filter(|zero| zero.from <= window.to) {
            open.push(Reverse(zero.to));
            next += 1;
        }
        while open.peek().is_some_and(|Reverse(to)| *to < window.from) {
            open.pop();
        }
        if open.pop().is_none() {
            suspect("zeroes more often than anything was made zero", vec![*write, window.op])?;
        }
    }
    Ok(())
}
