//! Every command line in the documents is one that clap accepts, and the README has every command.
//!
//! `[..]` may be left out, `a|b` is one of both, and ` | ` begins another command that may share the first word; words in
//! capitals stand for values.

use std::collections::BTreeSet;

use clap::{ArgMatches, Command, CommandFactory};

use super::Cli;

const README: &str = include_str!("../../../README.md");
const DOCUMENTS: [(&str, &str); 4] = [
    ("README.md", README),
    ("operating.md", include_str!("../../../docs/operating.md")),
    ("architecture.md", include_str!("../../../docs/architecture.md")),
    ("metadata-keys.md", include_str!("../../../docs/metadata-keys.md")),
];

/// The command lines of a document with the lines where they stand.
fn written(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut in_block = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let goes_on = line.starts_with(' ') && found.last().is_some_and(|(last, _)| at == *last);
            match found.last_mut().filter(|_| goes_on) {
                Some((last, command)) => {
                    *last = at + 1;
                    command.push_str(line);
                }
                None => found.extend(in_shell(line).map(|command| (at + 1, command))),
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            let spans = spans.filter(|span| span.starts_with("trivet "));
            found.extend(spans.map(|span| (at + 1, span.replace('\\', ""))));
        }
    }
    found
}

/// The commands of one line of a shell.
fn in_shell(line: &str) -> impl Iterator<Item = String> {
    let code = line.split(" # ").next().unwrap_or_default();
    let commands = code.split(['&', ';']).map(str::trim);
    let ours = commands.filter(|command| command.starts_with("trivet "));
    ours.map(str::to_owned)
}

/// What a command line with brackets and bars stands for: with nothing that may be left out, and with all of it.
fn variants(line: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for with_options in [false, true] {
        let plain = without_brackets(line, with_options);
        let choices = plain.split(' ').map(|word| word.split('|').count()).max().unwrap_or(1);
        for choice in 0..choices {
            all.extend(words(&plain, choice));
        }
    }
    all
}

fn without_brackets(line: &str, with_options: bool) -> String {
    let mut depth = 0;
    let mut kept = String::new();
    for c in line.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            c if depth == 0 || with_options => kept.push(c),
            _ => {}
        }
    }
    kept
}

/// The words with values in place of what stands for them; none if the choice is no word.
fn words(line: &str, choice: usize) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let choices: Vec<&str> = word.split('|').collect();
        let word = choices[choice % choices.len()];
        let is_value = words.last().is_some_and(|last| last.starts_with("--"));
        match word {
            ".." if choices.len() > 1 => return None,
            ".." if is_value => words.push("x".to_owned()),
            ".." => {}
            word => words.push(value(word.trim_end_matches(".."))),
        }
    }
    Some(words)
}

fn value(word: &str) -> String {
    let value = match word {
        "N" | "VALUE" => "1",
        "A" | "ADDRESS" => "127.0.0.1:1",
        "META" => "etcd://h:1/x",
        "POOL.N" => "1.0",
        word if word.chars().all(|c| c.is_ascii_uppercase()) => "x",
        word => word,
    };
    value.to_owned()
}

/// The commands that a line means: those after a bar may lack the program's name, and the first word behind it.
fn meanings(line: &str) -> Vec<Vec<String>> {
    let mut parts = line.split(" | ");
    let first = parts.next().unwrap_or_default();
    let shared = without_brackets(first, false);
    let shared = shared.split_whitespace().nth(1).unwrap_or_default();
    let mut all = vec![vec![first.to_owned()]];
    all.extend(parts.map(|part| vec![format!("trivet {shared} {part}"), format!("trivet {part}")]));
    all
}

/// The command that the words are, like "osd tag add"; or that they only name, without what it needs.
fn command_of(words: &[String]) -> Result<String, String> {
    let mut with_meta = words.to_vec();
    with_meta.extend(["--meta", "etcd://h:1/x"].map(str::to_owned));
    let parsed = Cli::command().try_get_matches_from(words);
    let parsed = parsed.or_else(|error| Cli::command().try_get_matches_from(&with_meta).map_err(|_| error));
    match parsed {
        Ok(matches) => Ok(chain(&matches)),
        Err(_) if is_named(&Cli::command(), &words[1..]) => Ok(words[1..].join(" ")),
        Err(error) => Err(error.to_string()),
    }
}

