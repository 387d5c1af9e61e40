//! `TRIVET_LOG`: how much of what is said goes to the log.
//!
//! Every part of it is checked: whoever wants to see more, and misspells it, is not to wait for lines that never come.

use std::env::{self, VarError};

use anyhow::{Context, bail, ensure};
use tracing_subscriber::EnvFilter;

/// The variable.
const VARIABLE: &str = "TRIVET_LOG";
/// What counts without it, and for modules that it does not name.
const USUAL: &str = "info";
/// From nothing to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the variable asks for.
///
/// # Errors
/// What of it means nothing.
pub fn from_env() -> anyhow::Result<EnvFilter> {
    let asked = match env::var(VARIABLE) {
        Ok(text) => text,
        Err(VarError::NotPresent) => String::new(),
        Err(VarError::NotUnicode(_)) => bail!("{VARIABLE} is not UTF-8; give a level, like debug"),
    };
    parse(&asked).context(VARIABLE)
}

/// Levels and `MODULE=LEVEL`, separated by commas.
fn parse(asked: &str) -> anyhow::Result<EnvFilter> {
    let parts = asked.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut parts: Vec<&str> = parts.collect();
    parts.iter().try_for_each(|part| check(part))?;
    if parts.iter().all(|part| part.contains('=')) {
        parts.push(USUAL);
    }
    Ok(EnvFilter::try_new(parts.join(","))?)
}

fn check(part: &str) -> anyhow::Result<()> {
    let (module, level) = match part.split_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, part),
    };
    let levels = LEVELS.join(", ");
    ensure!(
        LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)),
        "{level:?} is no level: give one of {levels}, or MODULE=LEVEL like trivet_gateway=debug, separated by commas"
    );
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    ensure!(
        module.is_none_or(|module| !module.is_empty() && module.chars().all(plain)),
        "{part:?} names no module: write it like trivet_gateway=debug"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn levels_and_modules_are_taken() {
        for (asked, most) in [
            ("", LevelFilter::INFO),
            (" , ", LevelFilter::INFO),
            ("off", LevelFilter::OFF),
            ("warn", LevelFilter::WARN),
            ("DEBUG", LevelFilter::DEBUG),
            ("trivet_gateway=debug", LevelFilter::DEBUG),
            ("warn, trivet_node::osds=trace", LevelFilter::TRACE),
            // The others are as without it.
            ("trivet_gateway=error", LevelFilter::INFO),
        ] {
            let filter = parse(asked).unwrap();
            assert_eq!(filter.max_level_hint(), Some(most), "{asked}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (asked, part) in [
            ("verbose", "\"verbose\" is no level"),
            ("info,2", "\"2\" is no level"),
            ("trivet_gateway", "\"trivet_gateway\" is no level"),
            ("trivet_gateway=", "\"\" is no level"),
            ("trivet_gateway=loud", "\"loud\" is no level"),
            ("=debug", "names no module"),
            ("a b=debug", "names no module"),
            ("info;debug", "\"info;debug\" is no level"),
            ("a[b]=debug", "names no module"),
        ] {
            let error = parse(asked).unwrap_err().to_string();
            assert!(error.contains(part), "{asked}: {error}");
        }
    }
}
