//! Rules for what is written beside the code.

use crate::tree::Tree;

const DECISIONS: &str = "docs/decisions/";

/// A decision record is `NNNN-title.md`, has a title, and says what it costs or what was measured.
pub fn decisions(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.starts_with(DECISIONS)) {
        if !numbered(&path[DECISIONS.len()..]) {
            broken.push(format!("{path} is not named NNNN-title.md"));
        }
        if !text.lines().next().is_some_and(|line| line.starts_with("# ")) {
            broken.push(format!("{path} has no title"));
        }
        let weighed = |line: &str| {
            let line = line.to_lowercase();
            ["measured", "cost"].iter().any(|word| line.contains(word))
                && (line.starts_with('#') || line.starts_with("**"))
        };
        if !text.lines().any(weighed) {
            broken.push(format!("{path} has no part on what was measured or what it costs"));
        }
    }
    broken
}

fn numbered(name: &str) -> bool {
    let (number, rest) = name.split_at_checked(4).unwrap_or_default();
    number.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with('-') && rest.ends_with(".md")
}

/// No file names a folder of the machine that it was written on.
pub fn foreign_paths(tree: &Tree) -> Vec<String> {
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut broken = Vec::new();
    for (path, text) in tree.files() {
        let found = text
            .lines()
            .enumerate()
            .filter(|(_, line)| folders.iter().any(|folder| line.contains(folder)));
        broken.extend(found.map(|(at, _)| format!("{path}:{}", at + 1)));
    }
    broken
}

/// No comment only sends its reader to the head of the file.
pub fn riddles(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.rust() {
        let found = text.lines().enumerate().filter(|(_, line)| {
            let comment = line.trim().strip_prefix("/// See the module");
            comment.is_some_and(|rest| [".", "'s head."].contains(&rest))
        });
        broken.extend(found.map(|(at, _)| format!("{path}:{}", at + 1)));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::{decisions, foreign_paths, riddles};
    use crate::tree::assert_rule;

    #[test]
    fn finds_decisions_without_title_or_cost() {
        let good = "# One thread\nWhy.\n## What it costs\nMuch.\n";
        assert_rule(
            decisions,
            &[("docs/decisions/0001-one-thread.md", good), ("docs/x.md", "")],
            &[
                ("docs/decisions/one-thread.md", good),
                ("docs/decisions/0001-a.md", "One thread\n## What was measured\n"),
                ("docs/decisions/0001-a.md", "# One thread\nIt costs.\n"),
            ],
        );
    }

    #[test]
    fn finds_comments_that_say_nothing() {
        assert_rule(
            riddles,
            &[("a.rs", "/// A thing. See the module.\nstruct A;")],
            &[
                ("a.rs", "/// See the module.\nstruct A;"),
                ("a.rs", "    /// See the module's head.\n    fn a() {}"),
            ],
        );
    }

    #[test]
    fn finds_paths_of_a_machine() {
        let bad = format!("see {}notes", concat!("/wo", "rk/"));
        assert_rule(
            foreign_paths,
            &[("a.md", "the work/notes folder, /tmp/x")],
            &[("a.md", &bad), ("Makefile", &bad)],
        );
    }
}