fn chain(matches: &ArgMatches) -> String {
    let Some((name, rest)) = matches.subcommand() else {
        return String::new();
    };
    format!("{name} {}", chain(rest)).trim_end().to_owned()
}

fn is_named(command: &Command, words: &[String]) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return true;
    };
    command
        .find_subcommand(first)
        .is_some_and(|found| is_named(found, rest))
}

/// What is wrong with a line; and the commands that it shows.
fn judged(line: &str, shown: &mut BTreeSet<String>) -> Option<String> {
    for readings in meanings(line) {
        let mut complaint = None;
        let understood = readings.iter().any(|reading| {
            let commands: Result<Vec<_>, _> = variants(reading).iter().map(|words| command_of(words)).collect();
            match commands {
                Ok(commands) => shown.extend(commands),
                Err(error) => {
                    complaint.get_or_insert(error);
                    return false;
                }
            }
            true
        });
        if !understood {
            return complaint;
        }
    }
    None
}

/// The commands that do something, by their words.
fn leaves(command: &Command, words: &str, found: &mut BTreeSet<String>) {
    let runs_alone = !command.is_subcommand_required_set() && !words.is_empty();
    if runs_alone || !command.has_subcommands() {
        found.insert(words.to_owned());
    }
    for sub in command.get_subcommands() {
        leaves(sub, format!("{words} {}", sub.get_name()).trim_start(), found);
    }
}

#[test]
fn every_documented_command_line_is_accepted() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, text) in DOCUMENTS {
        for (at, line) in written(text) {
            count += 1;
            let error = judged(&line, &mut BTreeSet::new());
            wrong.extend(error.map(|error| format!("{name}:{at}: {line}\n{error}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count > 50, "only {count} were found");
}

#[test]
fn the_readme_has_every_command() {
    let mut shown = BTreeSet::new();
    for (_, line) in written(README) {
        assert_eq!(judged(&line, &mut shown), None, "{line}");
    }
    let mut there = BTreeSet::new();
    leaves(&Cli::command(), "", &mut there);
    let missing: Vec<&String> = there.difference(&shown).collect();
    assert!(missing.is_empty(), "the README lacks {missing:?}");
}

/// `deploy/systemd` starts the roles with what this file says.
#[test]
fn the_options_of_the_units_are_accepted() {
    let file = include_str!("../../../deploy/systemd/trivet.env");
    let roles = [
        ("TRIVET_OSD", "osd run d"),
        ("TRIVET_GATEWAY", "gateway"),
        ("TRIVET_MON", "mon"),
    ];
    for (name, role) in roles {
        let options = file
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}_OPTIONS=")));
        let line = format!("trivet {role} {}", options.expect("each role has options"));
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            command_of(&words).map_err(|error| format!("{line}: {error}")),
            Ok(role.trim_end_matches(" d").to_owned())
        );
    }
}

#[test]
fn wrong_lines_are_found() {
    for line in [
        "trivet image make NAME --size 1G",
        "trivet image create NAME [--sizes 1G]",
        "trivet image ls | show NAME",
        "trivet osd reweight N 500",
        "trivet osd tag add|remove N TAG..",
        "trivet settings set osd_out_s|osd_in_s VALUE",
        "trivet osds",
    ] {
        assert!(judged(line, &mut BTreeSet::new()).is_some(), "{line}");
    }
    for line in [
        "trivet image ls | info NAME",
        "trivet osd run",
        "trivet [--api ..] status | mon ls",
    ] {
        assert_eq!(judged(line, &mut BTreeSet::new()), None, "{line}");
    }
    let text = "a `trivet status` b\n```\nx & trivet df && trivet up --data d # why\n   --osds 2\n```\n";
    let lines: Vec<String> = written(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["trivet status", "trivet df", "trivet up --data d   --osds 2"]);
}
