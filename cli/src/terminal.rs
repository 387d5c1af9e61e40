//! Where results go: to a terminal, which has only so many columns, or to a file or program, which takes all.

use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;

/// Of a terminal that does not say.
const USUAL_COLUMNS: usize = 80;

/// How many columns stdout has, if it is a terminal.
pub fn columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let told = tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
    Some(if told == 0 { USUAL_COLUMNS } else { told.into() })
}
