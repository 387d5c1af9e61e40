//! A linear program as a second opinion: by how much the best plan fills its fullest OSD, if PGs could be cut into pieces.
//! Plans, and the measure that they are judged by, must not fall short of it.

use std::collections::BTreeMap;

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, microlp, variable};
use trivet_core::OsdId;
use trivet_core::keys::Plan;
use trivet_mon::placement::Inputs;

use crate::scenario::{fair, planned};
use crate::scenarios;

/// Space that must be usable, of what the program says.
const UNIFORM: f64 = 0.96;

/// Weights are counted in TB: a solver's numbers should be near 1.
const TB: f64 = (1_u64 << 40) as f64;

/// PG members per TB on the fullest OSD, at least: as many members as there must be, and no failure domain has a PG twice.
fn least_level(inputs: &Inputs) -> f64 {
    let mut program = ProblemVariables::new();
    let level = program.add(variable().min(0));
    let shares: Vec<Variable> = inputs.osds.iter().map(|_| program.add(variable().min(0))).collect();
    let mut domains: BTreeMap<usize, Expression> = BTreeMap::new();
    for (osd, &share) in inputs.osds.iter().zip(&shares) {
        *domains.entry(osd.domain).or_default() += share;
    }
    let pgs = f64::from(inputs.pg_count);
    let members = pgs * inputs.replicas.min(domains.len()) as f64;
    let all: Expression = shares.iter().copied().sum();
    let mut model = program.minimise(level).using(microlp).with(all.eq(members));
    for (osd, &share) in inputs.osds.iter().zip(&shares) {
        model = model.with((share - level * (osd.weight as f64 / TB)).leq(0));
    }
    for domain in domains.into_values() {
        model = model.with(domain.leq(pgs));
    }
    model.solve().unwrap().value(level)
}

/// The same of what OSDs hold.
fn fullest(inputs: &Inputs, held: &BTreeMap<OsdId, f64>) -> f64 {
    let levels = inputs
        .osds
        .iter()
        .map(|osd| held.get(&osd.id).unwrap_or(&0.0) * TB / osd.weight as f64);
    levels.fold(0.0, f64::max)
}

fn held(plan: &Plan) -> BTreeMap<OsdId, f64> {
    let mut held = BTreeMap::new();
    for osd in plan.pgs.iter().flat_map(|pg| &pg.osds) {
        *held.entry(*osd).or_default() += 1.0;
    }
    held
}

#[test]
fn plans_are_as_even_as_a_linear_program_allows() {
    for scenario in scenarios() {
        let mut old = Plan::default();
        let first = ("first", scenario.inputs());
        for (change, inputs) in [first].into_iter().chain(scenario.changes()) {
            let name = format!("{}, {change}", scenario.name());
            let least = least_level(&inputs);
            let ideal = fullest(&inputs, &fair(&inputs));
            assert!(
                (ideal / least - 1.0).abs() < 1e-6,
                "{name}: the measure says {ideal}, the program {least}"
            );
            let plan = planned(&old, &inputs);
            let usable = least / fullest(&inputs, &held(&plan));
            assert!((UNIFORM..=1.000_001).contains(&usable), "{name}: {usable}");
            if change == "first" {
                old = plan;
            }
        }
    }
}
