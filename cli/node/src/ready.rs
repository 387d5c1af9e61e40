//! Saying that the process serves: a line on stdout, and a word to systemd.

use std::io::Write;

/// Prints what there is to say and, last, `ready`.
pub fn say(before: &str) {
    let mut stdout = std::io::stdout().lock();
    // A closed stdout is no reason not to serve.
    let _ = writeln!(stdout, "{before}ready").and_then(|()| stdout.flush());
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}
