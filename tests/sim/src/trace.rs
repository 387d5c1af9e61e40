//! The trace of a run: a hash over every event that was delivered, and its text for those who ask for it.

use std::fmt;

use trivet_core::Now;

use crate::random::mix;

/// Takes the lines of a trace.
pub type Sink = Box<dyn FnMut(fmt::Arguments<'_>)>;

/// The hash so far, and where the text goes.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    sink: Option<Sink>,
}

impl Trace {
    /// A trace whose lines go to `sink`.
    #[must_use]
    pub fn to(sink: Option<Sink>) -> Trace {
        Trace {
            hash: 0,
            events: 0,
            sink,
        }
    }

    /// One event was delivered: when, to whom, which, and what it was about.
    pub fn event(&mut self, now: Now, node: usize, kind: u8, digest: u64) {
        let word = now.0 ^ (node as u64) << 56 ^ u64::from(kind) << 48;
        self.hash = mix(self.hash.rotate_left(7) ^ word ^ digest.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.events += 1;
    }

    /// A line of text, made only if somebody reads it.
    pub fn line(&mut self, now: Now, text: fmt::Arguments<'_>) {
        if let Some(sink) = &mut self.sink {
            let (seconds, micros) = (now.0 / 1_000_000_000, now.0 / 1000 % 1_000_000);
            sink(format_args!("{seconds:4}.{micros:06} {text}"));
        }
    }

    /// Whether somebody reads it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.sink.is_some()
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events were delivered.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}
