//! Rules for single source files: size, names, what must not stand in them.

use crate::rust_text::{code_only, functions, has_word};
use crate::tree::Tree;

/// A file longer than this is two files (lines).
const FILE_LINES: usize = 800;
/// Nine functions of ten are shorter than this (lines).
const SHORT_LINES: usize = 35;
const SHORT_SHARE: f64 = 0.9;

const SOURCES: &[&str] = &[".rs", ".c", ".h", ".py", ".sh"];
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "#[ignore"];
/// Lines of a crate's head that say what it is, promises and does not do.
const HEAD_LINES: usize = 3;

/// `unsafe` stands only in `cluster/reactor`.
pub fn no_unsafe(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|(path, _)| !path.starts_with("cluster/reactor/"))
        .filter(|(_, text)| has_word(&code_only(text), "unsafe"))
        .map(|(path, _)| path.to_owned())
        .collect()
}

/// No source file is longer than [`FILE_LINES`].
pub fn file_size(tree: &Tree) -> Vec<String> {
    tree.files()
        .filter(|(path, _)| SOURCES.iter().any(|end| path.ends_with(end)))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect()
}

/// Nine of ten functions are short. The hard limit for each one is clippy's.
pub fn function_length(tree: &Tree) -> Vec<String> {
    let mut lengths = Vec::new();
    for (path, text) in tree.rust() {
        let found = functions(&code_only(text));
        lengths.extend(found.into_iter().map(|(line, lines)| (lines, format!("{path}:{line}"))));
    }
    lengths.sort();
    let short = lengths.iter().filter(|(lines, _)| *lines < SHORT_LINES).count();
    #[expect(clippy::cast_precision_loss, reason = "a share of some thousands")]
    let enough = short as f64 >= SHORT_SHARE * lengths.len() as f64;
    if enough {
        return Vec::new();
    }
    let long = lengths
        .iter()
        .rev()
        .take(10)
        .map(|(lines, at)| format!("{at} has {lines} lines"));
    std::iter::once(format!("only {short} of {} functions are short", lengths.len()))
        .chain(long)
        .collect()
}

/// No module has a name that says nothing.
pub fn module_names(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.rust() {
        let parts = path.trim_end_matches(".rs").split('/');
        broken.extend(parts.filter(|part| EMPTY_NAMES.contains(part)).map(|_| path.to_owned()));
        let code = code_only(text);
        let inline = EMPTY_NAMES
            .iter()
            .filter(|name| has_word(&code, &format!("mod {name}")));
        broken.extend(inline.map(|name| format!("{path}: mod {name}")));
    }
    broken
}

/// No placeholder, no test that never runs.
pub fn nothing_unfinished(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.rust() {
        let code = code_only(text);
        broken.extend(
            UNFINISHED
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{path}: {word}")),
        );
    }
    broken
}

/// A crate's first lines are at least [`HEAD_LINES`] of `//!`.
pub fn crate_heads(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|(path, _)| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
        .filter(|(_, text)| text.lines().take_while(|line| line.starts_with("//!")).count() < HEAD_LINES)
        .map(|(path, _)| format!("{path} does not say what the crate is, promises and does not do"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::assert_rule;

    #[test]
    fn finds_unsafe() {
        let text = "fn f() { unsafe { g() } }";
        let good = [
            ("cluster/reactor/src/ring.rs", text),
            ("osd/src/lib.rs", "// unsafe\n#![forbid(unsafe_code)]"),
        ];
        assert_rule(no_unsafe, &good, &[("osd/src/lib.rs", text)]);
    }

    #[test]
    fn finds_long_files() {
        let (fits, long) = ("x\n".repeat(FILE_LINES), "x\n".repeat(FILE_LINES + 1));
        assert_rule(
            file_size,
            &[("a.rs", &fits), ("a.md", &long)],
            &[("a.rs", &long), ("a.py", &long)],
        );
    }

    #[test]
    fn finds_long_functions() {
        let short = "fn a() {\n}\n".repeat(9);
        let long = format!("fn b() {{\n{}}}\n", "x;\n".repeat(SHORT_LINES));
        let good = format!("{short}{long}");
        let bad = format!("{short}{long}{long}");
        assert_rule(function_length, &[("a.rs", &good)], &[("a.rs", &bad)]);
    }

    #[test]
    fn finds_empty_names() {
        assert_rule(
            module_names,
            &[("osd/src/peering.rs", "mod log; // mod utils\n")],
            &[
                ("osd/src/utils.rs", ""),
                ("osd/src/common/mod.rs", ""),
                ("osd/src/a.rs", "mod helpers {}"),
            ],
        );
    }

    #[test]
    fn finds_what_is_unfinished() {
        assert_rule(
            nothing_unfinished,
            &[("a.rs", "// todo!() later\nlet x = \"unimplemented!\";")],
            &[
                ("a.rs", "fn f() { todo!() }"),
                ("a.rs", "unimplemented!(\"x\")"),
                ("a.rs", "#[ignore = \"slow\"]"),
            ],
        );
    }

    #[test]
    fn finds_crates_without_a_head() {
        let good = "//! Is.\n//! Promises.\n//! Does not.\n";
        assert_rule(
            crate_heads,
            &[("a/src/lib.rs", good), ("a/src/x.rs", "")],
            &[("a/src/lib.rs", "//! Is.\n"), ("a/src/main.rs", "")],
        );
    }
}
