//! Disks in memory (tmpfs): the operation is a copy, so the loop makes it itself, up to a budget per turn.
//!
//! A flush succeeds without a system call: tmpfs has nothing behind it.

use std::collections::VecDeque;

use super::job::{Done, Job};

/// What an operation counts for at least, in bytes: a system call is not free either.
const MIN_WEIGHT: usize = 4096;

pub(crate) struct Inline {
    waiting: VecDeque<Job>,
    budget: usize,
    left: usize,
}

impl Inline {
    /// `budget` is in bytes per turn.
    pub(crate) fn new(budget: usize) -> Inline {
        Inline {
            waiting: VecDeque::new(),
            budget,
            left: budget,
        }
    }

    /// Runs a job at once if the budget allows and none waits before it.
    pub(crate) fn push(&mut self, job: Job, done: &mut Vec<Done>) {
        if self.waiting.is_empty() && self.left > 0 {
            self.run(job, done);
        } else {
            self.waiting.push_back(job);
        }
    }

    pub(crate) fn start_turn(&mut self, done: &mut Vec<Done>) {
        self.left = self.budget.max(1);
        while self.left > 0 {
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            self.run(job, done);
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn run(&mut self, job: Job, done: &mut Vec<Done>) {
        self.left = self.left.saturating_sub(job.weight().max(MIN_WEIGHT));
        done.push(job.run(false));
    }
}
