//! Targets that must fail: they prove that the driver finds what it is there for.

use std::time::Duration;

use crate::driver::{End, Fault, Finding, Plan, SLOW, run};
use crate::generate::input;
use crate::targets::Target;

/// Longer than [`SLOW`], and no longer than the test needs.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the corpus has and noise does not.
const MAGIC: &[u8] = b"CANARY\0\x07";

fn samples() -> Vec<Vec<u8>> {
    vec![b"something else".to_vec(), [MAGIC, b"1234"].concat()]
}

/// The byte behind the magic, if that is where it belongs and the corpus does not have it.
fn mutated(data: &[u8]) -> Option<u8> {
    let next = *data.strip_prefix(MAGIC)?.first()?;
    (next != b'1').then_some(next)
}

fn panics(data: &[u8]) {
    assert!(mutated(data).is_none(), "planted");
}

fn dawdles(data: &[u8]) {
    if mutated(data).is_some() {
        std::thread::sleep(SLOW + Duration::from_millis(10));
    }
}

/// Does not come back while anybody looks.
fn hangs(data: &[u8]) {
    if mutated(data).is_some() {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

static PANICS: Target = Target {
    name: "panics",
    run: panics,
    corpus: samples,
    inputs: 10_000,
};
static DAWDLES: Target = Target {
    name: "dawdles",
    run: dawdles,
    corpus: samples,
    inputs: 10_000,
};
static HANGS: Target = Target {
    name: "hangs",
    run: hangs,
    corpus: samples,
    inputs: 10_000,
};

fn find(target: &'static Target) -> Finding {
    let plan = Plan {
        seed: 1,
        patience: PATIENCE,
        end: End::Inputs(target.inputs),
    };
    *run(target, plan).expect_err("the canary was not found")
}

#[test]
fn a_panic_behind_a_magic_prefix_is_found_and_replayed() {
    let finding = find(&PANICS);
    assert_eq!(finding.fault, Fault::Panic("planted".to_owned()));
    assert_eq!(finding.input, input(finding.seed, &samples()));
    let text = finding.to_string();
    assert!(text.contains("43414e4152590007"), "{text}");
    assert!(
        text.contains(&format!("TRIVET_FUZZ_SEED={} TRIVET_FUZZ_TARGET=panics ", finding.seed)),
        "{text}"
    );
    let plan = Plan {
        seed: finding.seed,
        patience: PATIENCE,
        end: End::Inputs(1),
    };
    assert_eq!(*run(&PANICS, plan).expect_err("it is replayed"), finding);
}

#[test]
fn a_slow_input_is_found() {
    assert_eq!(find(&DAWDLES).fault, Fault::Slow);
}

#[test]
fn an_input_that_never_ends_is_found() {
    assert_eq!(find(&HANGS).fault, Fault::Hung);
}

#[test]
fn a_sound_target_passes() {
    static SOUND: Target = Target {
        name: "sound",
        run: |_| (),
        corpus: samples,
        inputs: 0,
    };
    let report = run(
        &SOUND,
        Plan {
            seed: 1,
            patience: PATIENCE,
            end: End::Inputs(100),
        },
    )
    .expect("nothing is wrong");
    assert_eq!(report.inputs, 100);
    assert!(report.bytes > 0);
}
