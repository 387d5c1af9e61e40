//! What the documents name: files, links, functions of the code, deliberate bugs.

use std::collections::BTreeSet;

use crate::tree::Tree;

const TESTING: &str = "docs/testing.md";
/// Where the bugs are that the simulator looks for, with how the document calls the machines.
const BUGS: [(&str, &str); 4] = [
    ("osd", "osd/src/options.rs"),
    ("client", "cluster/client/src/mutant.rs"),
    ("mon", "mon/src/mutant.rs"),
    ("gateway", "gateway/src/options.rs"),
];

/// Files and functions that documents name in backticks exist, and a function is in the file in which it is said to be.
pub fn of_code(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let words = words(tree);
    for (path, at, line) in lines(tree) {
        let spans: Vec<&str> = line.split('`').collect();
        for (index, span) in spans.iter().enumerate().skip(1).step_by(2) {
            if is_file(span) {
                let missing = alternatives(span)
                    .into_iter()
                    .filter(|name| files(tree, name).next().is_none());
                broken.extend(missing.map(|name| format!("{path}:{at}: there is no file {name}")));
            } else if span.contains("::") && is_path(span) {
                let missing = span.split("::").filter(|word| !words.contains(word));
                broken.extend(missing.map(|word| format!("{path}:{at}: nothing is called {word}, as in {span}")));
            } else if let [" in ", file] = spans.get(index + 1..index + 3).unwrap_or_default()
                && is_path(span)
                && is_file(file)
                && !files(tree, file).any(|text| has_word(text, span))
            {
                broken.push(format!("{path}:{at}: {file} has no {span}"));
            }
        }
    }
    broken
}

/// Links to files of the repository lead to one, and to a heading that it has.
pub fn links(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, at, line) in lines(tree) {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let full = if file.is_empty() {
                path.to_owned()
            } else {
                beside(path, file)
            };
            let is_folder = || tree.files().any(|(other, _)| other.starts_with(&format!("{full}/")));
            let leads = match tree.text(&full) {
                Some(text) => heading.is_empty() || text.lines().any(|line| anchor(line).as_deref() == Some(heading)),
                None => is_folder(),
            };
            if !leads {
                broken.push(format!("{path}:{at}: the link {target} leads nowhere"));
            }
        }
    }
    broken
}

/// The table of deliberate bugs has all of them, and no other.
pub fn bugs(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (machine, source) in BUGS {
        let row = format!("| {machine} | ");
        let rows = tree.text(TESTING).unwrap_or_default().lines().enumerate();
        let Some((at, cell)) = rows
            .filter_map(|(at, line)| Some((at + 1, line.strip_prefix(&row)?)))
            .next()
        else {
            broken.push(format!("{TESTING} has no bugs of {machine}"));
            continue;
        };
        let told: BTreeSet<&str> = cell
            .split([',', '|'])
            .filter_map(|bug| bug.split_whitespace().next())
            .collect();
        let made = variants(tree.text(source).unwrap_or_default(), "pub enum Mutant {");
        let untold = made
            .difference(&told)
            .map(|bug| format!("{TESTING}:{at}: {source} has {bug}, too"));
        let unmade = told
            .difference(&made)
            .map(|bug| format!("{TESTING}:{at}: {source} has no {bug}"));
        broken.extend(untold.chain(unmade));
    }
    broken
}

/// The lines of the documents: path, number, text.
fn lines(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    let documents = tree
        .files()
        .filter(|(path, _)| *path == "README.md" || path.starts_with("docs/"));
    documents.flat_map(|(path, text)| text.lines().enumerate().map(move |(at, line)| (path, at + 1, line)))
}

fn is_file(span: &str) -> bool {
    span.ends_with(".rs") && !span.contains(' ')
}

/// "a/{b,c}.rs": both.
fn alternatives(name: &str) -> Vec<String> {
    let parts = name
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (names, after))) => names.split(',').map(|name| format!("{before}{name}{after}")).collect(),
        None => vec![name.to_owned()],
    }
}

/// The texts of the files that may be meant.
fn files<'a>(tree: &'a Tree, name: &str) -> impl Iterator<Item = &'a str> {
    let end = format!("/{name}");
    let whole = name.to_owned();
    let found = tree
        .files()
        .filter(move |(path, _)| *path == whole || path.ends_with(&end));
    found.map(|(_, text)| text)
}

fn is_path(span: &str) -> bool {
    span.starts_with(|c: char| c.is_ascii_alphabetic()) && span.chars().all(|c| is_of_word(c) || c == ':')
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn words(tree: &Tree) -> BTreeSet<&str> {
    tree.rust()
        .flat_map(|(_, text)| text.split(|c| !is_of_word(c)))
        .collect()
}

fn has_word(text: &str, span: &str) -> bool {
    span.split("::")
        .all(|word| text.split(|c| !is_of_word(c)).any(|other| other == word))
}

/// The path of a file that is named from another one.
fn beside(path: &str, file: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.trim_end_matches('/').split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// How links name a heading.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

fn variants<'a>(text: &'a str, head: &str) -> BTreeSet<&'a str> {
    let body = text.split_once(head).map_or("", |(_, body)| body);
    let body = body.split("\n}").next().unwrap_or_default();
    let names = body.lines().filter_map(|line| line.trim().strip_suffix(','));
    names.filter(|name| name.chars().all(is_of_word)).collect()
}

#[cfg(test)]
mod tests {
    use super::{bugs, links, of_code};
    use crate::tree::{Rule, Tree};

    const CODE: (&str, &str) = ("osd/src/serve.rs", "impl Osd { fn admit() {} }");

    fn say(rule: Rule, text: &str) -> usize {
        let other = ("docs/b.md", "# One: two `x` (3)\n");
        rule(&Tree::of(&[("docs/a.md", text), other, CODE])).len()
    }

    #[test]
    fn finds_names_that_the_code_does_not_have() {
        let good =
            "`admit` in `serve.rs`, `Osd::admit`, `osd/src/serve.rs`, `src/{serve,serve}.rs`, `name` in `x.json`";
        assert_eq!(say(of_code, good), 0);
        let bad = [
            "`admits` in `serve.rs`",
            "`Osd::admits`",
            "`lane.rs`",
            "`rve.rs`",
            "`src/{serve,lane}.rs`",
        ];
        for text in bad {
            assert_eq!(say(of_code, text), 1, "{text}");
        }
    }

    #[test]
    fn finds_links_that_lead_nowhere() {
        let good = "[a](b.md) [b](b.md#one-two-x-3) [c](../docs/b.md) [d](../osd) [e](https://x/y) [f](#own)\n## Own";
        assert_eq!(say(links, good), 0);
        for text in ["[a](c.md)", "[a](b.md#two)", "[a](../b.md)", "[a](#other)"] {
            assert_eq!(say(links, text), 1, "{text}");
        }
    }

    #[test]
    fn finds_bugs_that_are_not_told() {
        let code = "/// A bug.\npub enum Mutant {\n    /// One.\n    Early,\n    /// Two.\n    Late,\n}\n";
        let say = |row: &str| {
            let text = format!("| osd | {row} |\n| client | Early 1, Late none |\n| mon | Early 1, Late none |\n");
            let sources = super::BUGS.map(|(_, path)| (path, code));
            let mut files = vec![(super::TESTING, &*text)];
            files.extend(&sources[..3]);
            bugs(&Tree::of(&files))
        };
        assert_eq!(say("Early 1, Late none"), ["docs/testing.md has no bugs of gateway"]);
        assert_eq!(say("Early 1").len(), 2);
        assert_eq!(say("Early 1, Late 2, Never 3").len(), 2);
    }
}
