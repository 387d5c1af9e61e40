//! How a command says that it failed: in one line on stderr; with `--json`, in one line of the JSON that the admin API has
//! for failures. Whatever the text holds, it stays one line.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind as ClapKind};
use trivet_api::{AdminError, ErrorBody, ErrorKind};

use crate::render::one_line;

/// A command could not be carried out.
pub fn tell(json: bool, error: &anyhow::Error) -> ExitCode {
    let message = format!("{error:#}");
    if json {
        say_json(kind(error), message)
    } else {
        say(&message)
    }
}

/// What the admin API called it, if it was the one that refused; what it does not know is the command's own fault.
fn kind(error: &anyhow::Error) -> ErrorKind {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<AdminError>());
    refused.map_or(ErrorKind::Internal, |refused| refused.kind)
}

/// One line for people.
pub fn say(text: &str) -> ExitCode {
    write_line(&format!("trivet: {}", one_line(text)))
}

fn say_json(kind: ErrorKind, message: String) -> ExitCode {
    let error = AdminError::new(kind, message);
    match serde_json::to_string(&ErrorBody { error }) {
        Ok(line) => write_line(&line),
        Err(error) => say(&error.to_string()),
    }
}

fn write_line(line: &str) -> ExitCode {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::FAILURE
}

/// What clap did not accept: help and version are no errors, a bad value gets one line, the rest clap explains.
pub fn usage(error: &clap::Error) -> ExitCode {
    let is_help = !error.use_stderr() || error.kind() == ClapKind::DisplayHelpOnMissingArgumentOrSubcommand;
    // The arguments have not become options: that this is one of them is a guess.
    let json = !is_help && std::env::args_os().any(|word| word == "--json");
    match bad_value(error) {
        why if json => say_json(ErrorKind::Invalid, why.unwrap_or_else(|| first_line(error))),
        Some(why) => say(&why),
        None => {
            // As above.
            let _ = error.print();
            if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

fn bad_value(error: &clap::Error) -> Option<String> {
    let why = error.source().filter(|_| error.kind() == ClapKind::ValueValidation)?;
    Some(match error.get(ContextKind::InvalidArg) {
        Some(argument) => format!("{argument}: {why}"),
        None => why.to_string(),
    })
}

/// Of clap's explanation.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
