//! One test per target.

use std::io::Write;

use crate::driver::{Plan, run};
use crate::targets::TARGETS;

/// Runs a target as the environment says; the report is seen even when the test passes.
fn smoke(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of the list");
    let Some(plan) = Plan::from_environment(target) else {
        return;
    };
    let report = run(target, plan).unwrap_or_else(|finding| panic!("{finding}"));
    writeln!(std::io::stderr(), "{report}").expect("stderr is there");
}

macro_rules! smoke {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            smoke(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            let tests = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(tests));
        }
    };
}

smoke!(nbd, iscsi, scsi, nfs, namespace, wire, store);
